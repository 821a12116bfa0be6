package main

import (
	"errors"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
)

func hubServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve --data DIR",
		Short: "Run the embedded hub alone, for a provisioning service on another machine",
		Long: `Run the embedded hub alone: MQTT for devices, and the service side in IoT Hub's shape over HTTPS, with access policies, audit log, probes and metrics;
no provisioning and no enrollments. It is 'latchkey serve --provision=false'.

A data directory of its own is made as always, with 'latchkey init --data DIR --host HUBNAME'. The provisioning service links it as it would an IoT hub, with a
connection string of an access policy that has RegistryRead, RegistryWrite and ServiceConnect:

    latchkey access-policy add provisioning --rights RegistryRead,RegistryWrite,ServiceConnect      # at the hub
    latchkey hub link HUBNAME --kind azure --hub-connection-file FILE                               # at the service`,
		Args: noArgs,
	}
	data := dataFlag(cmd)
	file := configFlag(cmd)
	settings := settingFlags(cmd.Flags())
	cmd.Flags().Lookup("provision").Hidden = true
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		said := settings()["provision"]
		if on, err := strconv.ParseBool(said); said != "" && (on || err != nil) {
			return usageError{errors.New("this is the hub alone: leave --provision out, or take `latchkey serve`")}
		}
		load := func() (config.Config, error) {
			given := settings()
			given["provision"] = "false"
			return config.Load(*data, *file, os.Getenv, given)
		}
		return daemon.Run(cmd.Context(), daemon.Options{Load: load, Reload: hangups, Log: os.Stderr, NotifySocket: os.Getenv("NOTIFY_SOCKET")})
	}
	return cmd
}
