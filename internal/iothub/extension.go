package iothub

import "strings"

// ExtensionHeader names, in the answers of a hub of Latchkey's own, what it takes beyond Azure's IoT Hub, and in a request which of that the
// client uses. A hub of anybody else's does not send it, and is sent none.
const ExtensionHeader = "latchkey-extensions"

// ReportedByService: a PUT or PATCH of a twin may hold properties.reported, which at Azure only the device can write. It is for a device that moves from
// one hub to another with what it has reported.
const ReportedByService = "reported"

// HasExtension reports whether the value of an ExtensionHeader names an extension; names are separated by commas.
func HasExtension(header, name string) bool {
	for one := range strings.SplitSeq(header, ",") {
		if strings.TrimSpace(one) == name {
			return true
		}
	}
	return false
}
