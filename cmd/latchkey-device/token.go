package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/device"
)

// login is what `token --json` prints: all that an MQTT client needs.
type login struct {
	Hub       string    `json:"hub"`
	DeviceID  string    `json:"deviceId"` // the MQTT client id
	Username  string    `json:"username"`
	SASToken  string    `json:"sasToken"` // the MQTT password
	ExpiresAt time.Time `json:"expiresAt"`
}

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a SAS token for the hub, signed in the TPM with the saved hub key",
		Args:  noArgs,
	}
	tpm := addTPMFlags(cmd)
	stateDir := cmd.Flags().String("state-dir", "", "directory that register kept the hub key in")
	ttl := cmd.Flags().Duration("ttl", time.Hour, "how long the SAS token is valid; hubs cap it, Latchkey's at 24h")
	asJSON := cmd.Flags().Bool("json", false, "print hub, user name and SAS token as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case *stateDir == "":
			return usageError{errors.New("name the state directory with --state-dir DIR")}
		case *ttl < time.Second:
			return usageError{errors.New("--ttl must be a second or more")}
		}
		it, err := mint(tpm, tpm.progress(cmd.ErrOrStderr()), *stateDir, time.Now().Add(*ttl))
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), it)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), it.SASToken)
		return err
	}
	return cmd
}

func mint(tpm *tpmFlags, progress device.Progress, stateDir string, expiry time.Time) (it *login, err error) {
	s, err := loadState(stateDir)
	if err != nil {
		return nil, err
	}
	id, err := tpm.open(progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, id.Close()) }() // and the key with it
	key, err := id.LoadKey(s.HubKey)
	if err != nil {
		return nil, err
	}
	text, err := device.HubTokenUntil(key, s.AssignedHub, s.DeviceID, expiry)
	if err != nil {
		return nil, err
	}
	return &login{Hub: s.AssignedHub, DeviceID: s.DeviceID, Username: device.HubUsername(s.AssignedHub, s.DeviceID),
		SASToken: text, ExpiresAt: expiry.UTC().Truncate(time.Second)}, nil
}
