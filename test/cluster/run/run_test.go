package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// asProgram makes this test's binary the program itself.
const asProgram = "CLUSTER_TEST_AS_PROGRAM"

// patience is for each thing that a person waits for.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(rig.Main(m))
}

// terminal is what a person sees of the running program.
type terminal struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // closed when the program has ended
	text  strings.Builder
}

// install lays the programs side by side, as make does.
func install(t *testing.T) (program string) {
	t.Helper()
	programs, err := rig.Build()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, path := range []string{programs.Service, programs.Agent} {
		if err := os.Symlink(path, filepath.Join(bin, filepath.Base(path))); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(bin, "latchkey-cluster")
	if err := os.WriteFile(program, self, 0o700); err != nil {
		t.Fatal(err)
	}
	return program
}

func command(program, argument string) *exec.Cmd {
	cmd := exec.Command(program, argument)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a test that is killed cleans nothing up; all that it runs goes with it
	return cmd
}

func open(t *testing.T, program string) *terminal {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(program, "start")
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	w := &terminal{t: t, cmd: cmd, lines: make(chan string, 1000)}
	go func() {
		defer close(w.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // of a test that has failed
		_ = cmd.Wait()
	})
	return w
}

// read goes on to the line that has the text, and returns it.
func (w *terminal) read(want string) string {
	w.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case line, more := <-w.lines:
			if w.text.WriteString(line + "\n"); strings.Contains(line, want) {
				return line
			}
			if !more {
				w.t.Fatalf("it ended without %q:\n%s", want, &w.text)
			}
		case <-limit:
			w.t.Fatalf("it does not say %q:\n%s", want, &w.text)
		}
	}
}

// What make cluster prints is what a person does: every line of it works as it stands.
func TestAPersonUsesBreaksAndStopsACluster(t *testing.T) {
	program := install(t)
	w := open(t, program)
	w.read("Use it from another terminal")
	w.read("")
	var script []string
	for line := w.read("  . "); strings.HasPrefix(line, "  "); line = w.read("") {
		script = append(script, strings.TrimSpace(line))
	}
	if len(script) != 6 {
		t.Fatalf("the lines to type are %q", script)
	}
	shell(t, strings.Join(script, "\n"), "assigned", ": 0 problems", "ok")
	w.read("(registered)")

	if said, err := command(program, "start").CombinedOutput(); err == nil || !strings.Contains(string(said), "one runs already") {
		t.Errorf("a second one: %v, %s", err, said)
	}
	node := regexp.MustCompile(`node 2 .* pid (\d+)`).FindStringSubmatch(w.text.String())
	kill := regexp.MustCompile(`kill -9 (\d+) +node 2 is gone`).FindStringSubmatch(w.text.String())
	if node == nil || kill == nil || node[1] != kill[1] {
		t.Fatalf("node 2 is %q, and is killed by %q", node, kill)
	}
	pid, _ := strconv.Atoi(node[1])
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.read("node 2 has ended")
	shell(t, strings.Join(script[:1], "\n")+"\nlatchkey-device register", "assigned")

	if said, err := command(program, "stop").CombinedOutput(); err != nil {
		t.Errorf("stop: %v, %s", err, said)
	}
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("it ended badly: %v\n%s", err, drain(w))
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(program), "cluster", "*")); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// shell runs lines as they would be typed.
func shell(t *testing.T, script string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, err := rig.Run(ctx, rig.Command{Path: "sh", Args: []string{"-e", "-c", script}})
	for _, text := range want {
		if err != nil || !strings.Contains(result.Stdout, text) {
			t.Errorf("want %q, got %v and:\n%s%s", text, err, result.Stdout, result.Stderr)
		}
	}
}

func drain(w *terminal) string {
	for line := range w.lines {
		w.text.WriteString(line + "\n")
	}
	return w.text.String()
}

func TestWithoutAClusterThereIsNothingToStop(t *testing.T) {
	if said, err := command(install(t), "stop").CombinedOutput(); err != nil || !strings.Contains(string(said), "no cluster runs here") {
		t.Errorf("stop: %v, %s", err, said)
	}
}
