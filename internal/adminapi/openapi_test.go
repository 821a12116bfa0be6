package adminapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// description is what the tests read of openapi.json.
type description struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string
		Security    *[]map[string][]string
		Parameters  []struct {
			Name, In string
			Required bool
		}
		Responses map[string]json.RawMessage
	}
	Components struct {
		Responses map[string]json.RawMessage
		Headers   map[string]json.RawMessage
		Schemas   map[string]struct {
			Type       string
			Required   []string
			Properties map[string]json.RawMessage
		}
	}
}

func readDescription(t *testing.T) description {
	t.Helper()
	var d description
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1.") || len(d.Paths) < 3 {
		t.Fatalf("OpenAPI %q with %d paths", d.OpenAPI, len(d.Paths))
	}
	return d
}

const ownPrefix = "/latchkey/v1/"

// segmentsOf fills the parameters of a path with an example.
func segmentsOf(path string) []string {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i] = "example"
		}
	}
	return segments
}

func TestTheDescriptionAndTheRouterAgree(t *testing.T) {
	d, a := readDescription(t), &API{}
	served := map[string][]string{ownPrefix + "openapi.json": {http.MethodGet}}
	for _, x := range a.additions() {
		methods := slices.Sorted(maps.Keys(x.methods("example")))
		served[ownPrefix+x.path] = methods
		// What the table says is what the router does.
		routed, id := a.endpoints(segmentsOf(ownPrefix + x.path))
		if got := slices.Sorted(maps.Keys(routed)); !slices.Equal(got, methods) || (id == "example") != strings.Contains(x.path, "{") {
			t.Errorf("%s is routed to %v, id %q", x.path, got, id)
		}
	}
	for _, path := range []string{"broker/{hub}/{question}", "broker/{hub}/{secret}/{question}"} { // internal/brokerapi's, which a test there compares
		served[ownPrefix+path] = []string{http.MethodGet, http.MethodPost}
	}
	described := map[string][]string{}
	for path, operations := range d.Paths {
		for method := range operations {
			described[path] = append(described[path], strings.ToUpper(method))
		}
		slices.Sort(described[path])
	}
	if !reflect.DeepEqual(described, served) {
		t.Errorf("described %v\nserved %v", described, served)
	}
}

// Path parameters, rights and refusals stand with each operation, and whoever needs no token is named here.
func TestEachDescribedOperationIsWhole(t *testing.T) {
	ids := map[string]bool{}
	for path, operations := range readDescription(t).Paths {
		for method, o := range operations {
			name := method + " " + path
			if o.OperationID == "" || ids[o.OperationID] {
				t.Errorf("%s: operation id %q is empty or there twice", name, o.OperationID)
			}
			ids[o.OperationID] = true
			if open := o.Security != nil && len(*o.Security) == 0; open != describes(segmentsOf(path)) {
				t.Errorf("%s: described as open: %t", name, open)
			}
			var inPath []string
			for _, p := range o.Parameters {
				if p.In == "path" {
					inPath = append(inPath, "{"+p.Name+"}")
					if !p.Required {
						t.Errorf("%s: %s must be required", name, p.Name)
					}
				}
			}
			for _, s := range strings.Split(path, "/") {
				if i := slices.Index(inPath, s); i >= 0 {
					inPath = slices.Delete(inPath, i, i+1)
				} else if strings.HasPrefix(s, "{") {
					t.Errorf("%s: %s is not described", name, s)
				}
			}
			if len(inPath) > 0 {
				t.Errorf("%s: %v are not in the path", name, inPath)
			}
			if _, refuses := o.Responses["401"]; refuses == describes(segmentsOf(path)) {
				t.Errorf("%s: 401 described: %t", name, refuses)
			}
		}
	}
}

// Each path takes the query that it is described with, and a path that is not in the table takes none.
func TestTheQueriesOfAdditionsAreDescribed(t *testing.T) {
	unused := maps.Clone(additionParameters)
	for path, operations := range readDescription(t).Paths {
		own := strings.TrimPrefix(path, ownPrefix)
		if additionParameters[own] != nil && len(operations) != 1 {
			t.Errorf("%s has %d methods, and they would share the query of one", path, len(operations))
		}
		delete(unused, own)
		for method, operation := range operations {
			taken := parametersOf(strings.ToUpper(method), own)
			delete(unused, strings.ToUpper(method)+" "+own)
			var got []string
			for _, p := range operation.Parameters {
				if p.In == "query" {
					got = append(got, p.Name)
				}
			}
			if want := slices.DeleteFunc(slices.Clone(taken), func(n string) bool { return n == "api-version" }); !slices.Equal(got, want) {
				t.Errorf("%s %s: described %v, taken %v", method, path, got, want)
			}
		}
	}
	if len(unused) > 0 {
		t.Errorf("queries of paths that are not described: %v", unused)
	}
}

func TestTheKindsOfAnExportAreDescribed(t *testing.T) {
	var kind struct{ Enum []string }
	if err := json.Unmarshal(readDescription(t).Components.Schemas["ExportLine"].Properties["kind"], &kind); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(kind.Enum, dps.ExportKinds()) {
		t.Errorf("described %v, exported %v", kind.Enum, dps.ExportKinds())
	}
}

// The members of the answers are those of the Go types, and those that are always there are required.
func TestDescribedFormsAreThoseOfTheAnswers(t *testing.T) {
	schemas := readDescription(t).Components.Schemas
	for name, of := range map[string]reflect.Type{
		"AuditLog": reflect.TypeFor[AuditLog](), "AuditLogEntry": reflect.TypeFor[AuditLogEntry](), "AuditEntry": reflect.TypeFor[AuditEntry](),
		"EventNote": reflect.TypeFor[EventNote](),
		"Decision":  reflect.TypeFor[Decision](), "DecisionRequest": reflect.TypeFor[DecisionOf](),
		"ImportFailure": reflect.TypeFor[ImportFailure](), "ImportSummary": reflect.TypeFor[ImportSummary](),
		"CACertificates": reflect.TypeFor[CACertificates](), "CACertificate": reflect.TypeFor[CACertificate](), "Statistics": reflect.TypeFor[Statistics](),
		"Scopes": reflect.TypeFor[Scopes](), "Scope": reflect.TypeFor[Scope](),
		"ExportKey": reflect.TypeFor[ExportKey](), "ExportHeader": reflect.TypeFor[dps.ExportHeader](), "ExportEnd": reflect.TypeFor[dps.ExportEnd](),
		"LinkedHubs": reflect.TypeFor[LinkedHubs](), "LinkedHub": reflect.TypeFor[LinkedHub](), "HubHealth": reflect.TypeFor[HubHealth](),
		"Allocation": reflect.TypeFor[Allocation](), "Region": reflect.TypeFor[registration.Region](), "WebhookKey": reflect.TypeFor[WebhookKey](),
		"AccessPolicies": reflect.TypeFor[AccessPolicies](), "AccessPolicy": reflect.TypeFor[AccessPolicy](),
	} {
		members, required := membersOf(of)
		if got := slices.Sorted(maps.Keys(schemas[name].Properties)); !slices.Equal(got, members) {
			t.Errorf("%s is described with %v, and has %v", name, got, members)
		}
		if got := slices.Sorted(slices.Values(schemas[name].Required)); !slices.Equal(got, required) {
			t.Errorf("%s requires %v, and always has %v", name, got, required)
		}
	}
}

func membersOf(of reflect.Type) (all, always []string) {
	for field := range of.Fields() {
		if field.Anonymous {
			inner, innerAlways := membersOf(field.Type)
			all, always = append(all, inner...), append(always, innerAlways...)
			continue
		}
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		all = append(all, name)
		if options != "omitempty" {
			always = append(always, name)
		}
	}
	slices.Sort(all)
	slices.Sort(always)
	return all, always
}

// A reference to nothing makes a document that no generator reads.
func TestEveryReferenceOfTheDescriptionLeadsSomewhere(t *testing.T) {
	var whole any
	decoder := json.NewDecoder(bytes.NewReader(openAPI))
	decoder.UseNumber()
	if err := decoder.Decode(&whole); err != nil {
		t.Fatal(err)
	}
	found := 0
	var walk func(at string, value any)
	walk = func(at string, value any) {
		switch v := value.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				found++
				if target := follow(whole, ref); target == nil {
					t.Errorf("%s: %s leads nowhere", at, ref)
				}
			}
			for name, member := range v {
				walk(at+"/"+name, member)
			}
		case []any:
			for i, member := range v {
				walk(fmt.Sprint(at, "/", i), member)
			}
		}
	}
	walk("#", whole)
	if found < 10 {
		t.Errorf("only %d references were found", found)
	}
}

func follow(value any, ref string) any {
	for _, name := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	return value
}
