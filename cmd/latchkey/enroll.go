package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

func enrollCommand() *cobra.Command {
	cmd := group("enroll", "Individual enrollments")
	connect := clientFlags(cmd)
	cmd.AddCommand(enrollAdd(connect), enrollList(connect), enrollShow(connect), enrollSet(connect), enrollRemove(connect), enrollImport(connect), enrollExport(connect))
	return cmd
}

func enrollShow(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "Show an enrollment with its registration; with --keys its symmetric keys too, which the audit log notes", Args: oneArg("registration id")}
	keys := cmd.Flags().Bool("keys", false, "print its symmetric keys, which are secret")
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		if *keys {
			return c.printKeys(cmd, "/enrollments/"+url.PathEscape(args[0]))
		}
		data, err := c.enrollment(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), data)
		}
		return printEnrollment(cmd.OutOrStdout(), data)
	}
	return cmd
}

func enrollRemove(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove an enrollment and its registration; the device's identity at the hub stays unless --hub-device says otherwise",
		Args:  oneArg("registration id"),
	}
	query := versioned()
	hubDeviceFlag(cmd, query)
	return takeAway(cmd, connect, "/enrollments/", query,
		"Remove the enrollment %s and its registration? The device cannot register again until it is enrolled anew.", "Removed %s")
}

func confirm(cmd *cobra.Command, question string) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Fscanln(cmd.InOrStdin(), &answer) // nothing typed is a no
	if a := strings.ToLower(answer); a != "y" && a != "yes" {
		return errors.New("nothing was changed; answer y, or give --yes")
	}
	return nil
}

func printJSON(w io.Writer, data []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return fmt.Errorf("the service's answer is not JSON: %w", err)
	}
	_, err := io.WriteString(w, visible(out.String())+"\n")
	return err
}

// visible is JSON text in which every rune that a terminal might obey stands escaped.
func visible(text string) string {
	if strings.IndexFunc(text, hidden) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !hidden(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, "\\u%04x", unit)
		}
	}
	return b.String()
}

func hidden(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }

func printEnrollment(w io.Writer, data []byte) error {
	var head struct {
		RegistrationID, CreatedDateTimeUtc, LastUpdatedDateTimeUtc string
		RegistrationState                                          *dps.RegistrationState
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	e, err := dps.DecodeEnrollment(head.RegistrationID, data)
	if err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, printable(value))
		}
	}
	row("Registration id", e.RegistrationID)
	row("Status", e.ProvisioningStatus)
	row("Wanted device id", e.DeviceID)
	row("Mechanism", e.Attestation.Type)
	if tpm := e.Attestation.TPM; tpm != nil {
		row("Endorsement key", describe(tpm.EndorsementKey))
		if len(tpm.StorageRootKey) > 0 {
			row("Pinned SRK", describe(tpm.StorageRootKey))
		}
	} else {
		row("Proof", proofOf(e.Attestation))
	}
	steeringRows(row, e.AllocationPolicy, e.IotHubs, e.ReprovisionPolicy, e.InitialTwin, e.Capabilities)
	row("Created", head.CreatedDateTimeUtc)
	row("Updated", head.LastUpdatedDateTimeUtc)
	if s := head.RegistrationState; s != nil {
		row("Registration", s.Status)
		row("Hub", s.AssignedHub)
		row("Device id", s.DeviceID)
		row("Error", s.ErrorMessage)
	}
	return t.Flush()
}

// describe shortens a key to what a person compares.
func describe(tpm2b []byte) string {
	public, err := attest.ParsePublic(tpm2b)
	if err != nil {
		return "not a TPM2B_PUBLIC"
	}
	id := public.KeyID()
	return fmt.Sprintf("%s, SHA-256 %x…", public.Algorithm(), id[:8])
}
