package main

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds every wait for another process.
const patience = 60 * time.Second

// serving is the service of one script.
type serving struct {
	command *exec.Cmd
	ended   chan struct{}

	mu      sync.Mutex
	lines   []string
	changed chan struct{}
}

// services by script: a script's values can only be set before it begins.
var services sync.Map

func service(ts *testscript.TestScript) *serving {
	s, ok := services.Load(ts)
	if !ok {
		ts.Fatalf("no service was started")
	}
	return s.(*serving)
}

func start(ts *testscript.TestScript, _ bool, args []string) {
	var parent []string
	if len(args) > 1 && args[0] == "hub" {
		parent, args = args[:1], args[1:]
	}
	if len(args) < 1 {
		ts.Fatalf("usage: start [hub] DIR [FLAG...]")
	}
	path, err := exec.LookPath("latchkey")
	ts.Check(err)
	s := &serving{ended: make(chan struct{}), changed: make(chan struct{})}
	s.command = exec.Command(path, append(parent, serveArguments(ts.MkAbs(args[0]), args[1:])...)...)
	s.command.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "GORACE=" + ts.Getenv("GORACE")}
	pipe, err := s.command.StderrPipe()
	ts.Check(err)
	copied, err := os.OpenFile(ts.MkAbs("service.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	ts.Check(s.command.Start())
	go s.read(pipe, copied)
	services.Store(ts, s)
	ts.Defer(func() { s.end(os.Kill) })
	for what, variable := range map[string]string{"https": "LATCHKEY_CONNECT", "mqtt": "MQTT", "metrics": "METRICS"} {
		found := s.wait(ts, 0, regexp.MustCompile(`msg=listening what=`+what+` addr=(\S+)`))
		ts.Setenv(variable, found[1])
	}
}

// read takes the service's log to its end.
func (s *serving) read(pipe interface{ Read([]byte) (int, error) }, copied *os.File) {
	defer close(s.ended)
	defer copied.Close()
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		copied.WriteString(lines.Text() + "\n")
		s.mu.Lock()
		s.lines = append(s.lines, lines.Text())
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
}

func (s *serving) find(from int, line *regexp.Regexp) ([]string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range s.lines[from:] {
		if found := line.FindStringSubmatch(text); found != nil {
			return found, nil
		}
	}
	return nil, s.changed
}

// wait waits for a line of the log from a position on.
func (s *serving) wait(ts *testscript.TestScript, from int, line *regexp.Regexp) []string {
	limit := time.After(patience)
	for {
		found, changed := s.find(from, line)
		if found != nil {
			return found
		}
		select {
		case <-changed:
			continue
		case <-s.ended:
			if found, _ = s.find(from, line); found != nil {
				return found
			}
		case <-limit:
		}
		ts.Fatalf("the service wrote no line %s:\n%s", line, strings.Join(s.lines, "\n"))
	}
}

func hangup(ts *testscript.TestScript, _ bool, _ []string) {
	s := service(ts)
	s.mu.Lock()
	from := len(s.lines)
	s.mu.Unlock()
	ts.Check(s.command.Process.Signal(syscall.SIGHUP))
	s.wait(ts, from, regexp.MustCompile(`msg=reloaded|msg="reload: what failed`))
}

func stop(ts *testscript.TestScript, _ bool, _ []string) {
	s := service(ts)
	services.Delete(ts)
	if err := s.end(syscall.SIGTERM); err != nil {
		ts.Fatalf("the service ended with %v:\n%s", err, strings.Join(s.lines, "\n"))
	}
}

// end ends the process, once, and gives how it went.
func (s *serving) end(signal os.Signal) error {
	if s.command.ProcessState != nil {
		return nil
	}
	s.command.Process.Signal(signal) // if it has ended by itself, Wait says how
	limit := time.AfterFunc(patience, func() { s.command.Process.Kill() })
	defer limit.Stop()
	<-s.ended
	return s.command.Wait()
}
