package outflow

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// service is this test's program as the service, in a process of its own.
type service struct {
	t     *testing.T
	setup childSetup
}

// live runs the service, has it accept records of some devices from n on until it has acknowledged so many and is killed, and gives the ids that it acknowledged.
func (s *service) live(n *int, life int) (acknowledged []string) {
	s.t.Helper()
	setup, err := json.Marshal(s.setup)
	must(s.t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OUTFLOW_CHILD="+string(setup))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(s.t, err)
	out, err := cmd.StdoutPipe()
	must(s.t, err)
	must(s.t, cmd.Start())
	go func() {
		w := bufio.NewWriter(in)
		for {
			*n++
			if _, err := w.Write(record("0ne00000001", fmt.Sprintf("device%02d", *n%7), *n, `{"n":1}`)); err != nil || w.Flush() != nil {
				return
			}
		}
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if acknowledged = append(acknowledged, lines.Text()); len(acknowledged) == life { // it is still writing and forwarding
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	return acknowledged
}

// finish runs the service until it has forwarded everything.
func (s *service) finish(done func() bool) {
	s.t.Helper()
	setup, err := json.Marshal(s.setup)
	must(s.t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OUTFLOW_CHILD="+string(setup))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(s.t, err)
	must(s.t, cmd.Start())
	eventually(s.t, "the service does not forward what it has", done)
	in.Close()
	must(s.t, cmd.Wait())
}

// killLoop kills the service over and over while it accepts and forwards to a file, a webhook that fails now and then, and a JetStream that is killed too.
func killLoop(t *testing.T, lives int, passFirst bool) (wrong []string, total int) {
	h := newHook(t, func(call int, w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		if call%5 == 1 {
			w.WriteHeader(503)
		}
		return call%5 != 1
	})
	js := jetStream(t, "--auth", "canary")
	makeStream(t, js.addr, jetstream.StreamConfig{Name: "T", Subjects: []string{"telemetry.>"}})
	folder := t.TempDir()
	s := &service{t, childSetup{Folder: filepath.Join(folder, "spool"), File: filepath.Join(folder, "out.ndjson"), NATS: "nats://" + js.addr, Webhook: h.URL,
		Roots: h.roots(), PassFirst: passFirst, Token: writeToken(t)}}
	n := 0
	var acknowledged []string
	for life := range lives {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if life%3 == 1 {
				js.kill()
				js.start()
			}
		}()
		acknowledged = append(acknowledged, s.live(&n, 30+rand.IntN(90))...)
		<-done
	}
	file := func() *arrivals {
		a := newArrivals()
		readLines(t, s.setup.File, a.take)
		return a
	}
	last := acknowledged[len(acknowledged)-1]
	s.finish(func() bool {
		h.got.mu.Lock()
		defer h.got.mu.Unlock()
		return passFirst || h.got.seen[last]
	})
	if !passFirst {
		s.finish(func() bool { return file().seen[last] && readStream(t, js.addr, "T").seen[last] })
	}
	for name, got := range map[string]*arrivals{"file": file(), "webhook": h.got, "stream": readStream(t, js.addr, "T")} {
		for _, what := range got.missing(acknowledged) {
			wrong = append(wrong, name+": "+what)
		}
	}
	return wrong, len(acknowledged)
}

func writeToken(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(path, []byte("canary"), 0o600))
	return path
}

func TestAKilledServiceForwardsEverythingThatItAcknowledged(t *testing.T) {
	t.Parallel()
	lives := 6
	if os.Getenv("LATCHKEY_LONG") == "1" {
		lives = 200
	}
	wrong, total := killLoop(t, lives, false)
	if len(wrong) > 0 {
		t.Error(wrong)
	}
	if total < 100 {
		t.Errorf("only %d records were acknowledged: the test tests little", total)
	}
	t.Logf("%d records, %d lives", total, lives)
}

// The control: an output that is passed before its receiver has the records loses some, and the check finds it.
func TestTheKillLoopCatchesAnOutputThatPassesTooSoon(t *testing.T) {
	t.Parallel()
	for range 5 {
		if wrong, _ := killLoop(t, 4, true); len(wrong) > 0 {
			t.Log(wrong[0])
			return
		}
	}
	t.Error("nothing was noticed")
}
