package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
)

func initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init --data DIR --host NAME[,NAME…]",
		Short: "Make a new installation: scope, access policy, master key, private CA, server certificate",
		Args:  noArgs,
	}
	data := dataFlag(cmd)
	store := cmd.Flags().String("store", "", "postgres:// address of an empty database that nodes will share, without password; empty for the embedded store (LATCHKEY_STORE)")
	hosts := cmd.Flags().StringSlice("host", nil, "DNS names of the service, each with a dot; the first is also the hub's name")
	asJSON := jsonFlag(cmd, "print idScope, connectionString and caFile as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		made, err := daemon.Init(cmd.Context(), daemon.InitPlan{Dir: *data, Hosts: *hosts, Store: cmp.Or(*store, os.Getenv("LATCHKEY_STORE"))})
		if err != nil {
			return err
		}
		return printInstallation(cmd.OutOrStdout(), *data, made, *asJSON)
	}
	return cmd
}

func printInstallation(w io.Writer, data string, made daemon.Installation, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(map[string]string{
			"idScope": made.IDScope, "connectionString": made.Connection.Reveal(), "caFile": made.CAFile,
		})
	}
	_, err := fmt.Fprintf(w, `Installed in %s.

ID scope            %s
Connection string   %s
                    It carries the key of the access policy with all rights: keep it secret. It is not shown again.
CA certificate      %s
                    Devices and operators must trust it. SHA-256 %s
                    Debian: copy it to /usr/local/share/ca-certificates/latchkey.crt and run update-ca-certificates
                    Node:   NODE_EXTRA_CA_CERTS=%s
Configuration       %s

Next: latchkey serve --data %s
      or, for the embedded hub alone beside a provisioning service on another machine: latchkey hub serve --data %s
`, data, made.IDScope, made.Connection.Reveal(), made.CAFile, made.CASum, made.CAFile, made.ConfigFile, data, data)
	return err
}

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "serve --data DIR", Short: "Run the service", Args: noArgs}
	data := dataFlag(cmd)
	file := configFlag(cmd)
	settings := settingFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		return daemon.Run(cmd.Context(), daemon.Options{
			Load:         func() (config.Config, error) { return config.Load(*data, *file, os.Getenv, settings()) },
			Reload:       hangups,
			Log:          os.Stderr,
			NotifySocket: os.Getenv("NOTIFY_SOCKET"),
		})
	}
	return cmd
}

// settingFlags makes a flag of every setting; the function gives those that were set on the command line.
func settingFlags(flags *pflag.FlagSet) func() map[string]string {
	defaults := config.Default()
	for _, s := range defaults.Settings() {
		flags.String(s.Name, s.Get(), s.Help+" ("+s.Variable()+")")
	}
	return func() map[string]string {
		given := map[string]string{}
		for _, s := range defaults.Settings() {
			if flags.Changed(s.Name) {
				given[s.Name] = flags.Lookup(s.Name).Value.String()
			}
		}
		return given
	}
}
