// Package iothub is the wire between an IoT hub's service side and whoever manages its devices: identities, twins, error answers and
// connection strings in the shape of Azure IoT Hub's REST interface, api-version 2021-04-12. Both ends use it: the hub that Latchkey has
// built in answers in this shape, and the kind "azure" of linked hubs asks in it.
//
// It is pure: bytes in, value or refusal out. It reads no clock and does no I/O. What it decodes is bounded and hostile until it has been
// accepted; the text of a refusal holds names and sentences of this package only. Types that hold keys print and log without them.
//
// Sources are the published REST reference, the service SDKs and what people have shown of real answers; nothing here was tried on Azure's
// own service.
package iothub

import (
	"encoding/json"
	"fmt"
	"strings"

	"latchkey.example/latchkey/dps"
)

// APIVersion is the api-version in which Latchkey asks.
const APIVersion = "2021-04-12"

// ValidAPIVersion reports whether v looks like an api-version: a date from 2016 on, and perhaps "-preview". One behaviour is served for all of
// them, as clients of every age ask for the same members.
func ValidAPIVersion(v string) bool {
	date := strings.TrimSuffix(v, "-preview")
	if len(date) != len("2016-02-03") || date[4] != '-' || date[7] != '-' {
		return false
	}
	for i := range len(date) {
		if i != 4 && i != 7 && (date[i] < '0' || date[i] > '9') {
			return false
		}
	}
	month, day := date[5:7], date[8:]
	return date[:4] >= "2016" && "01" <= month && month <= "12" && "01" <= day && day <= "31"
}

// refuse makes a refusal whose text may be shown to the sender.
func refuse(member, format string, args ...any) error {
	return &dps.FieldError{Member: member, Problem: fmt.Sprintf(format, args...)}
}

func isNull(value []byte) bool { return string(value) == "null" }

// textOf reads a JSON string of at most limit bytes.
func textOf(member string, value []byte, limit int) (string, error) {
	if value[0] != '"' {
		return "", refuse(member, "must be a string")
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return "", refuse(member, "must be a string")
	}
	if len(s) > limit {
		return "", refuse(member, "is longer than %d bytes", limit)
	}
	return s, nil
}

// wordOf reads one of a few words, in any letter case, and gives it as it is spelled here: clients write "Enabled" and "enabled".
func wordOf(member string, value []byte, words ...string) (string, error) {
	s, err := textOf(member, value, 64)
	if err != nil {
		return "", err
	}
	for _, word := range words {
		if strings.EqualFold(s, word) {
			return word, nil
		}
	}
	return "", refuse(member, "must be one of %s", strings.Join(words, ", "))
}

func boolOf(member string, value []byte) (bool, error) {
	if s := string(value); s != "true" && s != "false" {
		return false, refuse(member, "must be true or false")
	}
	return string(value) == "true", nil
}

// objectMembers walks over the members of an object that are not null.
func objectMembers(member string, value []byte, fn func(name string, value []byte) error) error {
	if value[0] != '{' {
		return refuse(member, "must be an object")
	}
	return dps.EachMember(value, func(name, value []byte) error {
		if isNull(value) {
			return nil
		}
		return fn(string(name), value)
	})
}
