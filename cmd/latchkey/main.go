// Command latchkey is the provisioning service and the operator's commands.
//
// init, serve, key, cert, store, fsck, backup and restore work on a data directory; every other command speaks HTTPS with a connection string, from anywhere.
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

	"latchkey.example/latchkey/internal/config"
)

// version is set by the linker.
var version = "unknown"

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// hangups receives SIGHUP from the first moment of serve on, so that one that comes early asks for a reload and does not kill.
var hangups = make(chan os.Signal, 1)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" || len(os.Args) > 2 && os.Args[1] == "hub" && os.Args[2] == "serve" {
		signal.Notify(hangups, syscall.SIGHUP)
	}
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
	var partly partlyError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "latchkey: %v\nSee latchkey --help.\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "latchkey: %v\n", err)
	if errors.As(err, &partly) {
		return exitPartly
	}
	return exitFailure
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "latchkey",
		Short: "A self-hosted device provisioning service for devices with a TPM 2.0",
		Long: `A self-hosted device provisioning service for devices with a TPM 2.0.

init, serve, key, cert, store, fsck, backup and restore work on a data directory, on the server; every other command speaks HTTPS with a
connection string, from anywhere.

Exit codes: 0 done; 1 refused or failed; 2 the command line is wrong; 3 partly done, the message says how to go on.

How to reach a service stands in flags, in the environment, or in a profile of a file, $LATCHKEY_PROFILES or latchkey/profiles.yaml in the
user's configuration folder:

    default:
      connectionString: HostName=dps.example.net;SharedAccessKeyName=...;SharedAccessKey=...
      connect: 192.0.2.7:443      # address to dial in place of the host; may be left out
      caFile: ca.crt              # CA to trust, in place of the system's; may be left out

The file holds secrets, so its mode must be 0600. A relative caFile counts from the file. What a flag says goes before the environment, and that
before the profile; a profile that --profile names goes before the environment.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(initCommand(), serveCommand(), enrollCommand(), groupCommand(), caCommand(), registrationCommand(), statisticsCommand(), scopeCommand(), moveInCommand(), exportCommand(), whyCommand(), auditCommand(), policyCommand(), hubCommand(), keyCommand(), certCommand(), storeCommand(), fsckCommand(), backupCommand(), restoreCommand())
	complete(root)
	return root
}

// nameOf is a command's name in a complaint, which begins with that of the program.
func nameOf(cmd *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()), " ")
}

func prefixOf(cmd *cobra.Command) string {
	if cmd.HasParent() {
		return nameOf(cmd) + ": "
	}
	return ""
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%sunexpected %q", prefixOf(cmd), args[0])}
	}
	return nil
}

func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("%s needs one %s", nameOf(cmd), what)}
		}
		return nil
	}
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	g.AddCommand(commands...)
	return g
}

// dataFlag adds --data, with LATCHKEY_DATA in its place.
func dataFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("data", os.Getenv("LATCHKEY_DATA"), "data directory (LATCHKEY_DATA)")
}

// configFlag adds --config, with LATCHKEY_CONFIG in its place.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("config", os.Getenv("LATCHKEY_CONFIG"), "configuration file (LATCHKEY_CONFIG), default DIR/"+config.FileName)
}

func needData(data string) error {
	if data == "" {
		return usageError{errors.New("name the data directory with --data DIR")}
	}
	return nil
}
