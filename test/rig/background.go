package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Background is a program that runs beside us, and dies with us.
type Background struct {
	name    string
	process *process
	output  output
}

// output keeps what a program writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// StartBackground starts a program. It inherits the files, from descriptor 3
// on. Of a Command In is not used.
func StartBackground(c Command, files ...*os.File) (*Background, error) {
	b := &Background{name: filepath.Base(c.Path)}
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = c.Dir, append(environment(), c.Env...), files
	cmd.Stdout, cmd.Stderr = &b.output, &b.output
	p, err := start(cmd)
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	b.process = p
	return b, nil
}

// PID of the program's process.
func (b *Background) PID() int { return b.process.cmd.Process.Pid }

// Done is closed when the program has ended.
func (b *Background) Done() <-chan struct{} { return b.process.done }

// Output is all that it has written so far.
func (b *Background) Output() string { return b.output.String() }

// Stop ends the program (SIGTERM) and returns when it is gone. That it had
// ended before is an error, with the last of what it said.
func (b *Background) Stop() error {
	select {
	case <-b.process.done:
		return fmt.Errorf("rig: %s had ended by itself: %w; it said: %s", b.name, b.process.err, lastLines(b.Output(), 20))
	default:
	}
	err := b.process.cmd.Process.Signal(syscall.SIGTERM)
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-b.process.done:
		return nil // by our signal, whatever a program makes of it
	case <-limit.C:
		err = errors.Join(err, b.process.cmd.Process.Kill())
		<-b.process.done
		return errors.Join(err, fmt.Errorf("rig: %s did not stop within %v and was killed", b.name, stopLimit))
	}
}
