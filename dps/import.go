package dps

import "encoding/base64"

// ImportFields is the short form of an individual TPM enrollment, as a row of a
// table has it. Empty means absent; only EndorsementKey is needed.
type ImportFields struct {
	RegistrationID     string
	EndorsementKey     string // base64 of the TPM2B_PUBLIC
	DeviceID           string
	ProvisioningStatus string // EnrollmentEnabled, if empty
	StorageRootKey     string // base64 of the TPM2B_PUBLIC
}

// ImportFieldNames are the names of the fields, in the order in which Field
// counts them.
var ImportFieldNames = []string{"registrationId", "endorsementKey", "deviceId", "provisioningStatus", "storageRootKey"}

// Field is the field of a name, nil if there is none of that name.
func (f *ImportFields) Field(name string) *string {
	switch name {
	case "registrationId":
		return &f.RegistrationID
	case "endorsementKey":
		return &f.EndorsementKey
	case "deviceId":
		return &f.DeviceID
	case "provisioningStatus":
		return &f.ProvisioningStatus
	case "storageRootKey":
		return &f.StorageRootKey
	}
	return nil
}

// ImportFieldsOf is the short form of a TPM enrollment; members that it has no
// field for are lost.
func ImportFieldsOf(e IndividualEnrollment) ImportFields {
	f := ImportFields{RegistrationID: e.RegistrationID, DeviceID: e.DeviceID, ProvisioningStatus: e.ProvisioningStatus}
	if t := e.Attestation.TPM; t != nil {
		f.EndorsementKey, f.StorageRootKey = base64.StdEncoding.EncodeToString(t.EndorsementKey), base64.StdEncoding.EncodeToString(t.StorageRootKey)
	}
	return f
}

// Enrollment judges the fields as DecodeEnrollment does, but that the
// registration id may be empty. Errors are *FieldError; the enrollment that comes with
// one holds the registration id, if that was good.
func (f ImportFields) Enrollment() (IndividualEnrollment, error) {
	var e IndividualEnrollment
	if f.RegistrationID != "" && !ValidRegistrationID(f.RegistrationID) {
		return e, refuse("registrationId", badRegistrationID)
	}
	e.RegistrationID = f.RegistrationID
	var keys TPMKeys
	var err error
	if keys.EndorsementKey, err = keyText("endorsementKey", f.EndorsementKey); err != nil {
		return e, err
	}
	if keys.StorageRootKey, err = keyText("storageRootKey", f.StorageRootKey); err != nil {
		return e, err
	}
	switch {
	case keys.EndorsementKey == nil:
		return e, refuse("endorsementKey", "is missing")
	case f.DeviceID != "" && !ValidDeviceID(f.DeviceID):
		return e, refuse("deviceId", badDeviceID)
	case f.ProvisioningStatus == "":
		f.ProvisioningStatus = EnrollmentEnabled
	case f.ProvisioningStatus != EnrollmentEnabled && f.ProvisioningStatus != EnrollmentDisabled:
		return e, refuse("provisioningStatus", "must be one of: %s, %s", EnrollmentEnabled, EnrollmentDisabled)
	}
	e.DeviceID, e.ProvisioningStatus = f.DeviceID, f.ProvisioningStatus
	e.Attestation = Attestation{Type: AttestationTPM, TPM: &keys}
	return e, nil
}

// DecodeImport reads one line of an import: an enrollment as DecodeEnrollment
// takes it, or ImportFields as a JSON object, told by its endorsementKey.
// The registration id may be absent in both. Errors are *FieldError; the
// enrollment that comes with one holds the registration id as far as it is known.
func DecodeImport(line []byte) (IndividualEnrollment, error) {
	if err := checkObject(line); err != nil {
		return IndividualEnrollment{}, err
	}
	e := IndividualEnrollment{ProvisioningStatus: EnrollmentEnabled}
	var fields ImportFields
	short, whole := false, false
	err := eachMember(line, func(name, _ []byte) error {
		short = short || string(name) == "endorsementKey"
		whole = whole || string(name) == "attestation"
		return nil
	})
	switch {
	case err != nil:
		return IndividualEnrollment{}, err
	case short && whole:
		return IndividualEnrollment{}, refuse("endorsementKey", "stands inside attestation.tpm, or alone without attestation")
	case short:
		if err := eachMember(line, fields.member); err != nil {
			return IndividualEnrollment{RegistrationID: validOrNone(fields.RegistrationID)}, err
		}
		return fields.Enrollment()
	}
	if err = eachMember(line, e.member); err == nil {
		err = e.check()
	}
	if err != nil {
		return IndividualEnrollment{RegistrationID: validOrNone(e.RegistrationID)}, err
	}
	return e, nil
}

// member passes over what it does not know, as in the long form: the output of
// a device's own tool has members besides.
func (f *ImportFields) member(name, value []byte) (err error) {
	field := f.Field(string(name))
	if field == nil {
		return misspelt("", name, ImportFieldNames...)
	}
	if isNull(value) {
		return nil
	}
	*field, err = stringValue(string(name), value)
	return err
}

func validOrNone(id string) string {
	if ValidRegistrationID(id) {
		return id
	}
	return ""
}
