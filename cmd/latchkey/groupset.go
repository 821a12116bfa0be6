package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

// groupSetFlags are what `group set` can be told.
type groupSetFlags struct {
	enable, disable bool
	cas             mechanismFlags
	keys            keyFlags
	json            overlay
}

func groupSet(connect func() (*client, error)) *cobra.Command {
	var f groupSetFlags
	cmd := &cobra.Command{
		Use:   "set ID",
		Short: "Change an enrollment group: enable, disable, replace its CAs, its keys",
		Long: `Change an enrollment group. What is not named stays as it is, and nothing is changed if somebody else changes the entry at the same time.

A disabled group's devices are refused when they register next; their identities at the hub stay as they are unless --hub-device says otherwise.`,
		Args: oneArg("id of a group"),
	}
	query := versioned()
	hubDeviceFlag(cmd, query)
	flags := cmd.Flags()
	flags.BoolVar(&f.enable, "enable", false, "let its devices register")
	flags.BoolVar(&f.disable, "disable", false, "refuse its devices when they register")
	flags.StringSliceVar(&f.cas.files, "ca-certificate", nil, "file with a CA certificate, in place of all that it has; a second one is the secondary")
	flags.StringSliceVar(&f.cas.references, "ca", nil, "name of a verified CA certificate, in place of all that it has; a second one is the secondary")
	f.keys.add(flags)
	f.json.add(cmd)
	asJSON := jsonFlag(cmd, "print the group as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		if err := f.json.read(cmd.InOrStdin(), groupMembers); err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		stored, err := c.changeGroup(cmd, args[0], query, func(g *dps.EnrollmentGroup) error { return f.change(g, cmd.InOrStdin()) })
		if err == nil && !f.keys.given() {
			stored, err = withoutKeys(stored)
		}
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, stored, "Changed %s", args[0])
	}
	return cmd
}

func (f *groupSetFlags) check() error {
	switch {
	case f.enable && f.disable:
		return usageError{errors.New("--enable and --disable contradict each other")}
	case !f.enable && !f.disable && !f.cas.given() && !f.keys.given() && !f.json.given():
		return usageError{errors.New("say what to change, such as --disable")}
	}
	return errors.Join(f.keys.check(), onceStandardInput(f.json.file, f.json.steer.twin, f.keys.primary, f.keys.secondary))
}

// change is the group as the flags want it: --from-json first, so that the others go before it.
func (f *groupSetFlags) change(g *dps.EnrollmentGroup, stdin io.Reader) (err error) {
	if *g, err = f.json.group(*g); err != nil {
		return err
	}
	switch {
	case f.enable:
		g.ProvisioningStatus = dps.EnrollmentEnabled
	case f.disable:
		g.ProvisioningStatus = dps.EnrollmentDisabled
	}
	if f.cas.given() {
		if g.Attestation, err = f.cas.attestation("signing", stdin); err != nil {
			return err
		}
	}
	return f.keys.change(&g.Attestation, stdin)
}

// changeGroup reads, changes and writes a group, under the etag that was read. The answer has its keys.
func (c *client) changeGroup(cmd *cobra.Command, id string, query url.Values, change func(*dps.EnrollmentGroup) error) ([]byte, error) {
	data, err := c.call(cmd.Context(), http.MethodGet, groupPath(id), versioned(), "", nil)
	if err != nil {
		return nil, err
	}
	g, _, _, err := readGroup(data)
	if err != nil {
		return nil, fmt.Errorf("the service's answer: %w", err)
	}
	if err := change(&g); err != nil {
		return nil, err
	}
	return c.call(cmd.Context(), http.MethodPut, groupPath(id), query, g.ETag, g.EncodeShowing(dps.ShowKeys|dps.ShowCertificates))
}
