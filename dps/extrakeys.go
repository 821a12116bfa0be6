package dps

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode"
)

// MaxExtraKeys is how many EKs of its chip an enrollment may hold besides its
// endorsementKey. Vendor SDKs, tools and templates together show fewer.
const MaxExtraKeys = 16

// maxNote bounds the note beside an EK, in bytes.
const maxNote = 256

// Hierarchies that an EK can be of, as the device's own tool finds them: no
// public area shows it.
const (
	HierarchyEndorsement = "endorsement"
	HierarchyOwner       = "owner" // the key does not outlive a clear
	HierarchyPlatform    = "platform"
	HierarchyUnknown     = "unknown"
)

// Extension is Latchkey's own part of an individual enrollment, the member
// latchkey. Azure DPS has no such member.
type Extension struct {
	ExtraKeys []ExtraKey // further EKs of the same chip: any of them is the device
}

// ExtraKey is one of them.
type ExtraKey struct {
	EndorsementKey []byte // TPM2B_PUBLIC with the size prefix, as decoded
	Hierarchy      string // one of the four words
	Note           string // the operator's own words; may be empty
}

const (
	extensionName = "latchkey"
	extraKeysName = "endorsementKeys"
	extraKeysPath = extensionName + "." + extraKeysName

	closedByDeviceName  = "closedByDevice"
	transferredFromName = "transferredFrom"
)

// decodeExtension reads {"endorsementKeys":[{"endorsementKey":b64,"hierarchy"?:word,"note"?:text}]}, and the
// members that say where an enrollment has been. An empty list is one: it says that there are no further
// EKs. Left out, or null, it is as if the extension were left out.
func (e *IndividualEnrollment) decodeExtension(object []byte) (*Extension, error) {
	if object[0] != '{' {
		return nil, refuse(extensionName, "must be an object")
	}
	var x *Extension
	err := eachMember(object, func(name, value []byte) (err error) {
		switch n := string(name); {
		case isNull(value):
			return nil
		case n == closedByDeviceName:
			e.ClosedByDevice, err = timeValue(extensionName+"."+n, value)
			return err
		case n == transferredFromName:
			e.TransferredFrom, err = stringValue(extensionName+"."+n, value)
			return err
		case n != extraKeysName:
			return misspelt(extensionName+".", name, extraKeysName, closedByDeviceName, transferredFromName)
		case value[0] != '[':
			return refuse(extraKeysPath, "must be an array")
		}
		x = new(Extension)
		return eachElement(value, x.add)
	})
	return x, err
}

func (x *Extension) add(object []byte) error {
	if len(x.ExtraKeys) == MaxExtraKeys {
		return refuse(extraKeysPath, "holds more than %d keys", MaxExtraKeys)
	}
	path := ExtraKeyPath(len(x.ExtraKeys))
	if object[0] != '{' {
		return refuse(path, "must be an object")
	}
	key := ExtraKey{Hierarchy: HierarchyUnknown}
	err := eachMember(object, func(name, value []byte) (err error) {
		switch n := string(name); {
		case isNull(value):
		case n == "endorsementKey":
			key.EndorsementKey, err = keyValue(path+".endorsementKey", value)
		case n == "hierarchy":
			key.Hierarchy, err = wordValue(path+".hierarchy", value, HierarchyEndorsement, HierarchyOwner, HierarchyPlatform, HierarchyUnknown)
		case n == "note":
			key.Note, err = noteValue(path+".note", value)
		default:
			err = misspelt(path+".", name, "endorsementKey", "hierarchy", "note")
		}
		return err
	})
	if err == nil && key.EndorsementKey == nil {
		err = refuse(path+".endorsementKey", "is missing")
	}
	x.ExtraKeys = append(x.ExtraKeys, key)
	return err
}

// ExtraKeyPath is how a refusal names one of the extra EKs, counted from 0.
func ExtraKeyPath(i int) string { return extraKeysPath + "[" + strconv.Itoa(i) + "]" }

func noteValue(path string, value []byte) (string, error) {
	note, err := stringValue(path, value)
	if err == nil && (len(note) > maxNote || strings.ContainsFunc(note, unicode.IsControl)) {
		err = refuse(path, "must be text of at most %d bytes without control characters", maxNote)
	}
	return note, err
}

// appendExtension writes the member latchkey where there is something to say.
func (e *IndividualEnrollment) appendExtension(b []byte) []byte {
	if e.Latchkey == nil && e.ClosedByDevice.IsZero() && e.TransferredFrom == "" {
		return b
	}
	b = append(appendName(b, extensionName), '{')
	if e.Latchkey != nil {
		b = e.Latchkey.appendKeys(b)
	}
	b = appendTime(b, closedByDeviceName, e.ClosedByDevice)
	b = appendPresent(b, transferredFromName, e.TransferredFrom)
	return append(b, '}')
}

func (x *Extension) appendKeys(b []byte) []byte {
	b = append(appendName(b, extraKeysName), '[')
	for i, key := range x.ExtraKeys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"endorsementKey":"`...)
		b = base64.StdEncoding.AppendEncode(b, key.EndorsementKey)
		b = append(b, '"')
		b = appendMember(b, "hierarchy", key.Hierarchy)
		b = appendPresent(b, "note", key.Note)
		b = append(b, '}')
	}
	return append(b, ']')
}
