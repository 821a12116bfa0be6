package authority

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	for name, good := range map[string]bool{
		"dps.example.net": true, "a.b": true, "1.example": true, "x--y.example": true, label63 + ".example": true, "latchkey.test": true,
		strings.Repeat("a.", 126) + "b": true, // 253 characters

		"": false, ".": false, "..": false, "localhost": false, "dps": false, ".example.net": false, "example.net.": false, "a..b": false,
		"-a.example": false, "a-.example": false, "a.-b": false, "a.b-": false, label63 + "a.example": false, strings.Repeat("a.", 127) + "b": false,
		"DPS.example.net": false, "dps.example.net:443": false, "https://dps.example.net": false, "*.example.net": false, "dps_1.example": false,
		"dps.example.net/x": false, "a b.example": false, "a.b\n": false, "müller.example": false, "a.b\x00": false,
		"192.0.2.1": false, "::1": false, "1.2.3": false, "256.1.1.1": false,
	} {
		err := CheckName(name)
		if (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "is not a host name") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q is refused with %q", name, err)
		}
	}
}
