package authority

import (
	"fmt"
	"strings"
)

// CheckName judges a name for init: a DNS name with a dot, lower case, no port and no address. The hub is called by the first name, and some
// SDKs split it at its first dot. Labels are those of RFC 1123, 2.1; the last one is not a number, or readers would take the name
// for an address.
func CheckName(name string) error {
	labels := strings.Split(name, ".")
	for _, label := range labels {
		for _, r := range label {
			if !letter(r) && !digit(r) && r != '-' {
				return fmt.Errorf("%q is not a host name: use lower-case letters, digits, dots and dashes", name)
			}
		}
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%q is not a host name with a dot, such as dps.example.net", name)
		}
	}
	last := labels[len(labels)-1]
	if len(labels) < 2 || len(name) > 253 || strings.IndexFunc(last, letter) < 0 {
		return fmt.Errorf("%q is not a host name with a dot, such as dps.example.net", name)
	}
	return nil
}

func letter(r rune) bool { return r >= 'a' && r <= 'z' }

func digit(r rune) bool { return r >= '0' && r <= '9' }
