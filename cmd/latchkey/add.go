package main

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// addFlags are what `enroll add` can be told.
type addFlags struct {
	id, ek, srk, deviceID, from string
	disabled                    bool
	mechanism                   mechanismFlags
	json                        overlay
}

func enrollAdd(connect func() (*client, error)) *cobra.Command {
	var f addFlags
	cmd := &cobra.Command{
		Use:   "add (--endorsement-key BASE64 | --from-device FILE | --certificate FILE | --symmetric-key | --from-json FILE)",
		Short: "Enroll a device by its endorsement key, a client certificate or a symmetric key",
		Long: `Enroll a device by its endorsement key, base64 of a TPM2B_PUBLIC as 'latchkey-device ek' prints it.

--from-device reads the output of 'latchkey-device ek --json' ('-' is standard input). For devices without a TPM: --certificate takes the
client certificate (PEM or DER), whose common name is the registration id; --symmetric-key has two keys made, which --output json shows now
and 'latchkey enroll show ID --keys' later, but for own ones that --primary-key-file and --secondary-key-file name.`,
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
	f.mechanism.keys.addFiles(flags)
	f.json.add(cmd)
	flags.BoolVar(&f.disabled, "disabled", false, "enroll it disabled")
	asJSON := jsonFlag(cmd, "print the enrollment as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		wanted, err := f.whole(cmd.InOrStdin())
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		stored, err := c.call(cmd.Context(), http.MethodPut, "/enrollments/"+url.PathEscape(wanted.RegistrationID), versioned(), "", wanted.EncodeShowing(dps.ShowKeys|dps.ShowCertificates))
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

// whole is the enrollment that the flags and --from-json say together.
func (f *addFlags) whole(stdin io.Reader) (none dps.IndividualEnrollment, err error) {
	if err := onceStandardInput(f.json.file, f.json.steer.twin, f.from, f.mechanism.keys.primary, f.mechanism.keys.secondary); err != nil {
		return none, err
	}
	if err := f.json.read(stdin, enrollmentMembers); err != nil {
		return none, err
	}
	if id := f.json.members["registrationId"]; id != nil && f.id == "" {
		if err := json.Unmarshal(id, &f.id); err != nil {
			return none, f.json.wrong(errors.New("registrationId must be a string"))
		}
	}
	var wanted dps.IndividualEnrollment
	if f.json.members["attestation"] == nil || f.proves() {
		wanted, err = f.enrollment(stdin)
	} else {
		wanted, err = f.described()
	}
	if err != nil {
		return none, err
	}
	except := []string{"registrationId", "attestation"}
	if f.deviceID != "" {
		except = append(except, "deviceId")
	}
	if f.disabled {
		except = append(except, "provisioningStatus")
	}
	return f.json.enrollment(wanted, except...)
}

// proves says whether flags say how the device proves itself.
func (f *addFlags) proves() bool { return f.mechanism.given() || f.ek+f.from+f.srk != "" }

// described is the enrollment whose attestation stands in --from-json.
func (f *addFlags) described() (none dps.IndividualEnrollment, err error) {
	alone, err := json.Marshal(map[string]json.RawMessage{"attestation": f.json.members["attestation"]})
	if err != nil {
		return none, err
	}
	e, err := dps.DecodeEnrollment("none", alone) // the id is not known yet
	if err != nil {
		return none, f.json.wrong(err)
	}
	switch {
	case f.id != "":
	case e.Attestation.TPM != nil:
		f.id = attest.RegistrationID(e.Attestation.TPM.EndorsementKey)
	default:
		return none, usageError{errors.New("give the registration id with --registration-id, or as registrationId in the JSON")}
	}
	return f.entry(e.Attestation)
}

// enrollment judges on this side what the service would refuse, so that the message comes with the command.
func (f *addFlags) enrollment(stdin io.Reader) (dps.IndividualEnrollment, error) {
	if f.mechanism.given() {
		return f.otherEnrollment(stdin)
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
		return none, errors.New("the endorsement key is not base64: " + ekAdvice)
	}
	if _, err := attest.ParseEK(ek); err != nil {
		return none, ekError(err)
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
func (f *addFlags) otherEnrollment(stdin io.Reader) (dps.IndividualEnrollment, error) {
	if f.ek+f.from+f.srk != "" {
		return dps.IndividualEnrollment{}, usageError{errors.New("a device proves itself in one way: with a TPM, a certificate or a symmetric key")}
	}
	attestation, err := f.mechanism.attestation("client", stdin)
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

const ekAdvice = "give what `latchkey-device ek` prints"

// ekError is a refused EK_pub with what to give in its place.
func ekError(err error) error {
	return fmt.Errorf("%w; %s", keyError("the endorsement key", err), ekAdvice)
}

// keyError is a refused key in the operator's words.
func keyError(what string, err error) error {
	return fmt.Errorf("%s: %s", what, strings.TrimPrefix(err.Error(), "attest: "))
}

func (f *addFlags) readDevice(stdin io.Reader) error {
	data, err := readInput(f.from, stdin, 1<<20)
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
