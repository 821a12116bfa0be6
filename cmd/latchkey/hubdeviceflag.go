package main

import (
	"errors"
	"net/url"

	"github.com/spf13/cobra"
)

// hubDeviceFlag adds --hub-device, which goes into a query.
func hubDeviceFlag(cmd *cobra.Command, query url.Values) {
	what := cmd.Flags().String("hub-device", "", "also disable or remove the device at its hub: disable cuts its sessions and lets it in no more, remove takes its twin and messages too")
	_ = cmd.RegisterFlagCompletionFunc("hub-device", cobra.FixedCompletions([]string{"disable", "remove"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.PreRunE = func(*cobra.Command, []string) error {
		switch *what {
		case "":
		case "disable", "remove":
			query.Set("hubDevice", *what)
		default:
			return usageError{errors.New("--hub-device is disable or remove")}
		}
		return nil
	}
}
