package postgres

import (
	"context"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// wire forwards connections to the server until it is cut: from then on it takes what comes and answers nothing, as a host that is gone.
type wire struct {
	listener net.Listener
	socket   string

	mu     sync.Mutex
	silent bool
	open   []net.Conn
}

func newWire(t *testing.T, socket string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, socket: socket}
	go w.accept()
	t.Cleanup(w.end)
	return w
}

func (w *wire) end() {
	w.listener.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		c.Close()
	}
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("unix", w.socket)
		if err != nil {
			near.Close()
			continue
		}
		w.mu.Lock()
		w.open = append(w.open, near, far)
		w.mu.Unlock()
		go w.forward(far, near)
		go w.forward(near, far)
	}
}

func (w *wire) forward(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if !w.cut() {
			_, _ = to.Write(buffer[:n])
		}
	}
}

func (w *wire) cut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.silent
}

func (w *wire) setSilent(silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = silent
}

// over is an address of the database that leads over the wire.
func (w *wire) over(t *testing.T, name string) string {
	t.Helper()
	u, err := url.Parse(server.Address(name))
	if err != nil {
		t.Fatal(err)
	}
	u.Host, u.RawQuery = w.listener.Addr().String(), "sslmode=disable"
	return u.String()
}

func socketOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")
}

// A failover may leave connections that nobody answers and nobody closes. None of them is waited for longer than a ping may take, and once there is a
// way to the server again the next call finds it.
func TestConnectionsThatLeadNowhereAreLeft(t *testing.T) {
	t.Parallel()
	name := newDatabase(t)
	w := newWire(t, socketOf(t, server.Address(name)))
	s := reopen(t, w.over(t, name), Options{Conns: 4, connectTime: 200 * time.Millisecond, pingTime: 50 * time.Millisecond, pingAlways: true})
	t.Cleanup(func() { w.end(); closeStore(t, s) }) // in this order: the driver waits for the ends of connections that it has given up
	if _, err := s.Scopes(t.Context()); err != nil {
		t.Fatal(err)
	}

	w.setSilent(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := s.Scopes(ctx)
	if err == nil || ctx.Err() != nil {
		t.Fatalf("the call ended with %v", err)
	}
	if !strings.Contains(err.Error(), "timeout") && !strings.Contains(err.Error(), "deadline") {
		t.Errorf("it says %v", err)
	}
	w.setSilent(false)
	if _, err := s.Scopes(ctx); err != nil {
		t.Errorf("with the way back: %v", err)
	}
}

func TestAServerThatDoesNotAnswerIsNotWaitedForAtTheStart(t *testing.T) {
	t.Parallel()
	name := newDatabase(t)
	w := newWire(t, socketOf(t, server.Address(name)))
	w.setSilent(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := Open(ctx, w.over(t, name), Options{connectTime: 50 * time.Millisecond})
	if err == nil {
		s.Close()
	}
	if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), name+" at 127.0.0.1") {
		t.Errorf("open ended with %v", err)
	}
}
