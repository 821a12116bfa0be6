package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
)

func storeCommand() *cobra.Command {
	migrate := &cobra.Command{
		Use:   "migrate --data DIR",
		Short: "Bring the database to this release's schema; the service must not run",
		Args:  noArgs,
	}
	data, file := dataFlag(migrate), configFlag(migrate)
	migrate.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		cfg, err := config.Load(*data, *file, os.Getenv, nil)
		if err != nil {
			return err
		}
		from, to, err := daemon.Migrate(cmd.Context(), cfg)
		switch {
		case err != nil:
			return err
		case from == to:
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "The database has this release's schema, %d, already.\n", to)
		default:
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Migrated from schema %d to %d.\n", from, to)
		}
		return err
	}
	return group("store", "The embedded store", migrate)
}
