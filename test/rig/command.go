package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// waitDelay is how long a stopped program's children may keep its output open.
const waitDelay = 5 * time.Second

// Command is a program that Run executes.
type Command struct {
	Path string
	Args []string
	Dir  string    // empty: where this process is
	Env  []string  // added to this process's environment, in which no LATCHKEY_ variable is left
	In   io.Reader // its standard input; nil: none
}

// Result is what a program wrote and how it ended.
type Result struct {
	Stdout   string
	Stderr   string
	ExitCode int // -1: ended by a signal, or never started
}

// Run executes a program to its end. An exit code other than 0 and an expired
// context are errors, which quote the end of its standard error; the result
// has all of its output in any case. Arguments are not in the error, since
// keys may stand among them.
func Run(ctx context.Context, c Command) (Result, error) {
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(environment(), c.Env...)
	cmd.WaitDelay = waitDelay
	cmd.Stdin = c.In
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p, err := start(cmd)
	if err != nil {
		return Result{ExitCode: -1}, fmt.Errorf("rig: %w", err)
	}
	<-p.done
	result := Result{Stdout: stdout.String(), Stderr: stderr.String(), ExitCode: cmd.ProcessState.ExitCode()}
	if p.err == nil {
		return result, nil
	}
	return result, fmt.Errorf("rig: %s: %w; it said: %s", filepath.Base(c.Path),
		errors.Join(p.err, ctx.Err()), lastLines(result.Stderr, 20))
}

// environment is ours without the settings of this project's programs: the
// caller's must not steer a test.
func environment() []string {
	var clean []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "LATCHKEY_") {
			clean = append(clean, entry)
		}
	}
	return clean
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// process is a program under way.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is complete
	err  error         // of Wait, once done is closed
}

// start runs cmd so that it dies with us, however we die. Linux ties that to
// the thread that started it, so one goroutine keeps its thread for as long as
// the process lives.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	dieWithParent(cmd)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		close(p.done)
	}()
	return p, <-started
}
