package adminapi

import (
	"encoding/json"
	"slices"
	"testing"

	"latchkey.example/latchkey/internal/registration"
)

func TestThePermissionsAreDescribed(t *testing.T) {
	for _, schema := range []string{"AccessPolicy", "AccessPolicyRights"} {
		var rights struct{ Items struct{ Enum []string } }
		if err := json.Unmarshal(readDescription(t).Components.Schemas[schema].Properties["rights"], &rights); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(rights.Items.Enum, registration.AllRights.Names()) {
			t.Errorf("%s is described with %v", schema, rights.Items.Enum)
		}
	}
}
