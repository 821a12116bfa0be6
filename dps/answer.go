package dps

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
)

// Status words of operations and registrations. Clients compare them exactly.
const (
	StatusUnassigned = "unassigned"
	StatusAssigning  = "assigning"
	StatusAssigned   = "assigned"
	StatusFailed     = "failed"
	StatusDisabled   = "disabled"
)

// Substatus words of an assigned registration.
const (
	SubstatusInitialAssignment  = "initialAssignment"
	SubstatusDeviceDataMigrated = "deviceDataMigrated"
	SubstatusDeviceDataReset    = "deviceDataReset"
	SubstatusReprovisioned      = "reprovisionedToInitialAssignment"
)

// KeyNameRegistration is the keyName of a challenge and the skn that clients
// copy from it.
const KeyNameRegistration = "registration"

const challengeMessage = "Authorization required, resend request using supplied key"

// EncodeChallenge makes the body of the 401 answer that carries an activation
// blob. It has keyName and no status member, or the C client fails; errorCode
// and message are there because Rust's wants them in every 4xx body.
func EncodeChallenge(trackingID string, blob []byte, at time.Time) []byte {
	b := make([]byte, 0, 256+len(trackingID)+base64.StdEncoding.EncodedLen(len(blob)))
	b = append(b, `{"message":"`+challengeMessage+`","authenticationKey":"`...)
	b = base64.StdEncoding.AppendEncode(b, blob)
	b = append(b, `","keyName":"`+KeyNameRegistration+`"`...)
	b = appendMember(b, "trackingId", trackingID)
	b = append(b, `,"errorCode":`...)
	b = strconv.AppendInt(b, int64(CodeUnauthorized), 10)
	b = append(b, `,"timestampUtc":"`...)
	b = at.UTC().AppendFormat(b, errorTime)
	return append(b, `"}`...)
}

// RegistrationState is what the service knows of a registration
// (DeviceRegistrationState). Zero members are left out, except Status, which
// every reader needs.
type RegistrationState struct {
	RegistrationID string              `json:"registrationId,omitempty"`
	Created        time.Time           `json:"createdDateTimeUtc,omitzero"`
	AssignedHub    string              `json:"assignedHub,omitempty"`
	DeviceID       string              `json:"deviceId,omitempty"`
	Status         string              `json:"status"`
	Substatus      string              `json:"substatus,omitempty"`
	ErrorCode      Code                `json:"errorCode,omitempty"`
	ErrorMessage   string              `json:"errorMessage,omitempty"`
	LastUpdated    time.Time           `json:"lastUpdatedDateTimeUtc,omitzero"`
	ETag           string              `json:"etag,omitempty"`
	TPM            *TPMResult          `json:"tpm,omitempty"`
	SymmetricKey   *SymmetricKeyResult `json:"symmetricKey,omitempty"`
	X509           *X509Result         `json:"x509,omitempty"`
	Payload        json.RawMessage     `json:"payload,omitempty"` // any JSON
}

// TPMResult carries the hub key to the device as an activation blob.
type TPMResult struct {
	AuthenticationKey []byte `json:"authenticationKey"`
}

// SymmetricKeyResult is told to a device that proved itself by a symmetric key.
type SymmetricKeyResult struct {
	EnrollmentGroupID string `json:"enrollmentGroupId,omitempty"` // empty: it has an enrollment of its own
}

// X509Result is told to a device that proved itself by a client certificate.
type X509Result struct {
	EnrollmentGroupID string           `json:"enrollmentGroupId,omitempty"` // as above
	Certificate       *CertificateInfo `json:"-"`                           // the one shown
}

// Encode is the state as JSON, as GET registration answers it. Payload is
// copied as it is and must be valid JSON.
func (s *RegistrationState) Encode() []byte { return s.appendTo(make([]byte, 0, s.sizeHint())) }

// MarshalJSON is Encode, so that the times have the protocol's form.
func (s RegistrationState) MarshalJSON() ([]byte, error) { return s.Encode(), nil }

func (s *RegistrationState) sizeHint() int {
	n := 384 + len(s.ErrorMessage) + len(s.Payload) + len(s.AssignedHub) + 2*len(s.RegistrationID)
	if s.TPM != nil {
		n += base64.StdEncoding.EncodedLen(len(s.TPM.AuthenticationKey))
	}
	return n
}

func (s *RegistrationState) appendTo(b []byte) []byte {
	b = append(b, '{')
	b = appendPresent(b, "registrationId", s.RegistrationID)
	b = appendTime(b, "createdDateTimeUtc", s.Created)
	b = appendPresent(b, "assignedHub", s.AssignedHub)
	b = appendPresent(b, "deviceId", s.DeviceID)
	b = appendString(appendName(b, "status"), s.Status)
	b = appendPresent(b, "substatus", s.Substatus)
	if s.ErrorCode != 0 {
		b = append(b, `,"errorCode":`...)
		b = strconv.AppendInt(b, int64(s.ErrorCode), 10)
	}
	b = appendPresent(b, "errorMessage", s.ErrorMessage)
	b = appendTime(b, "lastUpdatedDateTimeUtc", s.LastUpdated)
	b = appendPresent(b, "etag", s.ETag)
	if s.TPM != nil {
		b = append(b, `,"tpm":{"authenticationKey":"`...)
		b = base64.StdEncoding.AppendEncode(b, s.TPM.AuthenticationKey)
		b = append(b, `"}`...)
	}
	if s.SymmetricKey != nil {
		b = append(appendName(b, "symmetricKey"), '{')
		b = append(appendPresent(b, groupIDName, s.SymmetricKey.EnrollmentGroupID), '}')
	}
	if s.X509 != nil {
		b = s.X509.appendTo(appendName(b, "x509"))
	}
	b = appendRaw(b, "payload", s.Payload)
	return append(b, '}')
}

func (x *X509Result) appendTo(b []byte) []byte {
	b = append(b, '{')
	if x.Certificate != nil {
		b = append(appendName(b, "certificateInfo"), '{')
		b = append(x.Certificate.appendTo(appendName(b, "primary")), '}')
	}
	return append(appendPresent(b, groupIDName, x.EnrollmentGroupID), '}')
}

// OperationStatus is the answer to an accepted register request and to a poll
// (RegistrationOperationStatus). Java needs both texts in every answer, C# the
// state in every final one.
type OperationStatus struct {
	OperationID       string             `json:"operationId"`
	Status            string             `json:"status"`
	RegistrationState *RegistrationState `json:"registrationState,omitempty"`
}

// Encode is the answer as JSON.
func (o OperationStatus) Encode() []byte {
	size := 64 + len(o.OperationID)
	if o.RegistrationState != nil {
		size += o.RegistrationState.sizeHint()
	}
	b := append(make([]byte, 0, size), `{"operationId":`...)
	b = appendString(b, o.OperationID)
	b = appendMember(b, "status", o.Status)
	if o.RegistrationState != nil {
		b = append(b, `,"registrationState":`...)
		b = o.RegistrationState.appendTo(b)
	}
	return append(b, '}')
}

// appendSeparator appends a comma unless the object has just begun.
func appendSeparator(b []byte) []byte {
	if b[len(b)-1] == '{' {
		return b
	}
	return append(b, ',')
}

func appendName(b []byte, name string) []byte {
	b = append(appendSeparator(b), '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

func appendPresent(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(appendName(b, name), value)
}

func appendTime(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = append(appendName(b, name), '"')
	b = t.UTC().AppendFormat(b, stateTime)
	return append(b, '"')
}

func appendRaw(b []byte, name string, raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return b
	}
	return append(appendName(b, name), raw...)
}
