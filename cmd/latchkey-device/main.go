// Command latchkey-device is the agent of a device with a TPM 2.0: it reads the
// device's identity, registers it with a provisioning service, and makes the
// SAS tokens with which it logs in at its hub.
//
// It works with Latchkey and with Azure's Device Provisioning Service, which
// speak the same protocol. The keys stay in the TPM; the state directory holds
// only what that TPM can use.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "unknown"

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := command()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "latchkey-device: %v\nSee latchkey-device --help.\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "latchkey-device: %s\n", strings.ReplaceAll(advised(err).Error(), "\n", "; ")) // joined errors come as lines
	return exitFailure
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "latchkey-device",
		Short:         "Register a device with a TPM 2.0 and log it in at its hub",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(withEnvironment(ekCommand()), withEnvironment(registerCommand()), withEnvironment(tokenCommand()), withEnvironment(forgetCommand()))
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s: unexpected %q", cmd.CommandPath(), args[0])}
	}
	return nil
}
