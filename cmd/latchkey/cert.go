package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/authority"
	"latchkey.example/latchkey/internal/config"
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
	data, file := dataFlag(renew), configFlag(renew)
	asJSON := jsonFlag(renew, "print the names as JSON")
	renew.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		cfg, err := config.Load(*data, *file, os.Getenv, nil)
		if err != nil {
			return err
		}
		folder := filepath.Join(*data, daemon.TLSFolder)
		if own := filepath.Join(folder, authority.ServerFile); filepath.Clean(cfg.Certificate) != filepath.Clean(own) {
			return fmt.Errorf("the configuration names the certificate %s, which is not of the private CA: renew it where it comes from", cfg.Certificate)
		}
		names, err := authority.Names(folder)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no private CA in %s: is %s the data directory of latchkey init?", folder, *data)
		} else if err != nil {
			return err
		}
		if err := authority.Issue(folder, names, time.Now()); err != nil {
			return err
		}
		return tellValue(cmd, *asJSON, map[string][]string{"names": names}, "Issued for %v. Next: send SIGHUP to the service.", names)
	}
	return group("cert", "The server's certificate", renew)
}
