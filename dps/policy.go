package dps

// Messages about shared access policies. They are Latchkey's own, under
// /latchkey/v1, so unlike in the imitated messages an unknown member is refused:
// taken in silence, a misspelt one would give other rights than were meant.

const maxPolicyRights = 16

// DecodePolicyRights reads {"rights":["EnrollmentRead",…]}: 1 to 16 names, none
// twice. Whether they name permissions is the caller's to judge. Errors are
// *FieldError.
func DecodePolicyRights(body []byte) ([]string, error) {
	var rights []string
	err := ownMember(body, "rights", func(value []byte) error {
		if value[0] != '[' {
			return refuse("rights", "must be an array of names of permissions")
		}
		return eachElement(value, func(element []byte) error {
			if element[0] != '"' || len(rights) == maxPolicyRights {
				return refuse("rights", "must be an array of at most %d names of permissions", maxPolicyRights)
			}
			name := string(unquote(element))
			for _, known := range rights {
				if name == known {
					return refuse("rights", "names a permission twice")
				}
			}
			rights = append(rights, name)
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, err
	case len(rights) == 0:
		return nil, refuse("rights", "must name at least one permission")
	}
	return rights, nil
}

// DecodePolicyKey reads {"key":"primary"} or {"key":"secondary"} and gives the
// name. Errors are *FieldError.
func DecodePolicyKey(body []byte) (string, error) {
	var key string
	err := ownMember(body, "key", func(value []byte) error {
		if value[0] == '"' {
			key = string(unquote(value))
		}
		return nil
	})
	if err == nil && key != "primary" && key != "secondary" {
		err = refuse("key", `must be "primary" or "secondary"`)
	}
	if err != nil {
		return "", err
	}
	return key, nil
}

// ownMember reads a message that may have one member only.
func ownMember(body []byte, member string, read func(value []byte) error) error {
	if err := checkObject(body); err != nil {
		return err
	}
	return eachMember(body, func(name, value []byte) error {
		if string(name) != member {
			return refuse("", "the message may have the member %q only", member)
		}
		return read(value)
	})
}
