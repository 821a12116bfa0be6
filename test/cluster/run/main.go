// Command run keeps three nodes on PostgreSQL behind HAProxy running for a person to use and to break: `make cluster`.
//
//	latchkey-cluster start    in the foreground, until Ctrl-C or SIGTERM; then all of it stops and its files go
//	latchkey-cluster stop     ends the one that runs in this checkout, and waits until it is gone
//
// Its files lie in bin/cluster, beside the programs. A node that dies is started again after some seconds, as a service manager would.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `latchkey-cluster start    run three nodes until Ctrl-C
latchkey-cluster stop     end what runs
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := do(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "latchkey-cluster:", err)
		os.Exit(1)
	}
}

func do(ctx context.Context, args []string) error {
	bin, err := beside()
	if err != nil {
		return err
	}
	dir := filepath.Join(bin, "cluster")
	switch {
	case len(args) == 1 && args[0] == "start":
		return run(ctx, os.Stdout, bin, dir)
	case len(args) == 1 && args[0] == "stop":
		return stop(ctx, dir)
	}
	fmt.Fprint(os.Stderr, usage)
	os.Exit(2)
	return nil
}

// beside is the directory of this program and the others.
func beside() (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	return filepath.Dir(self), err
}
