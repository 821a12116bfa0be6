package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
)

func backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup --data DIR --output FILE",
		Short: "Write a backup of an installation, while the service runs",
		Long: `Write a backup of an installation, while the service runs: the database as it is at one moment, the configuration, the certificates. The telemetry
file is not in it.

With --with-master-key the master key is in it too: then who has the backup has every secret. Without, keep master.key apart: no backup can be used without it.`,
		Args: noArgs,
	}
	data, file := dataFlag(cmd), configFlag(cmd)
	output := fileFlag(cmd, "file to write, whole or not at all")
	asJSON := cmd.Flags().Bool("json", false, "say as JSON what was written")
	with := cmd.Flags().Bool("with-master-key", false, "put the master key into it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		if *output == "" {
			return usageError{errors.New("name the file to write with --output FILE")}
		}
		cfg, err := config.Load(*data, *file, os.Getenv, nil)
		if err != nil {
			return err
		}
		err = writeWhole(*output, func(w io.Writer) error {
			_, err := daemon.Backup(cmd.Context(), cfg, *data, *with, w)
			return err
		})
		if err != nil {
			return err
		}
		if *with {
			fmt.Fprintln(cmd.ErrOrStderr(), "WARNING: the backup holds the MASTER KEY. Who has this file has every secret of the installation.")
		} else {
			fmt.Fprintf(cmd.ErrOrStderr(), "The master key is NOT in the backup. Keep %s apart: the backup cannot be used without it.\n", cfg.MasterKey)
		}
		return tellValue(cmd, *asJSON, map[string]any{"file": *output, "masterKey": *with}, "Wrote %s", *output)
	}
	return cmd
}

func restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE --data DIR",
		Short: "Make an installation of a backup",
		Long: `Make an installation of a backup in a directory that is empty or not there. Everything is checked first: if anything is missing or damaged, or
the master key is not the right one, nothing is left behind.`,
		Args: oneArg("backup"),
	}
	data := dataFlag(cmd)
	key := cmd.Flags().String("master-key", "", "file of the master key, if the backup does not hold it")
	asJSON := jsonFlag(cmd, "say as JSON what was restored")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		in, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer in.Close()
		manifest, err := daemon.Restore(cmd.Context(), bufio.NewReaderSize(in, 1<<20), *data, *key)
		if err != nil {
			return err
		}
		return tellValue(cmd, *asJSON, map[string]any{"backupOf": manifest.Created.UTC(), "data": *data},
			"Restored the backup of %s to %s", manifest.Created.Format("2006-01-02 15:04:05 UTC"), *data)
	}
	return cmd
}
