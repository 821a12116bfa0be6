package dps

import "strings"

// ValidRegistrationID reports whether id can name a device: 1 to 128 ASCII
// letters, digits and - . _ : of which the last is a letter, a digit or a dash.
func ValidRegistrationID(id string) bool {
	if len(id) < 1 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if !alphanumeric(id[i]) && strings.IndexByte("-._:", id[i]) < 0 {
			return false
		}
	}
	last := id[len(id)-1]
	return alphanumeric(last) || last == '-'
}

// FoldID is the form of a registration id under which it is looked up:
// registration ids are compared without regard to case. Only ASCII is folded.
func FoldID(id string) string {
	for i := range len(id) {
		if lower(id[i]) != id[i] {
			return foldFrom(id, i)
		}
	}
	return id
}

func foldFrom(id string, i int) string {
	b := []byte(id)
	for ; i < len(b); i++ {
		b[i] = lower(b[i])
	}
	return string(b)
}

// ValidDeviceID reports whether id can name a device at its hub: 1 to 128 ASCII
// letters, digits and - . % _ * ? ! ( ) , : = @ $ '. Device ids are compared
// with regard to case. The two names "." and ".." are refused because clients
// and proxies drop them from a path.
func ValidDeviceID(id string) bool {
	if len(id) < 1 || len(id) > 128 || id == "." || id == ".." {
		return false
	}
	for i := range len(id) {
		if !alphanumeric(id[i]) && strings.IndexByte("-.%_*?!(),:=@$'", id[i]) < 0 {
			return false
		}
	}
	return true
}

// reservedScopes are first path segments that mean something else.
var reservedScopes = []string{"enrollments", "enrollmentgroups", "registrations", "devices", "twins", "statistics", "messages", "jobs",
	"configurations", "digitaltwins", "latchkey"}

// ValidIDScope reports whether s can be an ID scope: 1 to 64 ASCII letters,
// digits and - _ . that begin and end with a letter or digit, and not one of the
// first path segments that the listener needs for itself, in any letter case.
func ValidIDScope(s string) bool {
	if len(s) < 1 || len(s) > 64 || !alphanumeric(s[0]) || !alphanumeric(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && strings.IndexByte("-_.", s[i]) < 0 {
			return false
		}
	}
	for _, r := range reservedScopes {
		if equalFold(s, r) {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// equalFold compares without regard to the case of ASCII letters. The standard
// library's function also equates letters outside ASCII (the Kelvin sign with
// k), which no client means.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}
