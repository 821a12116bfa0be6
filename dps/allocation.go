package dps

import (
	"bytes"
	"encoding/json"
)

// Bounds of what an allocation webhook answers, in bytes.
const (
	MaxAllocationAnswer = 64 << 10
	MaxReturnedPayload  = 16 << 10 // devices hold it in memory, some of them very little
)

// AllocationRequest is what an allocation webhook is asked (AllocationRequest of
// the public documentation of the imitated service, for every apiVersion alike).
type AllocationRequest struct {
	Enrollment *IndividualEnrollment // or
	Group      *EnrollmentGroup      // exactly one of the two
	Device     DeviceRuntimeContext
	LinkedHubs []string // host names that may be answered
}

// DeviceRuntimeContext is the device that is to be allocated, as it showed
// itself. One of TPM and Certificate is there, or neither: symmetric keys are
// not told.
type DeviceRuntimeContext struct {
	RegistrationID  string
	CurrentHub      string // host name; empty: it is assigned to none
	CurrentDeviceID string
	TPM             *TPMKeys
	Certificate     *CertificateInfo
	Payload         json.RawMessage // what the device sent for the webhook; nil: nothing
}

// Encode is the question as JSON. The entry's attestation is its type alone.
func (r *AllocationRequest) Encode() []byte {
	b := append(make([]byte, 0, 2048), '{')
	switch {
	case r.Enrollment != nil:
		entry := *r.Enrollment
		entry.Attestation, entry.RegistrationState = Attestation{Type: entry.Attestation.Type}, nil
		b = append(appendName(b, "individualEnrollment"), entry.Encode()...)
	case r.Group != nil:
		entry := *r.Group
		entry.Attestation = Attestation{Type: entry.Attestation.Type}
		b = append(appendName(b, "enrollmentGroup"), entry.Encode()...)
	}
	b = r.Device.appendTo(appendName(b, "deviceRuntimeContext"))
	return append(appendStrings(appendName(b, "linkedHubs"), r.LinkedHubs), '}')
}

func (d *DeviceRuntimeContext) appendTo(b []byte) []byte {
	b = appendPresent(append(b, '{'), "registrationId", d.RegistrationID)
	b = appendPresent(b, "currentIotHubHostName", d.CurrentHub)
	b = appendPresent(b, "currentDeviceId", d.CurrentDeviceID)
	switch {
	case d.TPM != nil:
		b = d.TPM.appendTo(appendName(b, "tpm"))
	case d.Certificate != nil:
		shown := X509Attestation{Client: &CertificatePair{Primary: &Certificate{Info: *d.Certificate}}}
		b = shown.appendTo(appendName(b, "x509"), 0)
	default:
		b = append(appendName(b, "symmetricKey"), "{}"...)
	}
	return append(appendRaw(b, "payload", d.Payload), '}')
}

// AllocationAnswer is what an allocation webhook answers with status 200.
type AllocationAnswer struct {
	Hub         string       // host name, as answered; not empty
	InitialTwin *InitialTwin // nil: that of the entry
	Payload     json.RawMessage
}

// DecodeAllocationAnswer reads an answer of at most MaxAllocationAnswer bytes. Null
// counts as absent, unknown members are ignored, and a member that differs from a
// known one in letter case only is refused, but for iotHubHostname, which the
// public documentation also writes. Errors are *FieldError.
func DecodeAllocationAnswer(body []byte) (AllocationAnswer, error) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")) // some frameworks begin every text with it
	if err := checkObjectWithin(body, MaxAllocationAnswer); err != nil {
		return AllocationAnswer{}, err
	}
	var a AllocationAnswer
	if err := eachMember(body, a.member); err != nil {
		return AllocationAnswer{}, err
	}
	if a.Hub == "" {
		return AllocationAnswer{}, refuse("iotHubHostName", "is missing")
	}
	return a, nil
}

func (a *AllocationAnswer) member(name, value []byte) (err error) {
	if isNull(value) {
		return nil
	}
	switch string(name) {
	case "iotHubHostName", "iotHubHostname":
		a.Hub, err = hostValue("iotHubHostName", value)
	case "initialTwin":
		a.InitialTwin, err = decodeTwin(value)
	case "payload":
		if a.Payload = bytes.Clone(value); len(value) > MaxReturnedPayload {
			err = refuse("payload", "is longer than %d bytes", MaxReturnedPayload)
		}
	default:
		err = misspelt("", name, "iotHubHostName", "initialTwin", "payload")
	}
	return err
}
