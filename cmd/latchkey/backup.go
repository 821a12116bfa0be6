package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
)

func backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup --data DIR --output FILE",
		Short: "Write a backup of an installation, while the service runs",
		Long: `Write a backup of an installation, while the service runs: the database as it is at one moment, the configuration (the file of --config, if it is
given), the certificates in the folder tls. The telemetry file is not in it.

With --with-master-key the master key is in it, and the private keys in tls, the private CA's too: then who has the backup has every secret and can
pass for the service. Without, nothing in it is secret in clear: of tls it holds only files that are certificates and nothing else. Keep master.key
apart, no backup can be used without it, and keep the private keys in tls apart. What is left out is told on standard error, also a certificate that
is configured to be elsewhere.`,
		Args: noArgs,
	}
	data, file := dataFlag(cmd), configFlag(cmd)
	output := fileFlag(cmd, "file to write, whole or not at all")
	asJSON := cmd.Flags().Bool("json", false, "say as JSON what was written")
	with := cmd.Flags().Bool("with-master-key", false, "put the master key and the private keys of certificates into it")
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
		var made daemon.BackupManifest
		err = writeWhole(*output, func(w io.Writer) (err error) {
			made, err = daemon.Backup(cmd.Context(), cfg, daemon.BackupPlan{Dir: *data, ConfigFile: *file, MasterKey: *with}, w)
			return err
		})
		if err != nil {
			return err
		}
		left := leftOut(made, *data)
		if *with {
			fmt.Fprintln(cmd.ErrOrStderr(), "WARNING: the backup holds the MASTER KEY. Who has this file has every secret of the installation, and can pass for the service.")
		} else {
			fmt.Fprintf(cmd.ErrOrStderr(), "The master key is NOT in the backup. Keep %s apart: the backup cannot be used without it.\n", cfg.MasterKey)
		}
		if len(left) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "NOT in the backup, keep apart: %s\n", strings.Join(left, ", "))
		}
		return tellValue(cmd, *asJSON, map[string]any{"file": *output, "masterKey": *with, "leftOut": left}, "Wrote %s", *output)
	}
	return cmd
}

// leftOut are the files that a backup lacks, as paths of an installation in dir.
func leftOut(m daemon.BackupManifest, dir string) []string {
	paths := []string{}
	for _, name := range m.LeftOut {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, filepath.FromSlash(name))
		}
		paths = append(paths, printable(name))
	}
	return paths
}

func restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE --data DIR",
		Short: "Make an installation of a backup",
		Long: `Make an installation of a backup in a directory that is empty or not there. Everything is checked first: if anything is missing or damaged, or
the master key is not the right one, nothing is left behind. The directory is replaced, so that nothing may be mounted on it itself: restore below.

A backup without the master key has no private keys of certificates either. Which are to be put back, and where, is told on standard error. With the
private CA's key back in its place, 'latchkey cert renew' makes a new server key and certificate; devices that trust the CA take it.`,
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
		left := leftOut(manifest, *data)
		if len(left) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "NOT in the backup, put them in their places before the service starts: %s\n", strings.Join(left, ", "))
		}
		if slices.Contains(manifest.LeftOut, daemon.TLSFolder+"/ca.key") {
			fmt.Fprintf(cmd.ErrOrStderr(), "With ca.key in its place, latchkey cert renew --data %s makes a new server key and certificate.\n", *data)
		}
		return tellValue(cmd, *asJSON, map[string]any{"backupOf": manifest.Created.UTC(), "data": *data, "missing": left},
			"Restored the backup of %s to %s", manifest.Created.Format("2006-01-02 15:04:05 UTC"), *data)
	}
	return cmd
}
