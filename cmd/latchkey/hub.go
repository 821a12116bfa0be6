package main

import "github.com/spf13/cobra"

func hubCommand() *cobra.Command {
	cmd := group("hub", "Hubs, and the devices at the embedded one")
	cmd.AddCommand(hubList(), hubShow(), hubLink(), hubSet(), hubDrain(), hubUnlink(), hubAllocation())
	cmd.AddCommand(hubDevices(), hubTwin(), hubSend(), hubInvoke())
	cmd.AddCommand(hubServe())
	cmd.AddCommand(hubMonitor())
	return cmd
}
