package dps

import (
	"bytes"
	"encoding/json"
	"slices"
)

// MaxImportLine bounds one JSON line of an import, in bytes: the longest enrollment, and what an
// export says of it besides.
const MaxImportLine = MaxMessage + 4<<10

// KeysWithheld is what an export says in the place of symmetric keys, which are
// never in it, as the member or cell symmetricKeys.
const KeysWithheld = "withheld"

// ImportEntry is an individual enrollment as a line of an import has it.
type ImportEntry struct {
	IndividualEnrollment // the registration id may be empty
	// KeysWithheld says that the enrollment has symmetric keys that are not in
	// the line: they are those of the entry that is there, and never made anew.
	KeysWithheld bool
}

// DecodeImport reads one line of an import: an enrollment as DecodeEnrollment
// takes it, or the short form of one for a TPM, told by its endorsementKey: an
// object of the first columns of ImportColumns. The registration id may be
// absent in both. Errors are *FieldError; the entry that comes with one holds the
// registration id as far as it is known.
func DecodeImport(line []byte) (ImportEntry, error) {
	if err := checkObjectWithin(line, MaxImportLine); err != nil {
		return ImportEntry{}, err
	}
	short, whole := false, false
	err := eachMember(line, func(name, _ []byte) error {
		short = short || string(name) == "endorsementKey"
		whole = whole || string(name) == "attestation"
		return nil
	})
	switch {
	case err != nil:
		return ImportEntry{}, err
	case short && whole:
		return ImportEntry{}, refuse("endorsementKey", "stands inside attestation.tpm, or alone without attestation")
	case short:
		return decodeShort(line)
	}
	e := ImportEntry{IndividualEnrollment: IndividualEnrollment{ProvisioningStatus: EnrollmentEnabled}}
	if err = eachMember(line, e.member); err == nil {
		err = e.check()
	}
	if err != nil {
		return refusedEntry(e.RegistrationID), err
	}
	return e, nil
}

// refusedEntry holds a registration id, if that is good.
func refusedEntry(id string) (e ImportEntry) {
	if ValidRegistrationID(id) {
		e.RegistrationID = id
	}
	return e
}

// shortNames are the members of the short form.
var shortNames = ImportColumns[:5]

// decodeShort passes over what it does not know, as the long form does: the
// output of a device's own tool has members besides.
func decodeShort(line []byte) (ImportEntry, error) {
	row := ImportRow{}
	err := eachMember(line, func(name, value []byte) (err error) {
		n := string(name)
		if !slices.Contains(shortNames, n) {
			return misspelt("", name, shortNames...)
		}
		if !isNull(value) {
			row[n], err = stringValue(n, value)
		}
		return err
	})
	if err != nil {
		return refusedEntry(row["registrationId"]), err
	}
	return row.Entry()
}

func (e *ImportEntry) member(name, value []byte) error {
	if string(name) != "symmetricKeys" {
		return e.IndividualEnrollment.member(name, value)
	}
	if isNull(value) {
		return nil
	}
	word, err := stringValue("symmetricKeys", value)
	if err == nil {
		err = e.withhold(word)
	}
	return err
}

// withhold takes the word of symmetricKeys.
func (e *ImportEntry) withhold(word string) error {
	if word != KeysWithheld {
		return refuse("symmetricKeys", "must be %s, or be left out to have keys made", KeysWithheld)
	}
	e.KeysWithheld = true
	return nil
}

// check judges members against each other.
func (e *ImportEntry) check() error {
	if err := e.IndividualEnrollment.check(); err != nil {
		return err
	}
	if e.KeysWithheld && (e.Attestation.Type != AttestationSymmetricKey || e.Attestation.SymmetricKey != nil) {
		return refuse("symmetricKeys", "must be left out of an enrollment that has other keys, or none")
	}
	return nil
}

// EncodeExported is an enrollment as a line of an export, without its end: Encode,
// in one line, and KeysWithheld where that is so.
func (e *IndividualEnrollment) EncodeExported() ([]byte, error) {
	line, err := compact(e.Encode()) // what an operator sent may hold line ends
	if err == nil && e.Attestation.Type == AttestationSymmetricKey {
		line = appendMember(line[:len(line)-1], "symmetricKeys", KeysWithheld)
		line = append(line, '}')
	}
	return line, err
}

func compact(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var line bytes.Buffer
	err := json.Compact(&line, raw)
	return line.Bytes(), err
}
