package brokerapi

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"
)

// The questions are those of the description that the management API serves.
func TestAllQuestionsAreDescribed(t *testing.T) {
	text, err := os.ReadFile("../adminapi/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name   string
				Schema struct{ Enum []string }
			}
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	for _, dialect := range dialects {
		for question := range dialect.questions {
			asked[question] = true
		}
	}
	for _, path := range []string{Prefix + "{hub}/{question}", Prefix + "{hub}/{secret}/{question}"} {
		for _, method := range []string{"get", "post"} {
			parameters := d.Paths[path][method].Parameters
			if len(parameters) == 0 {
				t.Fatalf("%s %s is not described", method, path)
			}
			described := slices.Sorted(slices.Values(parameters[len(parameters)-1].Schema.Enum))
			if want := slices.Sorted(maps.Keys(asked)); !slices.Equal(described, want) {
				t.Errorf("%s %s describes %v, asked are %v", method, path, described, want)
			}
		}
	}
}
