package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// diary prints what happens, a line at a time.
type diary struct {
	mu sync.Mutex
	w  io.Writer
}

func (d *diary) line(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.w, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// nodeLog keeps a node's log in a file and tells of each request in it.
type nodeLog struct {
	say  *diary
	node int // from 0
	path string

	file    *os.File
	partial []byte // a line whose end has not come yet
}

// Write takes any part of any number of lines. A log that cannot be kept is told once and is no reason to stop the node.
func (l *nodeLog) Write(b []byte) (int, error) {
	if l.file == nil {
		file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			l.say.line("node %d's log is not kept: %v", l.node+1, err)
			file = os.Stderr
		}
		l.file = file
	}
	_, _ = l.file.Write(b)
	l.partial = append(l.partial, b...)
	for {
		line, rest, whole := bytes.Cut(l.partial, []byte{'\n'})
		if !whole {
			return len(b), nil
		}
		l.tell(line)
		l.partial = rest
	}
}

// tell prints a request that was answered.
func (l *nodeLog) tell(line []byte) {
	var r struct {
		Msg, API, Operation, ID, Reason string
		Status                          int
	}
	if json.Unmarshal(line, &r) == nil && r.Msg == "request" {
		l.say.line("node %d  %d  %s %s %.12s (%s)", l.node+1, r.Status, r.API, r.Operation, r.ID, r.Reason)
	}
}
