package dps

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
)

// RegisterRequest is the body of a register request or a status lookup. Some
// clients leave out the body or the tpm member on their second request, and one
// sends an empty body over AMQP, so every part can be missing.
type RegisterRequest struct {
	RegistrationID string          // as sent, valid; empty if absent
	TPM            *TPMKeys        // nil if absent
	Payload        json.RawMessage // as sent, without space around it; nil if absent or null
	CSR            string          // as sent; empty if absent. Nobody issues certificates yet: to be refused, not dropped
}

// TPMKeys are the public areas of a device's EK and SRK, as TPM2B_PUBLIC with
// the size prefix. They are decoded from base64 and otherwise unchecked, but
// neither is empty.
type TPMKeys struct {
	EndorsementKey, StorageRootKey []byte
}

// DecodeRegister reads the body of a register request or status lookup. An
// empty body is the zero request. Null counts as absent, unknown members are
// ignored, and a member that differs from a known one in letter case only is
// refused. Errors are *FieldError.
func DecodeRegister(body []byte) (RegisterRequest, error) {
	if len(bytes.TrimSpace(body)) == 0 && len(body) <= MaxMessage {
		return RegisterRequest{}, nil
	}
	if err := checkObject(body); err != nil {
		return RegisterRequest{}, err
	}
	var req RegisterRequest
	if err := eachMember(body, req.member); err != nil {
		return RegisterRequest{}, err
	}
	return req, nil
}

func (r *RegisterRequest) member(name, value []byte) (err error) {
	if isNull(value) {
		return nil
	}
	switch string(name) {
	case "registrationId":
		r.RegistrationID, err = idValue("registrationId", value)
	case "tpm":
		r.TPM, err = decodeTPM("tpm", value)
		if err == nil && r.TPM.StorageRootKey == nil {
			err = refuse("tpm.storageRootKey", "is missing")
		}
	case "payload":
		r.Payload = bytes.Clone(value)
	case "csr":
		r.CSR, err = stringValue("csr", value)
	default:
		err = misspelt("", name, "registrationId", "tpm", "payload", "csr")
	}
	return err
}

// decodeTPM reads {"endorsementKey":b64,"storageRootKey"?:b64}.
func decodeTPM(path string, object []byte) (*TPMKeys, error) {
	if object[0] != '{' {
		return nil, refuse(path, "must be an object")
	}
	var keys TPMKeys
	err := eachMember(object, func(name, value []byte) (err error) {
		switch string(name) {
		case "endorsementKey":
			keys.EndorsementKey, err = keyValue(path+".endorsementKey", value)
		case "storageRootKey":
			keys.StorageRootKey, err = keyValue(path+".storageRootKey", value)
		default:
			err = misspelt(path+".", name, "endorsementKey", "storageRootKey")
		}
		return err
	})
	if err == nil && keys.EndorsementKey == nil {
		err = refuse(path+".endorsementKey", "is missing")
	}
	return &keys, err
}

// keyValue decodes the base64 of a public area; absent, null and empty are nil.
// Line breaks, blanks and missing padding are tolerated, since they change the
// text and not the key; stray bits after the last byte are not.
func keyValue(path string, value []byte) ([]byte, error) {
	if isNull(value) {
		return nil, nil
	}
	text, err := stringValue(path, value)
	if err != nil {
		return nil, err
	}
	return keyText(path, text)
}

func keyText(path, text string) ([]byte, error) {
	if len(text) > maxKeyChars {
		return nil, refuse(path, "is longer than %d characters", maxKeyChars)
	}
	if strings.ContainsAny(text, " \t\r\n") {
		text = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(text)
	}
	if padded := strings.TrimRight(text, "="); len(text)-len(padded) <= 2 {
		text = padded
	}
	key, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, refuse(path, "must be base64 of a TPM2B_PUBLIC")
	}
	if len(key) == 0 {
		return nil, nil
	}
	return key, nil
}

func stringValue(path string, value []byte) (string, error) {
	if value[0] != '"' {
		return "", refuse(path, "must be a string")
	}
	return string(unquote(value)), nil
}

// badRegistrationID is what an id that is none is told.
const badRegistrationID = "must be 1 to 128 ASCII letters, digits and - . _ : that end with a letter, a digit or a dash"

func idValue(path string, value []byte) (string, error) {
	id, err := stringValue(path, value)
	if err != nil {
		return "", err
	}
	if !ValidRegistrationID(id) {
		return "", refuse(path, badRegistrationID)
	}
	return id, nil
}
