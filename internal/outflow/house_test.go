package outflow

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/outbound"
)

const patience = 20 * time.Second

// eventually waits for what other processes do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v: %s", patience, what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// record makes a line as the hub does. n rises with each message of a device.
func record(scope, device string, n int, body string) []byte {
	line, err := json.Marshal(map[string]any{
		"id": fmt.Sprintf("%s-%s-%06d", scope, device, n), "time": time.Now().UTC().Format(time.RFC3339Nano), "scope": scope, "hub": "hub." + scope + ".test", "deviceId": device,
		"properties": map[string]string{}, "systemProperties": map[string]string{}, "body": json.RawMessage(body),
	})
	if err != nil {
		panic(err)
	}
	return append(line, '\n')
}

// arrivals is what a receiver has got, by device, each message's first arrival in order.
type arrivals struct {
	mu    sync.Mutex
	seen  map[string]bool
	order map[string][]string
	twice int
}

func newArrivals() *arrivals { return &arrivals{seen: map[string]bool{}, order: map[string][]string{}} }

func (a *arrivals) take(line []byte) {
	var f facts
	if err := json.Unmarshal(line, &f); err != nil {
		panic(fmt.Sprintf("%q: %v", line, err))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen[f.ID] {
		a.twice++
		return
	}
	a.seen[f.ID] = true
	a.order[f.DeviceID] = append(a.order[f.DeviceID], f.ID)
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen)
}

// missing says what is wrong with what came, of what was acknowledged.
func (a *arrivals) missing(acknowledged []string) (wrong []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range acknowledged {
		if !a.seen[id] {
			wrong = append(wrong, id+" was acknowledged and never came")
		}
	}
	for device, ids := range a.order {
		for i := 1; i < len(ids); i++ {
			if ids[i] < ids[i-1] {
				wrong = append(wrong, fmt.Sprintf("%s: %s came before %s", device, ids[i-1], ids[i]))
			}
		}
	}
	return wrong[:min(len(wrong), 5)]
}

// logs is what was logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), part)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// loopback is a client that may call receivers on this machine.
func loopback(change func(*outbound.Config)) *outbound.Client {
	c := outbound.Config{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: time.Second}
	if change != nil {
		change(&c)
	}
	return outbound.New(c)
}

// openFlow opens a flow whose outputs do not rest long between attempts.
func openFlow(t *testing.T, c Config) *Flow {
	t.Helper()
	if c.Limit == 0 {
		c.Limit = 64 << 20
	}
	c.firstRest, c.longestRest = time.Millisecond, 50*time.Millisecond
	f, err := Open(c)
	must(t, err)
	return f
}

// sendAll writes so many records of some devices at the same time, and gives the ids of those that were acknowledged.
func sendAll(t *testing.T, w io.Writer, devices, from, to int) (ids []string) {
	t.Helper()
	var work sync.WaitGroup
	var mu sync.Mutex
	for d := range devices {
		device := fmt.Sprintf("device%02d", d)
		work.Go(func() {
			for n := from; n < to; n++ {
				if _, err := w.Write(record("0ne00000001", device, n, fmt.Sprintf(`{"n":%d}`, n))); err != nil {
					t.Errorf("%s %d: %v", device, n, err)
					return
				}
				mu.Lock()
				ids = append(ids, fmt.Sprintf("0ne00000001-%s-%06d", device, n))
				mu.Unlock()
			}
		})
	}
	work.Wait()
	return ids
}

// server is another program that this test runs, kills and starts again.
type server struct {
	t    *testing.T
	name string
	args []string
	addr string
	cmd  *exec.Cmd
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// program finds one that Debian keeps off the usual PATH.
func program(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := "/usr/sbin/" + name
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is not there: scripts/setup.sh test installs it", name)
	}
	return path
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(program(s.t, s.name), s.args...)
	output, err := os.CreateTemp(s.t.TempDir(), s.name)
	must(s.t, err)
	s.cmd.Stdout, s.cmd.Stderr = output, output
	must(s.t, s.cmd.Start())
	s.t.Cleanup(s.kill)
	eventually(s.t, s.name+" does not listen", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// kill is kill -9.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// gate passes TCP on to a server, while it is open. It can cut what is under way.
type gate struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	open     bool
	conns    map[net.Conn]bool
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := &gate{listener: l, to: to, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { l.Close(); g.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go g.pass(c)
		}
	}()
	return g
}

func (g *gate) addr() string { return g.listener.Addr().String() }

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = open
}

func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.Close()
	}
}

func (g *gate) pass(c net.Conn) {
	defer c.Close()
	g.mu.Lock()
	open := g.open
	if open {
		g.conns[c] = true
	}
	g.mu.Unlock()
	if !open {
		return
	}
	defer func() { g.mu.Lock(); delete(g.conns, c); g.mu.Unlock() }()
	s, err := net.Dial("tcp", g.to)
	if err != nil {
		return
	}
	defer s.Close()
	go func() { io.Copy(c, s); c.Close() }()
	io.Copy(s, c)
}

// TestMain is also the service of the kill tests: it opens a flow as it is told, writes what comes on standard input, and says which records are durable.
func TestMain(m *testing.M) {
	if setup := os.Getenv("OUTFLOW_CHILD"); setup != "" {
		if err := child(setup); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// childSetup is what the parent tells the service.
type childSetup struct {
	Folder, File, NATS, Webhook, Token string
	Roots                              []byte
	PassFirst                          bool
}

func child(text string) error {
	var setup childSetup
	if err := json.Unmarshal([]byte(text), &setup); err != nil {
		return err
	}
	f, err := Open(Config{Folder: setup.Folder, Limit: 64 << 20, Webhooks: trusting(setup.Roots), passFirst: setup.PassFirst, firstRest: time.Millisecond, longestRest: 50 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Outputs: []Output{
			{Name: "file", To: ToFile{Path: setup.File}},
			{Name: "hook", To: ToWebhook{URL: setup.Webhook, Format: Lines}},
			{Name: "nats", To: ToNATS{URL: setup.NATS, Subject: "telemetry.{scope}.{deviceId}", Payload: PayloadRecord, TokenFile: setup.Token}},
		}})
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	var out sync.Mutex
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return f.Close()
		} else if err != nil {
			return err
		}
		var m facts
		if err := json.Unmarshal(line, &m); err != nil {
			return err
		}
		if _, err := f.Write(line); err != nil {
			return err
		}
		out.Lock()
		fmt.Println(m.ID)
		out.Unlock()
	}
}

func readLines(t *testing.T, pattern string, each func(line []byte)) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	must(t, err)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		must(t, err)
		for line := range bytes.Lines(data) {
			if json.Valid(line) {
				each(line)
			}
		}
	}
}
