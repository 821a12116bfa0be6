package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

func groupCommand() *cobra.Command {
	cmd := group("group", "Enrollment groups: many devices by one entry")
	cmd.Long = `Enrollment groups: many devices by one entry. A device of a group proves itself by a certificate under one of its CAs, or by a key derived from
one of its own. A device that has an enrollment of its own is let in by that, and not by a group.`
	connect := clientFlags(cmd)
	cmd.AddCommand(groupAdd(connect), groupList(connect), groupShow(connect), groupSet(connect), groupRemove(connect), groupKey(connect))
	return cmd
}

func groupPath(id string) string { return "/enrollmentGroups/" + url.PathEscape(id) }

func groupAdd(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add ID (--symmetric-key | --ca-certificate FILE | --ca NAME)",
		Short: "Add an enrollment group",
		Long: `Add an enrollment group.

--symmetric-key makes two keys; 'latchkey group key ID REGISTRATIONID' derives a device's. --ca-certificate takes the certificate of a CA (PEM or
DER) that signs the devices' certificates; --ca names one that was added and verified with 'latchkey ca'. A device's registration id is then
the common name of its certificate.`,
		Args: oneArg("id for the group"),
	}
	flags := cmd.Flags()
	var f mechanismFlags
	flags.BoolVar(&f.symmetric, "symmetric-key", false, "devices sign with keys derived from the group's, which are made now")
	flags.StringSliceVar(&f.files, "ca-certificate", nil, "file with a CA certificate; a second one is the secondary")
	flags.StringSliceVar(&f.references, "ca", nil, "name of a verified CA certificate; a second one is the secondary")
	disabled := flags.Bool("disabled", false, "add it disabled")
	asJSON := jsonFlag(cmd, "print the group as JSON, with its keys")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		attestation, err := f.attestation("signing")
		if err != nil {
			return err
		}
		wanted := dps.EnrollmentGroup{GroupID: args[0], Attestation: attestation, ProvisioningStatus: dps.EnrollmentEnabled}
		if *disabled {
			wanted.ProvisioningStatus = dps.EnrollmentDisabled
		}
		if !dps.ValidRegistrationID(args[0]) {
			return usageError{fmt.Errorf("%q is not an id of a group: 1 to 128 letters, digits, - . _ : and a letter, digit or dash at the end", args[0])}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		stored, err := c.call(cmd.Context(), http.MethodPut, groupPath(args[0]), versioned(), "", wanted.EncodeShowing(dps.ShowKeys|dps.ShowCertificates))
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), stored)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Added the group %s\n", args[0])
		return err
	}
	return cmd
}

func groupList(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List enrollment groups, in order of their ids", Args: noArgs}
	listCommand(cmd, connect, "groups", dps.CollectionEnrollmentGroups, func() string { return "/enrollmentGroups/query" },
		"GROUP\tSTATUS\tMECHANISM\tPROOF\tUPDATED", func(data json.RawMessage) ([]string, error) {
			g, updated, err := readGroup(data)
			return []string{g.GroupID, g.ProvisioningStatus, g.Attestation.Type, proofOf(g.Attestation), shortTime(updated)}, err
		})
	return cmd
}

// readGroup reads a group as the service tells it.
func readGroup(data []byte) (g dps.EnrollmentGroup, updated string, err error) {
	var head struct{ EnrollmentGroupID, ETag, LastUpdatedDateTimeUtc string }
	if err := json.Unmarshal(data, &head); err != nil {
		return dps.EnrollmentGroup{}, "", err
	}
	if g, err = dps.DecodeGroup(head.EnrollmentGroupID, data); err != nil {
		return dps.EnrollmentGroup{}, "", err
	}
	g.ETag = head.ETag
	return g, head.LastUpdatedDateTimeUtc, nil
}

func groupShow(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "Show an enrollment group; with --keys its symmetric keys too, which the audit log notes", Args: oneArg("id of a group")}
	keys := cmd.Flags().Bool("keys", false, "print its symmetric keys, which are secret")
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		if *keys {
			return c.printKeys(cmd, groupPath(args[0]))
		}
		data, err := c.call(cmd.Context(), http.MethodGet, groupPath(args[0]), versioned(), "", nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), data)
		}
		g, updated, err := readGroup(data)
		if err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "Group\t%s\nStatus\t%s\nMechanism\t%s\n", g.GroupID, g.ProvisioningStatus, g.Attestation.Type)
		if proof := proofOf(g.Attestation); proof != "" {
			fmt.Fprintf(t, "Proof\t%s\n", printable(proof))
		}
		fmt.Fprintf(t, "Updated\t%s\n", shortTime(updated))
		return t.Flush()
	}
	return cmd
}

// printKeys prints the attestation mechanism of an entry, keys and all.
func (c *client) printKeys(cmd *cobra.Command, path string) error {
	data, err := c.call(cmd.Context(), http.MethodPost, path+"/attestationmechanism", versioned(), "", nil)
	if err != nil {
		return err
	}
	return printJSON(cmd.OutOrStdout(), data)
}

func groupSet(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set ID",
		Short: "Change an enrollment group: enable, disable, replace its CAs, make new keys",
		Long: `Change an enrollment group. What is not named stays as it is, and nothing is changed if somebody else changes the entry at the same time.

A disabled group's devices are refused when they register next; their identities at the hub stay as they are.`,
		Args: oneArg("id of a group"),
	}
	flags := cmd.Flags()
	enable, disable := flags.Bool("enable", false, "let its devices register"), flags.Bool("disable", false, "refuse its devices when they register")
	var f mechanismFlags
	flags.StringSliceVar(&f.files, "ca-certificate", nil, "file with a CA certificate, in place of all that it has; a second one is the secondary")
	flags.StringSliceVar(&f.references, "ca", nil, "name of a verified CA certificate, in place of all that it has; a second one is the secondary")
	primary, secondary := flags.String("primary-key", "", "another primary key, base64, or - to have one made"), flags.String("secondary-key", "", "another secondary key, base64, or - to have one made")
	asJSON := jsonFlag(cmd, "print the group as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *enable && *disable {
			return usageError{errors.New("--enable and --disable contradict each other")}
		}
		if !*enable && !*disable && !f.given() && *primary+*secondary == "" {
			return usageError{errors.New("say what to change, such as --disable")}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		data, err := c.call(cmd.Context(), http.MethodGet, groupPath(args[0]), versioned(), "", nil)
		if err != nil {
			return err
		}
		g, _, err := readGroup(data)
		if err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		switch {
		case *enable:
			g.ProvisioningStatus = dps.EnrollmentEnabled
		case *disable:
			g.ProvisioningStatus = dps.EnrollmentDisabled
		}
		if f.given() {
			if g.Attestation, err = f.attestation("signing"); err != nil {
				return err
			}
		}
		if err := setSymmetric(&g.Attestation, *primary, *secondary); err != nil {
			return err
		}
		stored, err := c.call(cmd.Context(), http.MethodPut, groupPath(args[0]), versioned(), g.ETag, g.EncodeShowing(dps.ShowKeys|dps.ShowCertificates))
		if err != nil {
			return err
		}
		if stored, err = withoutKeys(stored); err != nil {
			return err
		}
		return tell(cmd, *asJSON, stored, "Changed %s", args[0])
	}
	return cmd
}

func groupRemove(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "remove ID", Short: "Remove an enrollment group; the registrations of its devices stay", Args: oneArg("id of a group")}
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	asJSON := jsonFlag(cmd, "print what was removed as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		if !*yes {
			if err := confirm(cmd, fmt.Sprintf("Remove the group %s? Its devices cannot register again; those that have go on at their hub.", args[0])); err != nil {
				return err
			}
		}
		if _, err := c.call(cmd.Context(), http.MethodDelete, groupPath(args[0]), versioned(), "", nil); err != nil {
			return err
		}
		return tellValue(cmd, *asJSON, removed{args[0], true}, "Removed %s", args[0])
	}
	return cmd
}
