package main

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

// mechanismFlags say how devices prove themselves.
type mechanismFlags struct {
	symmetric         bool
	files, references []string // of certificates, of CAs by name
	keys              keyFlags // own ones, with symmetric
}

func (f *mechanismFlags) given() bool {
	return f.symmetric || f.keys.given() || len(f.files)+len(f.references) > 0
}

// attestation is what the flags say; role is client for one device, signing for a group.
func (f *mechanismFlags) attestation(role string, stdin io.Reader) (dps.Attestation, error) {
	ways := 0
	for _, given := range []bool{f.symmetric, len(f.files) > 0, len(f.references) > 0} {
		if given {
			ways++
		}
	}
	switch {
	case f.keys.given() && !f.symmetric:
		return dps.Attestation{}, usageError{errors.New("a file with a key goes with --symmetric-key")}
	case ways != 1:
		return dps.Attestation{}, usageError{errors.New("say in one way how devices prove themselves; see --help")}
	case len(f.files) > 2 || len(f.references) > 2:
		return dps.Attestation{}, usageError{errors.New("there is a primary and a secondary, no more")}
	case f.symmetric:
		keys, err := f.keys.keys(stdin)
		return dps.Attestation{Type: dps.AttestationSymmetricKey, SymmetricKey: keys}, err
	case len(f.references) > 0:
		refs := &dps.CAReferences{Primary: f.references[0]}
		if len(f.references) == 2 {
			refs.Secondary = f.references[1]
		}
		return dps.Attestation{Type: dps.AttestationX509, X509: &dps.X509Attestation{CAReferences: refs}}, nil
	}
	var pair dps.CertificatePair
	for i, file := range f.files {
		certificate, err := readCertificate(file)
		if err != nil {
			return dps.Attestation{}, err
		}
		if i == 0 {
			pair.Primary = certificate
		} else {
			pair.Secondary = certificate
		}
	}
	x := &dps.X509Attestation{Signing: &pair}
	if role == "client" {
		x = &dps.X509Attestation{Client: &pair}
	}
	return dps.Attestation{Type: dps.AttestationX509, X509: x}, nil
}

// maxCertificateFile bounds a file that holds a certificate, perhaps with its chain.
const maxCertificateFile = 1 << 20

// readCertificate reads the first certificate of a file, PEM or DER.
func readCertificate(file string) (*dps.Certificate, error) {
	data, err := readFile(file, maxCertificateFile)
	if err != nil {
		return nil, err
	}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			data = block.Bytes
			break
		}
	}
	certificate, err := dps.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return certificate, nil
}

func groupKey(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key GROUP REGISTRATIONID",
		Short: "Derive the symmetric key of a device of a group, which is secret; the audit log notes that the group's keys were shown",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("%s needs the id of a group and a registration id", nameOf(cmd))}
			}
			return nil
		},
	}
	secondary := cmd.Flags().Bool("secondary", false, "derive it from the group's secondary key")
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !dps.ValidRegistrationID(args[1]) {
			return usageError{fmt.Errorf("%q is not a registration id", args[1])}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		data, err := c.call(cmd.Context(), http.MethodPost, groupPath(args[0])+"/attestationmechanism", versioned(), "", nil)
		if err != nil {
			return err
		}
		var shown struct {
			SymmetricKey *struct{ PrimaryKey, SecondaryKey []byte }
		}
		if err := json.Unmarshal(data, &shown); err != nil || shown.SymmetricKey == nil {
			return errors.Join(errors.New("the group has no symmetric keys"), err)
		}
		key := shown.SymmetricKey.PrimaryKey
		if *secondary {
			key = shown.SymmetricKey.SecondaryKey
		}
		derived := base64.StdEncoding.EncodeToString(dps.DeriveKey(key, args[1]))
		return tellValue(cmd, *asJSON, map[string]string{"registrationId": args[1], "key": derived}, "%s", derived)
	}
	return cmd
}
