// Command suite runs the tests for the Makefile: go test once for each group of arguments, then every fuzz target
// for a while, then one line that counts what was run.
//
//	go run ./scripts/suite [-noskip] [-show] [-fuzz 2s] [-- go test arguments]...
//
// It prints what go test prints without -v: a line for each package, and the whole output of whatever failed. The
// exit code is that of the first go test that failed. It trusts go test's JSON events (go doc test2json) and adds
// one rule of its own: with -noskip a skipped test fails the run, since a proof that was not made is no proof.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

func main() {
	noskip := flag.Bool("noskip", false, "a skipped test fails the run")
	fuzz := flag.Duration("fuzz", 0, "run every fuzz target under the current directory for this long; 0 for none")
	show := flag.Bool("show", false, "print what tests print as it comes, those that pass too, but not what subtests print; and how long all of it took")
	flag.Parse()
	os.Exit(run(os.Stdout, groups(flag.Args()), options{*noskip, *show, *fuzz}))
}

// groups splits the arguments at each "--"; flag.Parse has eaten the first.
func groups(args []string) [][]string {
	var out [][]string
	var group []string
	for _, arg := range append(args, "--") {
		if arg != "--" {
			group = append(group, arg)
			continue
		}
		if len(group) > 0 {
			out = append(out, group)
		}
		group = nil
	}
	return out
}

// options are the flags of the same names.
type options struct {
	noskip, show bool
	fuzz         time.Duration
}

// run does everything that was asked even after a failure, so that one log shows all that is wrong.
func run(out io.Writer, groups [][]string, o options) int {
	total, began := tally{}, time.Now()
	code := 0
	for _, group := range groups {
		code = first(code, goTest(out, &total, o.show, group))
	}
	if o.fuzz > 0 {
		code = first(code, fuzzAll(out, &total, ".", o.fuzz))
	}
	if o.noskip && len(total.skips) > 0 {
		fmt.Fprintf(out, "\nskipped, which this run does not allow:\n")
		for _, name := range total.skips {
			fmt.Fprintf(out, "    %s\n", name)
		}
		total.failed += len(total.skips)
		total.skips = nil
		code = first(code, 1)
	}
	if code == 0 && total.passed == 0 {
		fmt.Fprintln(out, "no test was run")
		code = 1
	}
	if o.show {
		fmt.Fprintf(out, "all of it took %v\n", time.Since(began).Round(time.Second))
	}
	fmt.Fprintln(out, total)
	return code
}

func first(code, next int) int {
	if code != 0 {
		return code
	}
	return next
}

// goTest runs one `go test -json` and returns its exit code.
func goTest(out io.Writer, total *tally, show bool, args []string) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	events, err := cmd.StdoutPipe()
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	cmd.Stderr = cmd.Stdout // one pipe, so that only report writes to out
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	before := total.failed
	report(out, total, show, events)
	code := exitCode(out, cmd.Wait())
	if code != 0 && total.failed == before {
		total.failed++ // go test itself refused: a bad pattern, a broken go.mod
	}
	return code
}

func exitCode(out io.Writer, err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	fmt.Fprintln(out, err)
	return 1
}
