package dps

import (
	"bytes"
	"strconv"
)

// WantedOffer is the body of a request to offer a device to another scope.
type WantedOffer struct {
	To           string // ID scope
	ValidSeconds int    // 0: not said
}

const maxValidSeconds = 100_000_000

// DecodeOffer reads {"to":"SCOPE","validSeconds"?:n}. Errors are *FieldError.
func DecodeOffer(body []byte) (o WantedOffer, err error) {
	if err := checkObject(body); err != nil {
		return o, err
	}
	err = eachMember(body, func(name, value []byte) (err error) {
		switch n := string(name); {
		case isNull(value):
		case n == "to":
			o.To, err = stringValue(n, value)
		case n == "validSeconds":
			seconds, failed := strconv.Atoi(string(value))
			if failed != nil || seconds < 1 || seconds > maxValidSeconds {
				return refuse(n, "must be a whole number of seconds, at least 1")
			}
			o.ValidSeconds = seconds
		default:
			err = misspelt("", name, "to", "validSeconds")
		}
		return err
	})
	return o, err
}

// WantedAcceptance is the body of a request to take a device over.
type WantedAcceptance struct {
	Code       string
	enrollment []byte // members of the enrollment, an object; nil: none
}

// DecodeAcceptance reads {"code":"…","enrollment"?:{…}}; the enrollment is judged by Enrollment. Errors are *FieldError.
func DecodeAcceptance(body []byte) (a WantedAcceptance, err error) {
	if err := checkObject(body); err != nil {
		return a, err
	}
	err = eachMember(body, func(name, value []byte) (err error) {
		switch n := string(name); {
		case isNull(value):
		case n == "code":
			a.Code, err = stringValue(n, value)
		case n == "enrollment":
			if value[0] != '{' {
				return refuse(n, "must be an object")
			}
			a.enrollment = bytes.Clone(value)
		default:
			err = misspelt("", name, "code", "enrollment")
		}
		return err
	})
	if err == nil && a.Code == "" {
		err = refuse("code", "is missing")
	}
	return a, err
}

// Enrollment is the one that the device gets: what the body says, with the EK
// that comes with the device, and under its id unless the body gives another.
func (a WantedAcceptance) Enrollment(id string, ek []byte) (IndividualEnrollment, error) {
	e := IndividualEnrollment{ProvisioningStatus: EnrollmentEnabled}
	if a.enrollment != nil {
		if err := eachMember(a.enrollment, e.member); err != nil {
			return IndividualEnrollment{}, err
		}
	}
	if e.Attestation.Type != "" || e.Latchkey != nil {
		return IndividualEnrollment{}, refuse("enrollment.attestation", "must be left out: it comes with the device")
	}
	if e.RegistrationID == "" {
		e.RegistrationID = id
	}
	e.Attestation = Attestation{Type: AttestationTPM, TPM: &TPMKeys{EndorsementKey: ek}}
	return e, e.check()
}
