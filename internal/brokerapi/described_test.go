package brokerapi

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
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

// The configurations in docs/hubs ask all questions of their product, and none that there is not.
func TestTheDocumentedConfigurationsAskWhatIsAnswered(t *testing.T) {
	path := regexp.MustCompile(`/latchkey/v1/broker/broker\.example/(?:SHARED-SECRET/)?([a-z]+)`)
	for product, dialect := range dialects {
		if product == "generic" {
			continue
		}
		files, err := filepath.Glob("../../docs/hubs/" + product + "/*.conf")
		if err != nil || len(files) != 1 {
			t.Fatalf("%s has the configurations %v, %v", product, files, err)
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		asked := map[string]bool{}
		for _, found := range path.FindAllStringSubmatch(string(text), -1) {
			asked[found[1]] = true
		}
		if got, want := slices.Sorted(maps.Keys(asked)), slices.Sorted(maps.Keys(dialect.questions)); !slices.Equal(got, want) {
			t.Errorf("%s asks %v, and has the questions %v", product, got, want)
		}
	}
}
