package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// setFlags are what `enroll set` can be told.
type setFlags struct {
	enable, disable, unpin bool
	ek, srk, deviceID      string
	certificates           mechanismFlags
	keys                   keyFlags
	json                   overlay
}

func enrollSet(connect func() (*client, error)) *cobra.Command {
	var f setFlags
	cmd := &cobra.Command{
		Use:   "set ID",
		Short: "Change an enrollment: enable, disable, replace the chip, the certificates or the keys, pin or unpin the owner",
		Long: `Change an enrollment. What is not named stays as it is, and nothing is changed if somebody else changes the entry at the same time.

A disabled device is refused when it registers next; its identity at the hub stays as it is unless --hub-device says otherwise.`,
		Args: oneArg("registration id"),
	}
	query := versioned()
	hubDeviceFlag(cmd, query)
	flags := cmd.Flags()
	flags.BoolVar(&f.enable, "enable", false, "let the device register")
	flags.BoolVar(&f.disable, "disable", false, "refuse the device when it registers")
	flags.StringVar(&f.ek, "endorsement-key", "", "another EK_pub (the chip was replaced): base64 of the TPM2B_PUBLIC, as 'latchkey-device ek' prints it")
	flags.StringVar(&f.srk, "storage-root-key", "", "pin the owner: base64 of the SRK's TPM2B_PUBLIC")
	flags.BoolVar(&f.unpin, "unpin", false, "accept any owner")
	flags.StringVar(&f.deviceID, "device-id", "", "name at the hub; counts once the registration was deleted")
	flags.StringSliceVar(&f.certificates.files, "certificate", nil, "file with a client certificate, in place of all that it has; a second one is the secondary")
	f.keys.add(flags)
	f.json.add(cmd)
	asJSON := jsonFlag(cmd, "print the enrollment as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		if err := f.json.read(cmd.InOrStdin(), enrollmentMembers); err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		stored, err := c.changeEnrollment(cmd, args[0], query, func(e *dps.IndividualEnrollment) error { return f.change(e, cmd.InOrStdin()) })
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

func (f *setFlags) check() error {
	switch {
	case f.enable && f.disable || f.unpin && f.srk != "":
		return usageError{errors.New("--enable and --disable, or --storage-root-key and --unpin, contradict each other")}
	case !f.enable && !f.disable && !f.unpin && f.ek+f.srk+f.deviceID == "" && !f.json.given() && !f.certificates.given() && !f.keys.given():
		return usageError{errors.New("say what to change, such as --disable")}
	}
	return errors.Join(f.keys.check(), onceStandardInput(f.json.file, f.json.steer.twin, f.keys.primary, f.keys.secondary))
}

// change is the entry as the flags want it: --from-json first, so that the others go before it.
func (f *setFlags) change(e *dps.IndividualEnrollment, stdin io.Reader) (err error) {
	if *e, err = f.json.enrollment(*e); err != nil {
		return err
	}
	switch {
	case f.enable:
		e.ProvisioningStatus = dps.EnrollmentEnabled
	case f.disable:
		e.ProvisioningStatus = dps.EnrollmentDisabled
	}
	if f.deviceID != "" {
		e.DeviceID = f.deviceID
	}
	if f.certificates.given() {
		if e.Attestation.Type != dps.AttestationX509 {
			return errors.New("the enrollment is not of a certificate; --from-json can give it another attestation")
		}
		if e.Attestation, err = f.certificates.attestation("client", stdin); err != nil {
			return err
		}
	}
	if err := f.keys.change(&e.Attestation, stdin); err != nil {
		return err
	}
	return setKeys(e, f.ek, f.srk, f.unpin)
}

// setKeys changes the keys of a TPM enrollment, judged on this side so that the message comes with the command.
func setKeys(e *dps.IndividualEnrollment, ek, srk string, unpin bool) error {
	if ek == "" && srk == "" && !unpin {
		return nil
	}
	if e.Attestation.TPM == nil {
		return errors.New("the enrollment is not of a TPM")
	}
	if unpin {
		e.Attestation.TPM.StorageRootKey = nil
	}
	for _, key := range []struct {
		text    string
		what    string
		into    *[]byte
		judge   func([]byte) error
		refused func(error) error
	}{
		{ek, "the endorsement key", &e.Attestation.TPM.EndorsementKey, func(b []byte) error { _, err := attest.ParseEK(b); return err }, ekError},
		{srk, "the storage root key", &e.Attestation.TPM.StorageRootKey, func(b []byte) error { _, err := attest.ParseSRK(b); return err }, func(err error) error { return keyError("the storage root key", err) }},
	} {
		if key.text == "" {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(key.text)
		if err != nil {
			return fmt.Errorf("%s is not base64", key.what)
		}
		if err := key.judge(raw); err != nil {
			return key.refused(err)
		}
		*key.into = raw
	}
	return nil
}

// changeEnrollment reads, changes and writes an enrollment, under the etag that was read. The answer has its keys.
func (c *client) changeEnrollment(cmd *cobra.Command, id string, query url.Values, change func(*dps.IndividualEnrollment) error) ([]byte, error) {
	data, err := c.enrollment(cmd.Context(), id)
	if err != nil {
		return nil, err
	}
	var head struct{ RegistrationID, ETag string }
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("the service's answer: %w", err)
	}
	e, err := dps.DecodeEnrollment(head.RegistrationID, data)
	if err != nil {
		return nil, fmt.Errorf("the service's answer: %w", err)
	}
	if err := change(&e); err != nil {
		return nil, err
	}
	return c.call(cmd.Context(), http.MethodPut, "/enrollments/"+url.PathEscape(head.RegistrationID), query, head.ETag, e.EncodeShowing(dps.ShowKeys|dps.ShowCertificates))
}
