package main

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"

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

// addFlags are what `enroll add` can be told.
type addFlags struct {
	id, ek, srk, deviceID, from string
	disabled                    bool
	mechanism                   mechanismFlags
}

func enrollAdd(connect func() (*client, error)) *cobra.Command {
	var f addFlags
	cmd := &cobra.Command{
		Use:   "add (--endorsement-key BASE64 | --from-device FILE | --certificate FILE | --symmetric-key)",
		Short: "Enroll a device by its endorsement key, a client certificate or a symmetric key",
		Long: `Enroll a device by its endorsement key, base64 of a TPM2B_PUBLIC as 'latchkey-device ek' prints it.

--from-device reads the output of 'latchkey-device ek --json' ('-' is standard input). For devices without a TPM: --certificate takes the
client certificate (PEM or DER), whose common name is the registration id; --symmetric-key has two keys made, which --output json shows now
and 'latchkey enroll show ID --keys' later.`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.ek, "endorsement-key", "", "EK_pub: base64 of the TPM2B_PUBLIC")
	flags.StringVar(&f.from, "from-device", "", "file with the output of latchkey-device ek --json, - for standard input")
	flags.StringVar(&f.id, "registration-id", "", "registration id; default: derived from the EK, as devices do")
	flags.StringVar(&f.deviceID, "device-id", "", "name at the hub; default: the registration id")
	flags.StringVar(&f.srk, "storage-root-key", "", "pin the owner: base64 of the SRK's TPM2B_PUBLIC")
	flags.StringSliceVar(&f.mechanism.files, "certificate", nil, "file with the device's certificate; a second one is the secondary")
	flags.BoolVar(&f.mechanism.symmetric, "symmetric-key", false, "the device signs with a symmetric key, which is made now")
	flags.BoolVar(&f.disabled, "disabled", false, "enroll it disabled")
	asJSON := jsonFlag(cmd, "print the enrollment as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wanted, err := f.enrollment(cmd.InOrStdin())
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		stored, err := c.call(cmd.Context(), http.MethodPut, "/enrollments/"+url.PathEscape(wanted.RegistrationID), versioned(), "", wanted.EncodeShowing(dps.ShowCertificates))
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), stored)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Enrolled %s\n", wanted.RegistrationID)
		return err
	}
	return cmd
}

// enrollment judges on this side what the service would refuse, so that the message comes with the command.
func (f *addFlags) enrollment(stdin io.Reader) (dps.IndividualEnrollment, error) {
	if f.mechanism.given() {
		return f.otherEnrollment()
	}
	var none dps.IndividualEnrollment
	if (f.ek == "") == (f.from == "") {
		return none, usageError{errors.New("give the endorsement key: --endorsement-key BASE64, or --from-device FILE; or, without a TPM, --certificate FILE or --symmetric-key")}
	}
	if f.from != "" {
		if err := f.readDevice(stdin); err != nil {
			return none, err
		}
	}
	ek, err := base64.StdEncoding.DecodeString(f.ek)
	if err != nil {
		return none, errors.New("the endorsement key is not base64")
	}
	if _, err := attest.ParseEK(ek); err != nil {
		return none, keyError("the endorsement key", err)
	}
	srk, err := base64.StdEncoding.DecodeString(f.srk)
	if err != nil {
		return none, errors.New("the storage root key is not base64")
	}
	if len(srk) > 0 {
		if _, err := attest.ParseSRK(srk); err != nil {
			return none, keyError("the storage root key", err)
		}
	}
	if f.id == "" {
		f.id = attest.RegistrationID(ek)
	}
	return f.entry(dps.Attestation{Type: dps.AttestationTPM, TPM: &dps.TPMKeys{EndorsementKey: ek, StorageRootKey: srk}})
}

// otherEnrollment is that of a device without a TPM.
func (f *addFlags) otherEnrollment() (dps.IndividualEnrollment, error) {
	if f.ek+f.from+f.srk != "" {
		return dps.IndividualEnrollment{}, usageError{errors.New("a device proves itself in one way: with a TPM, a certificate or a symmetric key")}
	}
	attestation, err := f.mechanism.attestation("client")
	if err != nil {
		return dps.IndividualEnrollment{}, err
	}
	if f.id == "" && len(f.mechanism.files) > 0 {
		if certificate, err := x509.ParseCertificate(attestation.X509.Client.Primary.DER); err == nil {
			f.id = certificate.Subject.CommonName
		}
	}
	if f.id == "" {
		return dps.IndividualEnrollment{}, usageError{errors.New("give the registration id with --registration-id")}
	}
	return f.entry(attestation)
}

func (f *addFlags) entry(attestation dps.Attestation) (dps.IndividualEnrollment, error) {
	if !dps.ValidRegistrationID(f.id) {
		return dps.IndividualEnrollment{}, fmt.Errorf("%q is not a registration id: 1 to 128 letters, digits, - . _ : and a letter, digit or dash at the end", f.id)
	}
	wanted := dps.IndividualEnrollment{RegistrationID: f.id, DeviceID: f.deviceID, ProvisioningStatus: dps.EnrollmentEnabled, Attestation: attestation}
	if f.disabled {
		wanted.ProvisioningStatus = dps.EnrollmentDisabled
	}
	return wanted, nil
}

// keyError is a refused key in the operator's words.
func keyError(what string, err error) error {
	return fmt.Errorf("%s: %s", what, strings.TrimPrefix(err.Error(), "attest: "))
}

func (f *addFlags) readDevice(stdin io.Reader) error {
	var data []byte
	var err error
	if f.from == "-" {
		data, err = io.ReadAll(io.LimitReader(stdin, 1<<20))
	} else {
		data, err = os.ReadFile(f.from)
	}
	if err != nil {
		return err
	}
	var said struct{ RegistrationID, EndorsementKey string }
	if err := json.Unmarshal(data, &said); err != nil || said.EndorsementKey == "" {
		return fmt.Errorf("%s is not the output of latchkey-device ek --json", f.from)
	}
	f.ek = said.EndorsementKey
	if f.id == "" {
		f.id = said.RegistrationID
	}
	return nil
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
		Short: "Remove an enrollment and its registration; the device's identity at the hub stays",
		Args:  oneArg("registration id"),
	}
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	asJSON := jsonFlag(cmd, "print what was removed as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		if !*yes {
			if err := confirm(cmd, fmt.Sprintf("Remove the enrollment %s and its registration? The device cannot register again until it is enrolled anew.", args[0])); err != nil {
				return err
			}
		}
		if _, err := c.call(cmd.Context(), http.MethodDelete, "/enrollments/"+url.PathEscape(args[0]), versioned(), "", nil); err != nil {
			return err
		}
		return tellValue(cmd, *asJSON, removed{args[0], true}, "Removed %s", args[0])
	}
	return cmd
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
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}

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
