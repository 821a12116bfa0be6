package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
	"latchkey.example/latchkey/internal/keyring"
)

func keyCommand() *cobra.Command {
	return group("key", "The master key ring that seals secrets at rest", keyList(), keyAdd(), keyRotate())
}

// onRing makes a command that works on the key ring of a data directory.
func onRing(use, short, long string, do func(cmd *cobra.Command, cfg config.Config, ring *keyring.Ring, asJSON bool) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: noArgs}
	data, file := dataFlag(cmd), configFlag(cmd)
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		cfg, err := config.Load(*data, *file, os.Getenv, nil)
		if err != nil {
			return err
		}
		ring, err := keyring.Open(cfg.MasterKey)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no master key at %s: is %s the data directory of latchkey init?", cfg.MasterKey, *data)
		}
		if err != nil {
			return err
		}
		return do(cmd, cfg, ring, *asJSON)
	}
	return cmd
}

func keyList() *cobra.Command {
	return onRing("list --data DIR", "List the keys, never their bytes, and how many secrets each still seals", "", func(cmd *cobra.Command, cfg config.Config, ring *keyring.Ring, asJSON bool) error {
		sealed, err := daemon.CountSealed(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		if asJSON {
			return tellValue(cmd, true, keyLines(ring, sealed), "")
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "ID\tCREATED\tPRIMARY\tSEALS")
		for _, k := range ring.Keys() {
			primary := ""
			if k.Primary {
				primary = "yes"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\n", k.ID, k.Created.Format(time.RFC3339), primary, sealed[k.ID])
		}
		return t.Flush()
	})
}

// keyLine is a key of the ring as JSON.
type keyLine struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Primary bool      `json:"primary"`
	Seals   int       `json:"seals"`
}

func keyLines(ring *keyring.Ring, sealed map[string]int) []keyLine {
	lines := []keyLine{}
	for _, k := range ring.Keys() {
		lines = append(lines, keyLine{k.ID, k.Created, k.Primary, sealed[k.ID]})
	}
	return lines
}

func keyAdd() *cobra.Command {
	return onRing("add --data DIR", "Add a key to the ring, not in use yet", `Add a key to the ring. It seals nothing yet: first let every running service read the ring again (SIGHUP), then run
latchkey key rotate. That order keeps the service up throughout.`, func(cmd *cobra.Command, cfg config.Config, ring *keyring.Ring, asJSON bool) error {
		id, err := ring.Add(time.Now())
		if err != nil {
			return err
		}
		return tellValue(cmd, asJSON, map[string]string{"id": id}, "Added %s. Next: send SIGHUP to the service, then run latchkey key rotate.", id)
	})
}

func keyRotate() *cobra.Command {
	return onRing("rotate --data DIR", "Make the newest key primary and seal everything under it again", `Make the newest key primary and seal every secret under it again, while the service runs. Run it after latchkey key add and SIGHUP. Run
it again after a second SIGHUP: it then also catches what the service sealed under the old key in between. latchkey key list shows when an
old key seals nothing any more.`, func(cmd *cobra.Command, cfg config.Config, ring *keyring.Ring, asJSON bool) error {
		next := "Next: send SIGHUP to the service, then run this once more."
		id, err := ring.Rotate()
		if errors.Is(err, keyring.ErrNewestIsPrimary) && len(ring.Keys()) > 1 { // the second run
			id, err, next = ring.Primary(), nil, "Next: see latchkey key list."
		}
		if err != nil {
			return err
		}
		resealed, err := daemon.Reseal(cmd.Context(), cfg, ring)
		if err != nil {
			return fmt.Errorf("%d secrets sealed again before this; run it once more: %w", resealed, err)
		}
		return tellValue(cmd, asJSON, map[string]any{"primary": id, "resealed": resealed}, "Primary is %s; %d secrets sealed again. %s", id, resealed, next)
	})
}
