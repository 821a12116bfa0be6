package registration

import "math/bits"

// rightNames are the permissions as the imitated service spells them, in the order of their bits.
var rightNames = [...]string{"ServiceConfig", "EnrollmentRead", "EnrollmentWrite", "RegistrationStatusRead", "RegistrationStatusWrite",
	"RegistryRead", "RegistryWrite", "ServiceConnect"}

// Names lists the permissions of a set, in the order in which this package declares them.
func (r Right) Names() []string {
	names := make([]string, 0, bits.OnesCount8(uint8(r)))
	for i, name := range rightNames {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// RightNamed gives the permission of a name, spelled exactly.
func RightNamed(name string) (Right, bool) {
	for i, known := range rightNames {
		if name == known {
			return 1 << i, true
		}
	}
	return 0, false
}
