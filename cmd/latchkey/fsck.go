package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
	"latchkey.example/latchkey/internal/fsck"
)

func fsckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fsck --data DIR",
		Short: "Check what the store holds; the service may run meanwhile",
		Long: `Check what the store holds: that every registration is whole and its hub holds what the device was given (P1), that a device id belongs to one
registration (P2), that no assignment stands without its audit row (P3), that every redemption is counted (P4), that entries say what devices
are judged by, and that the master key opens every secret. It changes nothing. Exit code 1 if something is wrong.

Audit rows are looked for while the operation of an assignment is kept, which is some eleven minutes. One that is lost later is not found.`,
		Args: noArgs,
	}
	data, file := dataFlag(cmd), configFlag(cmd)
	asJSON := jsonFlag(cmd, "print one JSON object a line, problems and then the summary")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		cfg, err := config.Load(*data, *file, os.Getenv, nil)
		if err != nil {
			return err
		}
		out := json.NewEncoder(cmd.OutOrStdout())
		tell := func(p fsck.Problem) { fmt.Fprintln(cmd.OutOrStdout(), printable(p.String())) }
		if *asJSON {
			tell = func(p fsck.Problem) { _ = out.Encode(p) } // the summary's error tells
		}
		sum, err := daemon.Fsck(cmd.Context(), cfg, tell)
		if err != nil {
			return err
		}
		if *asJSON {
			err = out.Encode(sum)
		} else {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Checked %d scopes, %d enrollments, %d groups, %d CA certificates, %d registrations, %d secrets: %d problems\n",
				sum.Scopes, sum.Enrollments, sum.Groups, sum.CACertificates, sum.Registrations, sum.SealedValues, sum.Problems)
		}
		if err == nil && sum.Problems > 0 {
			err = fmt.Errorf("%d problems", sum.Problems)
		}
		return err
	}
	return cmd
}
