package main

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
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
	EKCertificate        bool             `json:"ekCertificate"` // one that is for this EK
	EKCertificateIndices []string         `json:"ekCertificateIndices,omitempty"`
	Certificate          *certificate     `json:"certificate,omitempty"`
	OtherEKs             int              `json:"otherEndorsementKeys"` // at most
	Warning              string           `json:"warning,omitempty"`
	Unread               []unread         `json:"unread,omitempty"`
}

// ekFlags say what of the EKs is wanted.
type ekFlags struct {
	all, deep, asJSON    bool
	eks, certificateFile string
}

func ekCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ek",
		Short: "Print the device's identity: registration id, endorsement keys, certificates, TPM",
		Long: `Print the device's identity, as the operator needs it for an enrollment: the endorsement key (EK) that
this agent registers with.

Other SDKs and tools show other EKs of the same chip. --all makes and shows every one of them, with the programs that
show it, whether the maker's certificate is for it and whether it outlives a clear of the TPM. --eks writes the whole
set to a file for the operator, who enrolls the one that the device's SDK shows.

Certificates are shown, not verified: no maker's root is trusted here.`,
		Example: `  latchkey-device ek
  latchkey-device ek --all
  latchkey-device ek --eks press-07.json
  latchkey-device ek --certificate ek.pem && openssl verify -CAfile maker.pem ek.pem`,
		Args: noArgs,
	}
	tpm := addTPMFlags(cmd)
	var f ekFlags
	flags := cmd.Flags()
	flags.BoolVar(&f.all, "all", false, "show every EK of the chip; takes some seconds for each RSA key")
	flags.BoolVar(&f.deep, "deep", false, "with --all or --eks: RSA keys of 3072 and 4096 bits too, which may take a chip minutes")
	flags.BoolVar(&f.asJSON, "json", false, "print it as JSON; with --all it is also what --eks writes")
	flags.StringVar(&f.eks, "eks", "", `write every EK to this file ("-": standard output)`)
	flags.StringVar(&f.certificateFile, "certificate", "", `write the EK's certificate, and its issuers' if the TPM has them, to this file in PEM ("-": standard output)`)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case f.eks != "" && f.certificateFile != "", f.asJSON && (f.eks == "-" || f.certificateFile == "-"):
			return usageError{errors.New("only one of --json, --eks and --certificate can be printed at a time")}
		case f.deep && !f.all && f.eks == "":
			return usageError{errors.New("--deep goes with --all or --eks")}
		case f.all || f.eks != "":
			return f.runAll(cmd, tpm)
		}
		return f.runOwn(cmd, tpm)
	}
	return cmd
}

// runOwn is about the EK that the device registers with.
func (f *ekFlags) runOwn(cmd *cobra.Command, tpm *tpmFlags) error {
	it, chain, err := readIdentity(tpm, tpm.progress(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	if f.certificateFile != "" {
		return writeCertificate(cmd.OutOrStdout(), f.certificateFile, chain)
	}
	if f.asJSON {
		return printJSON(cmd.OutOrStdout(), it)
	}
	return it.print(cmd.OutOrStdout())
}

func readIdentity(tpm *tpmFlags, progress device.Progress) (it *identity, own *device.EKCertificate, err error) {
	id, err := tpm.open(progress)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, id.Close()) }()
	info, err := id.Info()
	if err != nil {
		return nil, nil, err
	}
	own, _, notRead, err := id.Certificate()
	if err != nil {
		return nil, nil, err
	}
	others, err := id.OtherEKs()
	if err != nil {
		return nil, nil, err
	}
	it = &identity{RegistrationID: id.RegistrationID(), EndorsementKey: id.EK(), StorageRootKey: id.SRK(),
		Algorithm: id.Algorithm(), Hierarchy: id.Hierarchy(), Manufacturer: info.Manufacturer, Model: info.Model,
		Firmware: info.Firmware, EKCertificate: own != nil, OtherEKs: others, Warning: hierarchyWarning(id.Hierarchy()),
		Unread: describeUnread(notRead)}
	if own != nil {
		it.Certificate = describeCertificate(own)
	}
	for _, index := range info.EKCertificates {
		it.EKCertificateIndices = append(it.EKCertificateIndices, indexText(index))
	}
	return it, own, nil
}

// hierarchyWarning is what to know of an EK that is where EKs do not belong.
func hierarchyWarning(hierarchy string) string {
	if hierarchy == "endorsement" || hierarchy == "platform" {
		return ""
	}
	if hierarchy == "owner" {
		return "this EK is in the owner hierarchy: when the TPM is cleared it is gone for good, and the device is a stranger to the service"
	}
	return "nobody can tell the hierarchy of this EK, so it may not outlive a clear of the TPM"
}

func (it *identity) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, `registration id   %s
endorsement key   %s
storage root key  %s
algorithm         %s
hierarchy         %s
manufacturer      %s
firmware          %s
EK certificate    %s
other EKs         up to %d, which other SDKs and tools show: see them with latchkey-device ek --all
`, it.RegistrationID, base64Text(it.EndorsementKey), base64Text(it.StorageRootKey), it.Algorithm, it.Hierarchy,
		strings.TrimSpace(it.Manufacturer+" "+it.Model), it.Firmware, it.certificateText(), it.OtherEKs)
	if it.Warning != "" {
		fmt.Fprintf(w, "warning: %s\n", it.Warning)
	}
	for _, u := range it.Unread {
		fmt.Fprintf(w, "not read: %s\n", u)
	}
	return err
}

func (it *identity) certificateText() string {
	switch {
	case it.Certificate != nil:
		return fmt.Sprintf("in the TPM at %s, of %s (shown, not verified)", it.Certificate.Index, orNobody(it.Certificate.Issuer))
	case len(it.EKCertificateIndices) > 0:
		return "none for this key; for others in the TPM at " + strings.Join(it.EKCertificateIndices, ", ")
	}
	return "none in the TPM"
}

// writeCertificate writes the certificate, then its issuers, as TLS programs
// like them.
func writeCertificate(stdout io.Writer, path string, own *device.EKCertificate) error {
	if own == nil {
		return errors.New("the TPM has no certificate for this EK; `latchkey-device ek --all` shows whether it has one for another")
	}
	var text []byte
	for _, c := range append([]*device.EKCertificate{own}, own.Issuers...) {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return writeOutput(stdout, path, text)
}

func writeOutput(stdout io.Writer, path string, text []byte) error {
	if path == "-" {
		_, err := stdout.Write(text)
		return err
	}
	return os.WriteFile(path, text, 0o644) // nothing in it is secret
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
