package outflow

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/spool"
)

func TestEachOutputGetsWhatItIsForAndFollowsARotation(t *testing.T) {
	folder := t.TempDir()
	all, one, hub := filepath.Join(folder, "all.ndjson"), filepath.Join(folder, "deep", "one.ndjson"), filepath.Join(folder, "hub.ndjson")
	f := openFlow(t, Config{Folder: filepath.Join(folder, "spool"), Outputs: []Output{
		{Name: "all", To: ToFile{all}},
		{Name: "one", Scope: "0ne00000001", To: ToFile{one}},
		{Name: "hub", Hub: "hub.0ne00000002.test", To: ToFile{hub}},
	}})
	write := func(n int) {
		t.Helper()
		for _, scope := range []string{"0ne00000001", "0ne00000002", "0ne00000003"} {
			_, err := f.Write(record(scope, "dev", n, `{}`))
			must(t, err)
		}
		must(t, f.Drained(t.Context()))
	}
	write(1)
	for _, path := range []string{all, one, hub} {
		must(t, os.Rename(path, path+".1"))
	}
	must(t, f.Reload())
	write(2)
	must(t, f.Close())
	for path, want := range map[string]string{all: "1 2 3", one: "1", hub: "2"} {
		for _, generation := range []string{".1", ""} {
			var scopes []string
			readLines(t, path+generation, func(line []byte) {
				m, err := readMessage(spool.Record{Content: line})
				must(t, err)
				scopes = append(scopes, m.Scope[len(m.Scope)-1:])
			})
			if got := strings.Join(scopes, " "); got != want {
				t.Errorf("%s%s holds %s, want %s", filepath.Base(path), generation, got, want)
			}
		}
	}
}

// When an output does not take what the spool holds, what comes is refused and not kept in memory; it goes on by itself, and nothing is lost.
func TestAFullSpoolRefusesUntilItsOutputWorks(t *testing.T) {
	t.Parallel()
	var works atomic.Bool
	h := newHook(t, func(_ int, w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		if !works.Load() {
			w.WriteHeader(500)
		}
		return works.Load()
	})
	var log logs
	registry := prometheus.NewPedanticRegistry()
	f := openFlow(t, Config{Folder: t.TempDir(), Limit: 2 << 20, patience: 50 * time.Millisecond, Webhooks: trusting(h.roots()), Logger: slog.New(slog.NewTextHandler(&log, nil)), Metrics: registry,
		Outputs: []Output{{Name: "hook", To: ToWebhook{URL: h.URL, Format: Lines}}}})
	body := `"` + strings.Repeat("x", 100<<10) + `"`
	var acknowledged []string
	n := 0
	for ; ; n++ {
		if _, err := f.Write(record("0ne00000001", "dev", n, body)); errors.Is(err, spool.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		acknowledged = append(acknowledged, fmt.Sprintf("0ne00000001-dev-%06d", n))
	}
	if n < 15 || n > 21 {
		t.Errorf("%d records of 100 KB in 2 MB", n)
	}
	eventually(t, "the output is not told to fail", func() bool { return len(f.Trouble()) == 2 })
	if log.count("the spool is full, so nothing more is acknowledged") != 1 {
		t.Errorf("the log:\n%s", log.String())
	}
	value := func(name string) float64 {
		t.Helper()
		families, err := registry.Gather()
		must(t, err)
		for _, family := range families {
			if family.GetName() == name {
				return family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatalf("there is no %s", name)
		return 0
	}
	if value("latchkey_telemetry_spool_full") != 1 || value("latchkey_telemetry_output_failing") != 1 || int(value("latchkey_telemetry_output_lag_records")) != n {
		t.Error("the metrics do not tell")
	}
	if bytes := value("latchkey_telemetry_output_lag_bytes"); bytes < float64(n*100<<10) || bytes > 2<<20 {
		t.Errorf("%v bytes of %d records wait", bytes, n)
	}
	works.Store(true)
	must(t, f.Drained(t.Context()))
	eventually(t, "there is no room", func() bool { _, err := f.Write(record("0ne00000001", "dev", n, body)); return err == nil })
	must(t, f.Drained(t.Context()))
	if f.Trouble() != nil || value("latchkey_telemetry_spool_full") != 0 {
		t.Errorf("still %v", f.Trouble())
	}
	must(t, f.Close())
	if wrong := h.got.missing(acknowledged); len(wrong) > 0 || h.got.count() != n+1 {
		t.Errorf("%d came, %v", h.got.count(), wrong)
	}
}

// What is in the spool and is no record of ours is set aside, and does not stop the others.
func TestWhatIsNoRecordIsSetAside(t *testing.T) {
	folder := t.TempDir()
	out := filepath.Join(folder, "out")
	f := openFlow(t, Config{Folder: filepath.Join(folder, "spool"), Outputs: []Output{{Name: "out", To: ToFile{out}}}})
	for _, line := range []string{"not JSON\n", `{"id":"x"}`, string(record("s", "dev", 1, `1`))} {
		_, err := f.Write([]byte(line))
		must(t, err)
	}
	must(t, f.Drained(t.Context()))
	must(t, f.Close())
	aside, err := os.ReadFile(filepath.Join(folder, "spool", "refused.out.ndjson"))
	if err != nil || string(aside) != "not JSON\n{\"id\":\"x\"}\n" {
		t.Errorf("set aside: %q, %v", aside, err)
	}
	got := newArrivals()
	readLines(t, out, got.take)
	if got.count() != 1 {
		t.Errorf("%d records", got.count())
	}
}
