package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// followers are the commands that go on, by script.
var followers sync.Map

func follower(ts *testscript.TestScript) *serving {
	s, ok := followers.Load(ts)
	if !ok {
		ts.Fatalf("nothing is being followed")
	}
	return s.(*serving)
}

func follow(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: follow COMMAND...")
	}
	path, err := exec.LookPath(args[0])
	ts.Check(err)
	s := &serving{ended: make(chan struct{}), changed: make(chan struct{})}
	s.command = exec.Command(path, args[1:]...)
	s.command.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "GORACE", "LATCHKEY_CONNECTION_STRING", "LATCHKEY_CONNECT", "LATCHKEY_CA_FILE"} {
		s.command.Env = append(s.command.Env, name+"="+ts.Getenv(name))
	}
	pipe, err := s.command.StdoutPipe()
	ts.Check(err)
	s.command.Stderr = s.command.Stdout
	copied, err := os.OpenFile(ts.MkAbs("followed.out"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	ts.Check(err)
	ts.Check(s.command.Start())
	go s.read(pipe, copied)
	followers.Store(ts, s)
	ts.Defer(func() { s.end(os.Kill) })
}

func sees(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: sees REGEXP")
	}
	follower(ts).wait(ts, 0, regexp.MustCompile(args[0]))
}

func interrupt(ts *testscript.TestScript, _ bool, _ []string) {
	s := follower(ts)
	followers.Delete(ts)
	if err := s.end(os.Interrupt); err != nil {
		ts.Fatalf("the command ended with %v:\n%s", err, strings.Join(s.lines, "\n"))
	}
}
