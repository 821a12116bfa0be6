package rig

import (
	"bytes"
	"encoding/json"
	"sync"
)

// logKept is how much of a log is kept at least: a service under load for hours
// writes without end.
const logKept = 16 << 20

// serviceLog keeps what the service writes and reads the addresses out of it:
// the service logs {"msg":"listening","what":"https","addr":"127.0.0.1:NNN"}
// for each of its listeners, before it serves on it.
type serviceLog struct {
	mu        sync.Mutex
	text      bytes.Buffer      // its end, see logKept
	partial   []byte            // a line whose end has not been written yet
	addresses map[string]string // by what
	changed   chan struct{}     // closed and replaced with each new address
}

func newServiceLog() *serviceLog {
	return &serviceLog{addresses: make(map[string]string), changed: make(chan struct{})}
}

// Write takes any part of any number of lines.
func (l *serviceLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	if extra := l.text.Len() - logKept; extra > logKept {
		l.text.Next(extra)
	}
	l.partial = append(l.partial, b...)
	for {
		line, rest, whole := bytes.Cut(l.partial, []byte{'\n'})
		if !whole {
			return len(b), nil
		}
		l.readLocked(line)
		l.partial = rest
	}
}

func (l *serviceLog) readLocked(line []byte) {
	var entry struct{ Msg, What, Addr string }
	if json.Unmarshal(line, &entry) != nil || entry.Msg != "listening" {
		return
	}
	l.addresses[entry.What] = entry.Addr
	close(l.changed)
	l.changed = make(chan struct{})
}

// forget drops the addresses of the last run; the text of all runs stays.
func (l *serviceLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addresses = make(map[string]string)
}

// address is empty until the listener is up.
func (l *serviceLog) address(what string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addresses[what]
}

// next is closed when another listener comes up.
func (l *serviceLog) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *serviceLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
