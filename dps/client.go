package dps

import (
	"encoding/base64"
	"encoding/json"
)

// Challenge is the 401 answer to an unproven register request, as a device
// reads it.
type Challenge struct {
	Message    string
	Blob       []byte // activation blob, decoded
	KeyName    string // to be copied into skn
	TrackingID string
}

// Encode is the request as a device sends it, members in the order of the SDKs.
func (r RegisterRequest) Encode() []byte {
	size := 128 + len(r.RegistrationID) + len(r.Payload) + len(r.CSR)
	if r.TPM != nil {
		size += base64.StdEncoding.EncodedLen(len(r.TPM.EndorsementKey)) + base64.StdEncoding.EncodedLen(len(r.TPM.StorageRootKey))
	}
	b := append(make([]byte, 0, size), '{')
	b = appendPresent(b, "registrationId", r.RegistrationID)
	if r.TPM != nil {
		b = r.TPM.appendTo(appendName(b, "tpm"))
	}
	b = appendRaw(b, "payload", r.Payload)
	b = appendPresent(b, "csr", r.CSR)
	return append(b, '}')
}

func (k *TPMKeys) appendTo(b []byte) []byte {
	b = base64.StdEncoding.AppendEncode(append(b, `{"endorsementKey":"`...), k.EndorsementKey)
	if len(k.StorageRootKey) > 0 {
		b = base64.StdEncoding.AppendEncode(append(b, `","storageRootKey":"`...), k.StorageRootKey)
	}
	return append(b, `"}`...)
}

// DecodeChallenge reads a challenge. A 401 body without authenticationKey is a
// refusal and an error here; read it with DecodeError.
func DecodeChallenge(body []byte) (Challenge, error) {
	var c struct {
		Message           string `json:"message"`
		AuthenticationKey []byte `json:"authenticationKey"`
		KeyName           string `json:"keyName"`
		TrackingID        string `json:"trackingId"`
	}
	if err := decodeAnswer(body, &c); err != nil {
		return Challenge{}, err
	}
	if len(c.AuthenticationKey) == 0 {
		return Challenge{}, refuse("authenticationKey", "is missing")
	}
	return Challenge{c.Message, c.AuthenticationKey, c.KeyName, c.TrackingID}, nil
}

// DecodeOperationStatus reads the answer to an accepted register request or to
// a poll. Words it does not know are kept as they are.
func DecodeOperationStatus(body []byte) (OperationStatus, error) {
	var o OperationStatus
	if err := decodeAnswer(body, &o); err != nil {
		return OperationStatus{}, err
	}
	if o.Status == "" {
		return OperationStatus{}, refuse("status", "is missing")
	}
	return o, nil
}

// DecodeError reads the body of an error answer.
func DecodeError(body []byte) (ErrorBody, error) {
	var e ErrorBody
	if err := decodeAnswer(body, &e); err != nil {
		return ErrorBody{}, err
	}
	if e.ErrorCode == 0 {
		return ErrorBody{}, refuse("errorCode", "is missing")
	}
	return e, nil
}

// decodeAnswer reads a message of a service, which a device trusts no more than
// the service trusts the device's.
func decodeAnswer(body []byte, into any) error {
	if err := checkObject(body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return refuse("", "the answer does not have the shape of the protocol")
	}
	return nil
}
