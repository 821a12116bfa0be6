package main

import (
	"os"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
)

func storeCommand() *cobra.Command {
	migrate := &cobra.Command{
		Use:   "migrate --data DIR",
		Short: "Bring the database to this release's schema; on an embedded store the service must not run",
		Args:  noArgs,
	}
	data, file := dataFlag(migrate), configFlag(migrate)
	asJSON := jsonFlag(migrate, "print both schema numbers as JSON")
	migrate.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		cfg, err := config.Load(*data, *file, os.Getenv, nil)
		if err != nil {
			return err
		}
		from, to, err := daemon.Migrate(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		done := map[string]any{"from": from, "to": to}
		if from == to {
			return tellValue(cmd, *asJSON, done, "The database has schema %d already, with which this release works.", to)
		}
		return tellValue(cmd, *asJSON, done, "Migrated from schema %d to %d.", from, to)
	}
	return group("store", "The database", migrate, storeCopyCommand())
}
