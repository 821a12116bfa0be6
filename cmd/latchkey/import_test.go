package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// importing is an import of a script whose lines come bit by bit.
type importing struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *os.File
}

// importers by script.
var importers sync.Map

// feed is the script command feed: it starts a command, gives it numbered enrollments as lines on its standard input and leaves that open. What
// the command says is fed.out.
func feed(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: feed LINES COMMAND...")
	}
	lines, err := strconv.Atoi(args[0])
	ts.Check(err)
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	i := &importing{command: exec.Command(path, args[2:]...)}
	i.command.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "GORACE", "LATCHKEY_CONNECTION_STRING", "LATCHKEY_CONNECT", "LATCHKEY_CA_FILE"} {
		i.command.Env = append(i.command.Env, name+"="+ts.Getenv(name))
	}
	i.out, err = os.Create(ts.MkAbs("fed.out"))
	ts.Check(err)
	i.command.Stdout, i.command.Stderr = i.out, i.out
	i.in, err = i.command.StdinPipe()
	ts.Check(err)
	ts.Check(i.command.Start())
	importers.Store(ts, i)
	ts.Defer(func() {
		if i.command.ProcessState == nil {
			i.command.Process.Kill()
			i.command.Wait()
		}
		i.out.Close()
	})
	ts.Check(second(io.WriteString(i.in, numberedLines(lines, ts.Getenv("EK")))))
}

func second[T any](_ T, err error) error { return err }

func numberedLines(n int, ek string) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `{"registrationId":"dev-%04d","endorsementKey":%q}`+"\n", i, ek)
	}
	return text.String()
}

// linesWithTwins are numbered enrollments, each with an initial twin of so many bytes.
func linesWithTwins(n int, ek string, size int) string {
	const before, after = `{"tags":{"note":"`, `"}}`
	twin := before + strings.Repeat("x", size-len(before+after)) + after
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `{"registrationId":"dev-%04d","attestation":{"type":"tpm","tpm":{"endorsementKey":%q}},"initialTwin":%s}`+"\n", i, ek, twin)
	}
	return text.String()
}

// finish is the script command finish: it ends the input and wants this exit code.
func finish(ts *testscript.TestScript, _ bool, args []string) {
	value, ok := importers.LoadAndDelete(ts)
	if len(args) != 1 || !ok {
		ts.Fatalf("usage: finish CODE, after feed")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	i := value.(*importing)
	i.in.Close()
	limit := time.AfterFunc(patience, func() { i.command.Process.Kill() })
	defer limit.Stop()
	have := 0
	var exit *exec.ExitError
	switch err := i.command.Wait(); {
	case errors.As(err, &exit):
		have = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if have != want {
		ts.Fatalf("exit code %d, want %d:\n%s", have, want, ts.ReadFile("fed.out"))
	}
}

// lines is the script command lines: it writes numbered enrollments to a file, with an initial twin of so many bytes if that is said.
func lines(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: lines LINES FILE [BYTES]")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	if len(args) == 3 {
		twin, err := strconv.Atoi(args[2])
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(linesWithTwins(n, ts.Getenv("EK"), twin)), 0o600))
		return
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(numberedLines(n, ts.Getenv("EK"))), 0o600))
}

// await is the script command await: it runs a command until it succeeds.
func await(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(patience); ts.Exec(args[0], args[1:]...) != nil; {
		if time.Now().After(deadline) {
			ts.Fatalf("waited in vain for %v", args)
		}
	}
}

// crash is the script command crash: the service ends as if its machine did.
func crash(ts *testscript.TestScript, _ bool, _ []string) {
	s := service(ts)
	services.Delete(ts)
	if err := s.end(syscall.SIGKILL); err == nil {
		ts.Fatalf("the service ended by itself")
	}
}
