package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/authority"
	"latchkey.example/latchkey/internal/daemon"
)

func certCommand() *cobra.Command {
	renew := &cobra.Command{
		Use:   "renew --data DIR",
		Short: "Issue a new server certificate for the same names from the private CA",
		Long: `Issue a new server certificate for the same names from the private CA. Send SIGHUP to the service afterwards: it then uses the new one for
new connections.`,
		Args: noArgs,
	}
	data := dataFlag(renew)
	renew.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		folder := filepath.Join(*data, daemon.TLSFolder)
		names, err := authority.Names(folder)
		if err != nil {
			return err
		}
		if err := authority.Issue(folder, names, time.Now()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Issued for %v. Next: send SIGHUP to the service.\n", names)
		return err
	}
	return group("cert", "The server's certificate", renew)
}
