package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/device"
)

type forgetFlags struct {
	registerFlags
	yes     bool
	offline bool
}

// forgotten is what `forget` reports.
type forgotten struct {
	RegistrationID string `json:"registrationId"`
	Service        string `json:"service"`           // "closed", or "not asked" with --offline
	Removed        string `json:"removed,omitempty"` // the state file
}

const forgetLong = `Prepare this device for its next owner.

The device proves itself to the service once more. The service then ends its
registration: the enrollment is disabled, so that the device is not taken into
this tenant again, and the device is removed from its hub, with its twin and the
messages that wait for it. Only when the service says that no hub key of the
device is alive any more is the key that this device keeps removed.

Whatever interrupts it, run it again: it goes on where it was.

The TPM is not cleared: tpm2_clear does that, and ends with it every other key
of its present owner. With --offline the service is not asked, because it is
gone: then the hub key and the enrollment stay alive there, if there is anybody
to use them.`

func forgetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forget",
		Short: "Close this device's registration and forget its hub key, for the next owner",
		Long:  forgetLong,
		Example: `  latchkey-device forget --endpoint dps.example.com --id-scope 0ne00000000
  latchkey-device forget --yes --json
  latchkey-device forget --offline --yes`,
		Args: noArgs,
	}
	f := forgetFlags{registerFlags: registerFlags{tpm: addTPMFlags(cmd)}}
	f.addServiceFlags(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&f.timeout, "timeout", 15*time.Minute, "give up after this time; what was begun goes on at the service")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	flags.BoolVar(&f.offline, "offline", false, "do not ask the service, which is gone: what it knows of this device stays alive there")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
		defer cancel()
		if err := f.confirm(cmd.InOrStdin(), cmd.ErrOrStderr()); err != nil {
			return err
		}
		result, err := f.forget(ctx, f.tpm.progress(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), result)
		}
		return result.print(cmd.OutOrStdout())
	}
	return cmd
}

// confirm asks whoever sits there; without an answer nothing is done.
func (f *forgetFlags) confirm(in io.Reader, out io.Writer) error {
	if f.yes {
		return nil
	}
	what := "This ends the device's registration at the service and forgets its hub key."
	if f.offline {
		what = "This forgets the device's hub key, and leaves what the service knows of it alive there."
	}
	fmt.Fprintf(out, "%s Type yes to go on: ", what)
	answer, err := bufio.NewReader(io.LimitReader(in, 1024)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		return usageError{errors.New("nothing was done: answer yes, or say --yes")}
	}
	return nil
}

// forget does the service's part first: a device that has lost its hub key while that is alive elsewhere could not be told from one that has not.
func (f *forgetFlags) forget(ctx context.Context, progress device.Progress) (*forgotten, error) {
	kept, err := f.remembered()
	if err != nil {
		return nil, err
	}
	result := &forgotten{RegistrationID: cmp.Or(f.registrationID, kept.RegistrationID), Service: "not asked"}
	if !f.offline {
		if result.RegistrationID, err = f.closeRegistration(ctx, result.RegistrationID, progress); err != nil {
			return nil, err
		}
		result.Service = "closed"
	}
	result.Removed, err = removeState(f.stateDir)
	return result, err
}

// remembered is what register has kept, for what the command line leaves out. Nothing is no error: an earlier run may have come as far as that.
func (f *forgetFlags) remembered() (kept state, err error) {
	if f.stateDir == "" {
		return state{}, nil
	}
	kept, err = loadState(f.stateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state{}, nil
	case err != nil && !f.offline && (f.endpoint == "" || f.idScope == ""):
		return state{}, fmt.Errorf("%w; name the service with --endpoint and --id-scope", err)
	}
	f.endpoint, f.idScope = cmp.Or(f.endpoint, kept.Endpoint), cmp.Or(f.idScope, kept.IDScope)
	return kept, nil
}

func (f *forgetFlags) closeRegistration(ctx context.Context, registrationID string, progress device.Progress) (id string, err error) {
	client, err := f.client(progress)
	if err != nil {
		return "", err
	}
	identity, err := f.tpm.open(progress)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, identity.Close()) }()
	return cmp.Or(registrationID, identity.RegistrationID()), client.CloseRegistration(ctx, identity, registrationID)
}

// removeState removes the state file, durably; empty if there was none.
func removeState(dir string) (removed string, err error) {
	if dir == "" {
		return "", nil
	}
	path := filepath.Join(dir, stateFile)
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("forget the hub key: %w", err)
	}
	return path, syncDirectory(dir)
}

func (r *forgotten) print(w io.Writer) error {
	service := "closed the registration: no hub key of this device is alive there"
	if r.Service != "closed" {
		service = "not asked: the hub key and the enrollment stay alive there until its operator deletes them"
	}
	_, err := fmt.Fprintf(w, `registration id  %s
service          %s
hub key          %s
`, cmp.Or(r.RegistrationID, "unknown"), service, cmp.Or(r.Removed, "none was kept here")+removedWord(r.Removed))
	return err
}

func removedWord(path string) string {
	if path == "" {
		return ""
	}
	return " removed"
}
