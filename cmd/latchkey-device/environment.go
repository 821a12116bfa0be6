package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// withEnvironment lets each flag of a command be given by a variable too, and
// says so in its help. A flag on the command line comes first, an empty variable
// counts as not set.
func withEnvironment(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage += " (" + variable(f.Name) + ")" })
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			value := os.Getenv(variable(f.Name))
			if err != nil || f.Changed || value == "" {
				return
			}
			if bad := cmd.Flags().Set(f.Name, value); bad != nil {
				err = usageError{fmt.Errorf("%s: %w", variable(f.Name), bad)}
			}
		})
		return err
	}
	return cmd
}

// variable is LATCHKEY_STATE_DIR for --state-dir.
func variable(flag string) string {
	return "LATCHKEY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
