package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/device"
)

// identity is what `ek` reports. Bytes are base64 in JSON.
type identity struct {
	RegistrationID       string           `json:"registrationId"`
	EndorsementKey       []byte           `json:"endorsementKey"` // TPM2B_PUBLIC
	StorageRootKey       []byte           `json:"storageRootKey"` // likewise
	Algorithm            device.Algorithm `json:"algorithm"`
	Hierarchy            string           `json:"hierarchy"`
	Manufacturer         string           `json:"manufacturer"`
	Model                string           `json:"model,omitempty"`
	Firmware             string           `json:"firmware"`
	EKCertificate        bool             `json:"ekCertificate"`
	EKCertificateIndices []string         `json:"ekCertificateIndices,omitempty"`
}

func ekCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ek",
		Short: "Print the device's identity: registration id, endorsement key, TPM",
		Long: `Print the device's identity, as the operator needs it for an enrollment.

EK and SRK are read at their standard handles. What is not there is created and made persistent, as the device SDKs
of Azure DPS do; --transient leaves the TPM as it is.`,
		Args: noArgs,
	}
	tpm := addTPMFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		it, err := readIdentity(tpm, tpm.progress(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), it)
		}
		return it.print(cmd.OutOrStdout())
	}
	return cmd
}

func readIdentity(tpm *tpmFlags, progress device.Progress) (it *identity, err error) {
	id, err := tpm.open(progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, id.Close()) }()
	info, err := id.Info()
	if err != nil {
		return nil, err
	}
	it = &identity{RegistrationID: id.RegistrationID(), EndorsementKey: id.EK(), StorageRootKey: id.SRK(),
		Algorithm: id.Algorithm(), Hierarchy: id.Hierarchy(), Manufacturer: info.Manufacturer, Model: info.Model,
		Firmware: info.Firmware, EKCertificate: info.HasEKCertificate(id.Algorithm())}
	for _, index := range info.EKCertificates {
		it.EKCertificateIndices = append(it.EKCertificateIndices, fmt.Sprintf("0x%08x", index))
	}
	return it, nil
}

func (it *identity) print(w io.Writer) error {
	certificate := "none in the TPM"
	if len(it.EKCertificateIndices) > 0 {
		certificate = "in the TPM at " + strings.Join(it.EKCertificateIndices, ", ")
	}
	_, err := fmt.Fprintf(w, `registration id   %s
endorsement key   %s
storage root key  %s
algorithm         %s
hierarchy         %s
manufacturer      %s
firmware          %s
EK certificate    %s
`, it.RegistrationID, base64Text(it.EndorsementKey), base64Text(it.StorageRootKey), it.Algorithm, it.Hierarchy,
		strings.TrimSpace(it.Manufacturer+" "+it.Model), it.Firmware, certificate)
	return err
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
