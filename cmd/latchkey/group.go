package main

import (
	"encoding/json"
	"fmt"
	"io"
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
		Use:   "add ID (--symmetric-key | --ca-certificate FILE | --ca NAME | --from-json FILE)",
		Short: "Add an enrollment group",
		Long: `Add an enrollment group.

--symmetric-key makes two keys, but for own ones that --primary-key-file and --secondary-key-file name; 'latchkey group key ID REGISTRATIONID' derives a device's. --ca-certificate takes the certificate of a CA (PEM or
DER) that signs the devices' certificates; --ca names one that was added and verified with 'latchkey ca'. A device's registration id is then
the common name of its certificate.`,
		Args: oneArg("id for the group"),
	}
	flags := cmd.Flags()
	var f mechanismFlags
	flags.BoolVar(&f.symmetric, "symmetric-key", false, "devices sign with keys derived from the group's, which are made now")
	flags.StringSliceVar(&f.files, "ca-certificate", nil, "file with a CA certificate; a second one is the secondary")
	flags.StringSliceVar(&f.references, "ca", nil, "name of a verified CA certificate; a second one is the secondary")
	f.keys.addFiles(flags)
	disabled := flags.Bool("disabled", false, "add it disabled")
	var laid overlay
	laid.add(cmd)
	asJSON := jsonFlag(cmd, "print the group as JSON, with its keys")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !dps.ValidRegistrationID(args[0]) {
			return usageError{fmt.Errorf("%q is not an id of a group: 1 to 128 letters, digits, - . _ : and a letter, digit or dash at the end", args[0])}
		}
		wanted, err := wantedGroup(args[0], f, &laid, *disabled, cmd.InOrStdin())
		if err != nil {
			return err
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

// wantedGroup is the group that flags and --from-json say together.
func wantedGroup(id string, f mechanismFlags, laid *overlay, disabled bool, stdin io.Reader) (g dps.EnrollmentGroup, err error) {
	if err := onceStandardInput(laid.file, laid.steer.twin, f.keys.primary, f.keys.secondary); err != nil {
		return g, err
	}
	if err := laid.read(stdin, groupMembers); err != nil {
		return g, err
	}
	g = dps.EnrollmentGroup{GroupID: id, ProvisioningStatus: dps.EnrollmentEnabled}
	var except []string
	if disabled {
		g.ProvisioningStatus, except = dps.EnrollmentDisabled, append(except, "provisioningStatus")
	}
	if laid.members["attestation"] == nil || f.given() {
		except = append(except, "attestation")
		if g.Attestation, err = f.attestation("signing", stdin); err != nil {
			return g, err
		}
	}
	return laid.group(g, except...)
}

func groupList(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List enrollment groups, in order of their ids", Args: noArgs}
	listCommand(cmd, connect, "groups", dps.CollectionEnrollmentGroups, func() string { return "/enrollmentGroups/query" },
		"GROUP\tSTATUS\tMECHANISM\tPROOF\tUPDATED", func(data json.RawMessage) ([]string, error) {
			g, _, updated, err := readGroup(data)
			return []string{g.GroupID, g.ProvisioningStatus, g.Attestation.Type, proofOf(g.Attestation), shortTime(updated)}, err
		})
	return cmd
}

// readGroup reads a group as the service tells it.
func readGroup(data []byte) (g dps.EnrollmentGroup, created, updated string, err error) {
	var head struct{ EnrollmentGroupID, ETag, CreatedDateTimeUtc, LastUpdatedDateTimeUtc string }
	if err := json.Unmarshal(data, &head); err != nil {
		return dps.EnrollmentGroup{}, "", "", err
	}
	if g, err = dps.DecodeGroup(head.EnrollmentGroupID, data); err != nil {
		return dps.EnrollmentGroup{}, "", "", err
	}
	g.ETag = head.ETag
	return g, head.CreatedDateTimeUtc, head.LastUpdatedDateTimeUtc, nil
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
		g, created, updated, err := readGroup(data)
		if err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "Group\t%s\nStatus\t%s\nMechanism\t%s\n", g.GroupID, g.ProvisioningStatus, g.Attestation.Type)
		if proof := proofOf(g.Attestation); proof != "" {
			fmt.Fprintf(t, "Proof\t%s\n", printable(proof))
		}
		row := func(name, value string) {
			if value != "" {
				fmt.Fprintf(t, "%s\t%s\n", name, printable(value))
			}
		}
		steeringRows(row, g.AllocationPolicy, g.IotHubs, g.ReprovisionPolicy, g.InitialTwin, g.Capabilities)
		fmt.Fprintf(t, "Created\t%s\nUpdated\t%s\n", shortTime(created), shortTime(updated))
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

func groupRemove(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove an enrollment group; the registrations of its devices stay, and their identities at their hubs unless --hub-device says otherwise",
		Args:  oneArg("id of a group"),
	}
	query := versioned()
	hubDeviceFlag(cmd, query)
	return takeAway(cmd, connect, "/enrollmentGroups/", query, "Remove the group %s? Its devices cannot register again.", "Removed %s")
}
