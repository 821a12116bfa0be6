package daemon

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/config"
)

// manager is a service manager as a service sees it: a socket that takes datagrams.
type manager struct {
	*net.UnixConn
	path string
}

func listenAsManager(t *testing.T) manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "nfy") // a socket's path may have 107 bytes only
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return manager{conn, path}
}

// hears waits for the next datagram.
func (m manager) hears(t *testing.T) string {
	t.Helper()
	must(t, m.SetReadDeadline(time.Now().Add(patience)))
	text := make([]byte, 1<<10)
	n, err := m.Read(text)
	must(t, err)
	return string(text[:n])
}

func (m manager) tellMe(o *Options) { o.NotifySocket = m.path }

func TestTheServiceManagerIsToldWhatTheServiceDoes(t *testing.T) {
	m := listenAsManager(t)
	r := installed(t).run(t, m.tellMe)
	for _, step := range []struct {
		do   func()
		want []string
	}{
		{func() {}, []string{"READY=1"}},
		{r.reloaded, []string{"RELOADING=1", "READY=1"}},
		{func() {
			r.configure(t, "logLevel: nonsense\n")
			if line := r.hup(); line["msg"] == "reloaded" {
				t.Error("nonsense was loaded")
			}
		}, []string{"RELOADING=1", "READY=1"}}, // a reload that failed is over too: the service goes on as it was
		{r.end, []string{"STOPPING=1"}},
	} {
		step.do()
		for _, want := range step.want {
			if got := m.hears(t); got != want {
				t.Fatalf("the service manager heard %q, want %q", got, want)
			}
		}
	}
	r.stop()
}

// What waits for the service may connect the moment READY is told.
func TestReadyIsToldWhenTheServiceAnswers(t *testing.T) {
	m := listenAsManager(t)
	r := installed(t).run(t, m.tellMe)
	if got := m.hears(t); got != "READY=1" {
		t.Fatalf("heard %q", got)
	}
	if status, _, err := ask(r.client(), http.MethodGet, "https://"+host+"/readyz", "", nil); err != nil || status != http.StatusOK {
		t.Errorf("after READY, /readyz answers %d %v", status, err)
	}
}

func TestAStartThatFailsIsNotCalledReady(t *testing.T) {
	m, h := listenAsManager(t), installed(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	err = Run(context.Background(), Options{Log: newLogbook(), NotifySocket: m.path,
		Load: func() (config.Config, error) { return h.load(map[string]string{"mqtt": taken.Addr().String()}) }})
	if err == nil {
		t.Fatal("the service started on an address that is taken")
	}
	must(t, notifier{m.path}.tell("the end")) // after all that Run said
	if got := m.hears(t); got != "the end" {
		t.Errorf("the service manager heard %q", got)
	}
}

func TestAServiceManagerThatIsGoneStopsNothing(t *testing.T) {
	r := installed(t).run(t, func(o *Options) { o.NotifySocket = filepath.Join(t.TempDir(), "nobody") })
	r.log.wait(t, 0, "a warning", message("the service manager cannot be told"))
	r.reloaded()
	if status, _ := r.probe("/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: %d", status)
	}
}
