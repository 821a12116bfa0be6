package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

func enrollSet(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set ID",
		Short: "Change an enrollment: enable, disable, replace the chip, pin or unpin the owner",
		Long: `Change an enrollment. What is not named stays as it is, and nothing is changed if somebody else changes the entry at the same time.

A disabled device is refused when it registers next; its identity at the hub stays as it is.`,
		Args: oneArg("registration id"),
	}
	flags := cmd.Flags()
	enable := flags.Bool("enable", false, "let the device register")
	disable := flags.Bool("disable", false, "refuse the device when it registers")
	ek := flags.String("endorsement-key", "", "another EK_pub (the chip was replaced): base64 of the TPM2B_PUBLIC")
	srk := flags.String("storage-root-key", "", "pin the owner: base64 of the SRK's TPM2B_PUBLIC")
	unpin := flags.Bool("unpin", false, "accept any owner")
	deviceID := flags.String("device-id", "", "name at the hub; counts once the registration was deleted")
	asJSON := jsonFlag(cmd, "print the enrollment as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *enable && *disable || *unpin && *srk != "" {
			return usageError{errors.New("--enable and --disable, or --storage-root-key and --unpin, contradict each other")}
		}
		if !*enable && !*disable && !*unpin && *ek+*srk+*deviceID == "" {
			return usageError{errors.New("say what to change, such as --disable")}
		}
		change := func(e *dps.IndividualEnrollment) error {
			switch {
			case *enable:
				e.ProvisioningStatus = dps.EnrollmentEnabled
			case *disable:
				e.ProvisioningStatus = dps.EnrollmentDisabled
			}
			if *deviceID != "" {
				e.DeviceID = *deviceID
			}
			return setKeys(e, *ek, *srk, *unpin)
		}
		c, err := connect()
		if err != nil {
			return err
		}
		stored, err := c.changeEnrollment(cmd, args[0], change)
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, stored, "Changed %s", args[0])
	}
	return cmd
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
		text  string
		what  string
		into  *[]byte
		judge func([]byte) error
	}{
		{ek, "the endorsement key", &e.Attestation.TPM.EndorsementKey, func(b []byte) error { _, err := attest.ParseEK(b); return err }},
		{srk, "the storage root key", &e.Attestation.TPM.StorageRootKey, func(b []byte) error { _, err := attest.ParseSRK(b); return err }},
	} {
		if key.text == "" {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(key.text)
		if err != nil {
			return fmt.Errorf("%s is not base64", key.what)
		}
		if err := key.judge(raw); err != nil {
			return keyError(key.what, err)
		}
		*key.into = raw
	}
	return nil
}

// changeEnrollment reads, changes and writes an enrollment, under the etag that was read.
func (c *client) changeEnrollment(cmd *cobra.Command, id string, change func(*dps.IndividualEnrollment) error) ([]byte, error) {
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
	stored, err := c.call(cmd.Context(), http.MethodPut, "/enrollments/"+url.PathEscape(head.RegistrationID), versioned(), head.ETag, e.Encode())
	if err != nil {
		return nil, err
	}
	return withoutKeys(stored)
}
