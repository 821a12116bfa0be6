package adminapi_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// operation is one of the management API: the 15 of the imitated service, in the order of its table, and Latchkey's own.
type operation struct {
	method, path, body string
	needs              registration.Right
	status             int // of whoever may, in a scope that has nothing yet but what the steps before made
	home               bool
}

const (
	read, write             = registration.EnrollmentRead, registration.EnrollmentWrite
	statusRead, statusWrite = registration.RegistrationStatusRead, registration.RegistrationStatusWrite
	config                  = registration.ServiceConfig
)

const symmetric = `{"attestation":{"type":"symmetricKey"}}`

var operations = []operation{
	{"GET", "/enrollments/absent", "", read, 404, false},
	{"PUT", "/enrollments/e", symmetric, write, 200, false},
	{"DELETE", "/enrollments/e", "", write, 204, false},
	{"POST", "/enrollments", `{"mode":"create","enrollments":[{"registrationId":"e","attestation":{"type":"symmetricKey"}}]}`, write, 200, false},
	{"POST", "/enrollments/query", `{"query":"SELECT *"}`, read, 200, false},
	{"POST", "/enrollments/e/attestationmechanism", "", write, 200, false},
	{"GET", "/enrollmentGroups/absent", "", read, 404, false},
	{"PUT", "/enrollmentGroups/g", symmetric, write, 200, false},
	{"DELETE", "/enrollmentGroups/g", "", write, 204, false},
	{"POST", "/enrollmentGroups", `{"mode":"create","enrollmentGroups":[{"enrollmentGroupId":"g","attestation":{"type":"symmetricKey"}}]}`, write, 200, false},
	{"POST", "/enrollmentGroups/query", `{"query":"SELECT *"}`, read, 200, false},
	{"POST", "/enrollmentGroups/g/attestationmechanism", "", write, 200, false},
	{"GET", "/registrations/absent", "", statusRead, 404, false},
	{"DELETE", "/registrations/absent", "", statusWrite, 404, false},
	{"POST", "/registrations/g/query", "", statusRead, 200, false},

	{"GET", "/latchkey/v1/decisions/00000000-0000-0000-0000-000000000000", "", statusRead, 404, false},
	{"GET", "/latchkey/v1/audit", "", read | statusRead, 200, false},
	{"GET", "/latchkey/v1/statistics", "", read | statusRead, 200, false},
	{"GET", "/latchkey/v1/transfers", "", read, 200, false},
	{"POST", "/latchkey/v1/transfers", `{"code":"lkt1-absent"}`, write, 404, false},
	{"PUT", "/latchkey/v1/transfers/absent", `{"to":"0lk00000000"}`, write | statusWrite, 404, false},
	{"DELETE", "/latchkey/v1/transfers/absent", "", write | statusWrite, 404, false},
	{"POST", "/latchkey/v1/registrations/query", "", statusRead, 200, false},
	{"POST", "/latchkey/v1/enrollments/import", "", write, 200, false},
	{"GET", "/latchkey/v1/enrollments/export", "", read, 200, false},
	{"GET", "/latchkey/v1/export", "", read | statusRead, 200, false},
	{"GET", "/latchkey/v1/exportKey", "", read, 200, false},
	{"GET", "/latchkey/v1/caCertificates", "", read, 200, false},
	{"GET", "/latchkey/v1/caCertificates/absent", "", read, 404, false},
	{"PUT", "/latchkey/v1/caCertificates/c", `{}`, write, 400, false},
	{"POST", "/latchkey/v1/caCertificates/c/verify", `{}`, write, 400, false},
	{"DELETE", "/latchkey/v1/caCertificates/c", "", write, 404, false},
	{"GET", "/latchkey/v1/accessPolicies", "", config, 200, false},
	{"GET", "/latchkey/v1/accessPolicies/reader", "", config, 200, false},
	{"PUT", "/latchkey/v1/accessPolicies/made", `{"rights":["EnrollmentRead"]}`, config, 200, false},
	{"POST", "/latchkey/v1/accessPolicies/made/regenerate", `{"key":"primary"}`, config, 200, false},
	{"DELETE", "/latchkey/v1/accessPolicies/made", "", config, 204, false},
	{"GET", "/latchkey/v1/hubs", "", config, 200, false},
	{"GET", "/latchkey/v1/hubs/absent.example.net", "", config, 404, false},
	{"PUT", "/latchkey/v1/hubs/hub.example.net", `{"kind":"azure"}`, config, 200, false},
	{"PATCH", "/latchkey/v1/hubs/hub.example.net", `{"weight":3}`, config, 200, false},
	{"DELETE", "/latchkey/v1/hubs/hub.example.net", "", config, 204, false},
	{"GET", "/latchkey/v1/allocation", "", config, 200, false},
	{"PATCH", "/latchkey/v1/allocation", `{"defaultPolicy":"static"}`, config, 200, false},
	{"POST", "/latchkey/v1/allocation/webhookKey", "", config, 200, false},
	{"DELETE", "/latchkey/v1/allocation/webhookKey", "", config, 204, false},
	{"GET", "/latchkey/v1/hub/events", "", registration.ServiceConnect, 503, false}, // this house has none that could be watched
	{"GET", "/latchkey/v1/scopes", "", config, 200, true},
	{"POST", "/latchkey/v1/scopes", `{}`, config, 400, true},
	{"GET", "/latchkey/v1/scopes/absent", "", config, 404, true},
	{"DELETE", "/latchkey/v1/scopes/absent", "", config, 404, true},
}

func (o operation) media() string {
	if strings.HasSuffix(o.path, "/import") {
		return "application/x-ndjson"
	}
	return "application/json"
}

// Every operation × every access policy, and for each the tokens that count for nobody.
func TestEveryOperationIsOnlyForThoseWhoMay(t *testing.T) {
	h := newHouse(t)
	hour := time.Now().Add(time.Hour)
	primary := key(scope, owner, "primary")
	strangers := map[string]struct{ token, host string }{
		"no token":             {"", host},
		"an expired token":     {spelled(primary, host, owner, time.Now().Add(-time.Hour)), host},
		"for another host":     {spelled(primary, otherHost, owner, hour), host},
		"for another path":     {spelled(primary, host+"/somewhere", owner, hour), host},
		"of the wrong scope":   {spelled(key(otherScope, owner, "primary"), host, owner, hour), host},
		"at the wrong scope":   {as(owner), otherHost},
		"with a wrong key":     {spelled(key(scope, owner, "third"), host, owner, hour), host},
		"of an unknown policy": {spelled(primary, host, "nobody", hour), host},
	}
	for _, o := range operations {
		name := o.method + " " + o.path
		for who, s := range strangers {
			a := h.ask(o.method, o.path+version, o.body, s.token, "Host", s.host, "Content-Type", o.media())
			if a.status != 401 || a.json("errorCode") != "401002" {
				t.Errorf("%s, %s: %d %s", name, who, a.status, a.body)
			}
		}
		for policy, has := range rights {
			if has&o.needs == o.needs {
				continue
			}
			a := h.ask(o.method, o.path+version, o.body, as(policy), "Content-Type", o.media())
			if a.status != 401 || a.json("errorCode") != "401002" {
				t.Errorf("%s by %s: %d %s", name, policy, a.status, a.body)
			}
		}
		if o.home { // this house has no home scope, so nobody may
			h.because(h.ask(o.method, o.path+version, o.body, as(owner)).refused(dps.CodeUnauthorized), "not-home")
			continue
		}
		if a := h.ask(o.method, o.path+version, o.body, as(owner), "Content-Type", o.media()); a.status != o.status {
			t.Errorf("%s by the owner: %d, want %d: %s", name, a.status, o.status, a.body)
		}
	}
}

// imitated are the 15 operations of the imitated service, by the form of their paths.
var imitated = map[string][]string{
	"/enrollments":                                {"POST"},
	"/enrollments/query":                          {"POST"},
	"/enrollments/{id}":                           {"DELETE", "GET", "PUT"},
	"/enrollments/{id}/attestationmechanism":      {"POST"},
	"/enrollmentGroups":                           {"POST"},
	"/enrollmentGroups/query":                     {"POST"},
	"/enrollmentGroups/{id}":                      {"DELETE", "GET", "PUT"},
	"/enrollmentGroups/{id}/attestationmechanism": {"POST"},
	"/registrations/{id}":                         {"DELETE", "GET"},
	"/registrations/{id}/query":                   {"POST"},
}

const openDescription = "/latchkey/v1/openapi.json" // needs no token

// published are the operations of the reference and of the description that the service itself hands out, without the open one.
func published(t *testing.T, h *house) map[string][]string {
	t.Helper()
	var described struct {
		Paths map[string]map[string]json.RawMessage
	}
	must(t, json.Unmarshal([]byte(h.ask("GET", openDescription, "", "").want(200).body), &described))
	all := maps.Clone(imitated)
	for path, methods := range described.Paths {
		for method := range methods {
			all[path] = append(all[path], strings.ToUpper(method))
		}
		slices.Sort(all[path])
	}
	delete(all, openDescription)
	// What brokers ask is another room's: no access policy is asked for.
	maps.DeleteFunc(all, func(path string, _ []string) bool { return strings.HasPrefix(path, "/latchkey/v1/broker/") })
	return all
}

// formOf is the published path that a path is one of; a fixed segment goes before an id.
func formOf(all map[string][]string, path string) string {
	if _, fixed := all[path]; fixed {
		return path
	}
	got := strings.Split(path, "/")
	for _, form := range slices.Sorted(maps.Keys(all)) {
		parts := strings.Split(form, "/")
		if slices.EqualFunc(parts, got, func(part, segment string) bool { return part == segment || strings.HasPrefix(part, "{") }) {
			return form
		}
	}
	return ""
}

// The matrix holds every published operation and no other; the router serves these and no others.
func TestTheMatrixHasEveryOperation(t *testing.T) {
	h := newHouse(t)
	all := published(t, h)
	matrix := map[string][]string{}
	for _, o := range operations {
		form := formOf(all, o.path)
		matrix[form] = append(matrix[form], o.method)
	}
	for _, methods := range matrix {
		slices.Sort(methods)
	}
	if !reflect.DeepEqual(matrix, all) {
		t.Errorf("the matrix has %v\npublished are %v", matrix, all)
	}
	for form, methods := range all {
		path := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(form, "example")
		if strings.HasSuffix(form, "s/query") && form[1] == 'e' { // an entry may have that id
			methods = append(slices.Clone(methods), all[strings.TrimSuffix(form, "query")+"{id}"]...)
		}
		for _, method := range []string{"GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"} {
			want := 405
			if slices.Contains(methods, method) {
				want = 401
			}
			if a := h.ask(method, path+version, "", ""); a.status != want {
				t.Errorf("%s %s without a token: %d, want %d", method, path, a.status, want)
			}
		}
	}
}

// Paths of every form that the router could know are published, or not there.
func TestNoPathIsServedThatIsNotPublished(t *testing.T) {
	h := newHouse(t)
	all := published(t, h)
	words := map[string]bool{"example": true, "query": true, "attestationmechanism": true}
	for path := range all {
		for _, s := range strings.Split(path, "/") {
			words[s] = s != "" && !strings.HasPrefix(s, "{")
		}
	}
	maps.DeleteFunc(words, func(_ string, word bool) bool { return !word })
	asked := 0
	var walk func(path string, depth int)
	walk = func(path string, depth int) {
		if depth == 0 {
			return
		}
		for word := range words {
			below := path + "/" + word
			asked++
			if got := h.ask("OPTIONS", below+version, "", "").status; (got == 405) != (formOf(all, below) != "" || below == openDescription) {
				t.Errorf("%s: %d", below, got)
			}
			walk(below, depth-1)
		}
	}
	for _, first := range []string{"/enrollments", "/enrollmentGroups", "/registrations"} {
		walk(first, 2)
	}
	walk("/latchkey", 1)
	walk("/latchkey/v1", 2)
	if asked < 1000 {
		t.Errorf("only %d paths were asked", asked)
	}
}

// A misspelt member of a query is refused by every addition, to whoever may; api-version is taken by all.
func TestEveryAdditionRefusesAForeignQuery(t *testing.T) {
	h := newHouse(t)
	for _, o := range operations {
		if !strings.HasPrefix(o.path, "/latchkey/v1/") || o.home {
			continue
		}
		for _, query := range []string{"?misspelt=1", version + "&Format=csv", version + "&api-version=2021-10-01", "?%zz"} {
			a := h.ask(o.method, o.path+query, o.body, as(owner), "Content-Type", o.media())
			if a.status != 400 || !strings.Contains(a.json("message"), "query") {
				t.Errorf("%s %s%s: %d %s", o.method, o.path, query, a.status, a.body)
			}
			if a := h.ask(o.method, o.path+query, o.body, as("service-config"), "Content-Type", o.media()); o.needs != config && a.status != 401 {
				t.Errorf("%s %s%s by one who may not: %d", o.method, o.path, query, a.status)
			}
		}
		for _, query := range []string{"", version} {
			if a := h.ask(o.method, o.path+query, o.body, as(owner), "Content-Type", o.media()); a.status != o.status {
				t.Errorf("%s %s%s: %d %s", o.method, o.path, query, a.status, a.body)
			}
			if o.status == 204 || o.method == "PUT" && strings.Contains(o.path, "/hubs/") { // done once
				break
			}
		}
	}
}

// What one scope holds is not there for the other, whatever it is asked with.
func TestNothingOfAScopeIsSeenFromAnother(t *testing.T) {
	h := newHouse(t)
	mine := func(method, path, body string) answer { t.Helper(); return h.owner(method, path, body) }
	theirToken := spelled(key(otherScope, owner, "primary"), otherHost, owner, time.Now().Add(time.Hour))
	theirs := func(method, path, body string, header ...string) answer {
		t.Helper()
		return h.ask(method, path+version, body, theirToken, append([]string{"Host", otherHost}, header...)...)
	}
	mine("PUT", "/enrollments/e", enrollment("")).want(200)
	mine("PUT", "/enrollments/e2", symmetric).want(200)
	mine("PUT", "/enrollmentGroups/g", symmetric).want(200)
	h.register("e")
	for _, request := range [][3]string{
		{"GET", "/enrollments/e", ""}, {"DELETE", "/enrollments/e", ""}, {"POST", "/enrollments/e2/attestationmechanism", ""},
		{"GET", "/enrollmentGroups/g", ""}, {"DELETE", "/enrollmentGroups/g", ""}, {"POST", "/enrollmentGroups/g/attestationmechanism", ""},
		{"GET", "/registrations/e", ""}, {"DELETE", "/registrations/e", ""},
	} {
		theirs(request[0], request[1], request[2]).want(404)
	}
	theirs("PUT", "/enrollments/e", enrollment(""), "If-Match", "*").refused(dps.CodePreconditionFailed)
	for _, path := range []string{"/enrollments/query", "/enrollmentGroups/query", "/registrations/g/query", "/latchkey/v1/registrations/query"} {
		if a := theirs("POST", path, `{"query":"SELECT *"}`).want(200); a.body != "[]" {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	page := h.owner("POST", "/enrollments/query", `{"query":"SELECT *"}`, "x-ms-max-item-count", "1").want(200)
	theirs("POST", "/enrollments/query", `{"query":"SELECT *"}`, "x-ms-continuation", page.header.Get("x-ms-continuation")).refused(dps.CodeBadRequest)
	for path, secret := range map[string]string{"/latchkey/v1/audit": `"e"`, "/latchkey/v1/enrollments/export": "endorsementKey", "/latchkey/v1/export": `"kind":"enrollment`, "/latchkey/v1/statistics": "tpm"} {
		if a := theirs("GET", path, "").want(200); strings.Contains(a.body, secret) {
			t.Errorf("%s shows %s: %s", path, secret, a.body)
		}
	}
	refused := mine("GET", "/enrollments/nobody", "").refused(dps.CodeNotEnrolled)
	theirs("GET", "/latchkey/v1/decisions/"+refused.json("trackingId"), "").want(404)
	mine("GET", "/enrollments/e", "").want(200)
	if statistics := mine("GET", "/latchkey/v1/statistics", ""); statistics.json("enrollments", "tpm") != "1" || statistics.json("enrollmentGroups", "symmetricKey") != "1" || statistics.json("registrations", "assigned") != "1" {
		t.Errorf("statistics %s", statistics.body)
	}
}

// Quirks of paths that clients have: fixed segments in any letter case, a slash at the end, ids encoded or not.
func TestGroupsAreFoundUnderEveryClientsSpelling(t *testing.T) {
	h := newHouse(t)
	h.owner("PUT", "/enrollmentGroups/Line:4", symmetric).want(200)
	for _, path := range []string{"/enrollmentGroups/Line:4", "/enrollmentgroups/line%3A4", "/ENROLLMENTGROUPS/LINE%3a4", "/enrollmentGroups/Line:4/"} {
		if a := h.owner("GET", path, "").want(200); a.json("enrollmentGroupId") != "Line:4" {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	h.owner("POST", "/enrollmentgroups/line%3A4/attestationmechanism", "{}").want(200)
	h.owner("POST", "/enrollmentgroups/line%3A4/attestationMechanism", "").want(200)
	h.owner("POST", "/enrollmentGroups/", `{"mode":"DELETE","enrollmentGroups":[{"enrollmentGroupId":"LINE:4"}]}`).want(200)
	h.owner("GET", "/enrollmentGroups/Line:4", "").refused(dps.CodeGroupNotFound).says("EnrollmentGroup")
	h.owner("PUT", "/enrollmentGroups/query", symmetric).want(200)
	h.owner("GET", "/enrollmentGroups/query", "").want(200) // a group of that name
	h.owner("POST", "/enrollmentGroups/query", `{"query":"*"}`).want(200)
	h.owner("POST", "/registrations/query/query", "").want(200)
}

func TestAGroupsEtagFollowsTheMatrixOfThePutRules(t *testing.T) {
	h := newHouse(t)
	put := func(header ...string) answer {
		t.Helper()
		return h.owner("PUT", "/enrollmentGroups/g", symmetric, header...)
	}
	put("If-Match", "*").refused(dps.CodePreconditionFailed)
	put("If-Match", "AAAA").refused(dps.CodePreconditionFailed)
	made := put().want(200)
	put().refused(dps.CodeGroupExists)
	put("If-Match", "AAAA").refused(dps.CodePreconditionFailed)
	again := put("If-Match", `"`+made.json("etag")+`"`).want(200)
	if again.json("etag") == made.json("etag") || again.json("attestation") != made.json("attestation") || again.json("createdDateTimeUtc") != made.json("createdDateTimeUtc") {
		t.Errorf("replaced: %s after %s", again.body, made.body)
	}
	put("If-Match", made.json("etag")).refused(dps.CodePreconditionFailed)
	put("If-Match", `W/"`+again.json("etag")+`"`).want(200)
	h.owner("DELETE", "/enrollmentGroups/g", "", "If-Match", made.json("etag")).refused(dps.CodePreconditionFailed)
	deleted := h.owner("DELETE", "/enrollmentGroups/g", "", "If-Match", "*").want(204)
	if deleted.body != "" || deleted.header.Get("Content-Type") != "" {
		t.Errorf("a delete answers %q of type %q", deleted.body, deleted.header.Get("Content-Type"))
	}
	h.owner("DELETE", "/enrollmentGroups/g", "").refused(dps.CodeGroupNotFound)
}

func TestBulkOfGroupsHasItsModes(t *testing.T) {
	h := newHouse(t)
	group := func(id, more string) string {
		return `{"enrollmentGroupId":"` + id + `","attestation":{"type":"symmetricKey"}` + more + `}`
	}
	bulk := func(mode string, items ...string) answer {
		t.Helper()
		return h.owner("POST", "/enrollmentGroups", `{"enrollmentGroups":[`+strings.Join(items, ",")+`],"mode":"`+mode+`"}`)
	}
	if a := bulk("create", group("a", ""), group("b", "")).want(200); a.body != `{"errors":[],"isSuccessful":true}` {
		t.Errorf("create: %s", a.body)
	}
	if a := bulk("create", group("a", ""), `{"enrollmentGroupId":"t","attestation":{"type":"tpm","tpm":{"endorsementKey":"AToA"}}}`, group("c", "")).want(200); !strings.HasPrefix(a.body,
		`{"errors":[{"enrollmentGroupId":"a","errorCode":409202,"errorStatus":"EnrollmentGroup already exists."},{"enrollmentGroupId":"t","errorCode":400004,`) || a.json("isSuccessful") != "false" {
		t.Errorf("create again: %s", a.body)
	}
	etag := h.owner("GET", "/enrollmentGroups/c", "").want(200).json("etag")
	if a := bulk("update", group("a", ""), group("c", `,"etag":"`+etag+`"`), group("d", "")).want(200); !strings.Contains(a.body, `"enrollmentGroupId":"a","errorCode":409202`) || strings.Contains(a.body, `"c"`) || strings.Contains(a.body, `"d"`) {
		t.Errorf("update: %s", a.body)
	}
	if a := bulk("updateIfMatchEtag", group("c", `,"etag":"`+etag+`"`), group("d", ""), group("x", `,"etag":"AAAA"`)).want(200); strings.Count(a.body, "412001") != 3 {
		t.Errorf("updateIfMatchETag: %s", a.body)
	}
	if a := bulk("delete", group("a", ""), group("nobody", "")).want(200); a.json("isSuccessful") != "false" || strings.Count(a.body, "404202") != 1 {
		t.Errorf("delete: %s", a.body)
	}
	bulk("create", group("same", ""), group("SAME", "")).refused(dps.CodeBadRequest)
	bulk("replace", group("z", "")).refused(dps.CodeBadRequest)
	var many []string
	for _, id := range strings.Fields("1 2 3 4 5 6 7 8 9 10 11") {
		many = append(many, group("n"+id, ""))
	}
	bulk("create", many...).refused(dps.CodeBadRequest)
}

// Every row of the table of validation rules, and of the catalogue of errors, that this API decides: exact status and errorCode, for enrollments
// and groups alike.
func TestEveryRowOfTheCatalogueAndTheValidationTable(t *testing.T) {
	h := newHouse(t)
	tpm := `"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + b64(chip.EK.Bytes()) + `"}}`
	sym := `"attestation":{"type":"symmetricKey"}`
	const hubs = "Enrollment allocationPolicy must be specified when iotHubs are specified."
	const custom = "A CustomAllocationDefinition is required when the allocation policy is set to 'Custom'"
	long := strings.Repeat("a", 129)
	for _, row := range []struct {
		name, method, path, body string
		header                   []string
		code                     dps.Code
		says                     string
	}{
		{"id of 129 characters", "PUT", "/enrollments/" + long, "{" + tpm + "}", nil, 400004, "1 to 128"},
		{"id that ends with a dot", "PUT", "/enrollments/a.", "{" + tpm + "}", nil, 400004, "letter, digit or dash"},
		{"id with a blank", "PUT", "/enrollments/a%20b", "{" + tpm + "}", nil, 400004, "1 to 128"},
		{"id like a path", "PUT", "/enrollments/..%2Fetc%2Fpasswd", "{" + tpm + "}", nil, 400004, "1 to 128"},
		{"id like SQL", "PUT", "/enrollments/a'%20OR%20'1'='1", "{" + tpm + "}", nil, 400004, "1 to 128"},
		{"id with NUL", "GET", "/enrollments/a%00b", "", nil, 400004, "1 to 128"},
		{"id of a group with a slash", "PUT", "/enrollmentGroups/a%2Fb", "{" + sym + "}", nil, 400004, "1 to 128"},
		{"ids that differ", "PUT", "/enrollments/a", `{"registrationId":"b",` + tpm + "}", nil, 400004, "path"},
		{"ids of a group that differ", "PUT", "/enrollmentGroups/a", `{"enrollmentGroupId":"b",` + sym + "}", nil, 400004, "path"},
		{"device id", "PUT", "/enrollments/a", `{"deviceId":"a/b",` + tpm + "}", nil, 400004, "deviceId"},
		{"EK", "PUT", "/enrollments/a", `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"YQ=="}}}`, nil, 400004, "Endorsement key is invalid, or does not match the Enrollment."},
		{"group of TPMs", "PUT", "/enrollmentGroups/a", "{" + tpm + "}", nil, 400004, "individual enrollments"},
		{"hubs without policy", "PUT", "/enrollments/a", `{"iotHubs":["` + host + `"],` + tpm + "}", nil, 400004, hubs},
		{"hubs of a group without policy", "PUT", "/enrollmentGroups/a", `{"iotHubs":["` + host + `"],` + sym + "}", nil, 400004, hubs},
		{"custom without definition", "PUT", "/enrollments/a", `{"allocationPolicy":"custom",` + tpm + "}", nil, 400004, custom},
		{"custom of a group without definition", "PUT", "/enrollmentGroups/a", `{"allocationPolicy":"custom",` + sym + "}", nil, 400004, custom},
		{"hub that is not linked", "PUT", "/enrollments/a", `{"allocationPolicy":"static","iotHubs":["x.example.net"],` + tpm + "}", nil, 400004, "linked"},
		{"short symmetric key", "PUT", "/enrollments/a", `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"YQ=="}}}`, nil, 400004, "16 to 64"},
		{"attestation none", "PUT", "/enrollments/a", `{"attestation":{"type":"none"}}`, nil, 400004, "attestation.type"},
		{"no attestation", "PUT", "/enrollmentGroups/a", `{"attestation":null}`, nil, 400004, "attestation"},
		{"x509 without certificates", "PUT", "/enrollmentGroups/a", `{"attestation":{"type":"x509","x509":{}}}`, nil, 400004, "signingCertificates or caReferences"},
		{"not a certificate", "PUT", "/enrollments/a", `{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":"YQ=="}}}}}`, nil, 400004, "X.509"},
		{"unknown CA", "PUT", "/enrollmentGroups/a", `{"attestation":{"type":"x509","x509":{"caReferences":{"primary":"none"}}}}`, nil, 400004, "no verified CA certificate named none"},
		{"10,000 deep", "PUT", "/enrollmentGroups/a", `{"initialTwin":{"tags":` + strings.Repeat(`{"a":`, 10000) + "1" + strings.Repeat("}", 10000) + "}," + sym + "}", nil, 400004, "deep"},
		{"duplicate keys", "PUT", "/enrollmentGroups/a", "{" + sym + "," + sym + "}", nil, 400004, "twice"},
		{"invalid UTF-8", "PUT", "/enrollmentGroups/a", `{"iotHubHostName":"` + "\xff" + `",` + sym + "}", nil, 400004, "UTF-8"},
		{"97 KB", "PUT", "/enrollmentGroups/a", `{"initialTwin":{"tags":{"a":"` + strings.Repeat("x", 97<<10) + `"}},` + sym + "}", nil, 413001, ""},
		{"query of another collection", "POST", "/enrollmentGroups/query", `{"query":"SELECT * FROM enrollments"}`, nil, 400004, "position"},
		{"query of a foreign field", "POST", "/enrollmentGroups/query", `{"query":"SELECT * WHERE deviceId = 'a'"}`, nil, 400004, "position"},
		{"negative page", "POST", "/enrollmentGroups/query", `{"query":"*"}`, []string{"x-ms-max-item-count", "-1"}, 400004, "x-ms-max-item-count"},
		{"tampered continuation", "POST", "/enrollmentGroups/query", `{"query":"*"}`, []string{"x-ms-continuation", "AAAAAAAAAAAAAAAAAAAAAAAA"}, 400004, "x-ms-continuation"},
		{"tampered continuation of registrations", "POST", "/registrations/g/query", "", []string{"x-ms-continuation", "!"}, 400004, "x-ms-continuation"},

		{"401002", "GET", "/enrollments/a", "", []string{"Authorization", "SharedAccessSignature sr=x&sig=x&se=1"}, 401002, ""},
		{"404201", "GET", "/enrollments/a", "", nil, 404201, "Enrollment not found."},
		{"404201 for a delete", "DELETE", "/enrollments/a", "", nil, 404201, ""},
		{"404202 for a group", "GET", "/enrollmentGroups/a", "", nil, 404202, "EnrollmentGroup not found."},
		{"404202 for a registration", "GET", "/registrations/a", "", nil, 404202, "Registration not found."},
		{"405000", "PATCH", "/enrollmentGroups/a", "", nil, 405000, ""},
		{"405000 for a missing id", "GET", "/enrollmentGroups", "", nil, 405000, ""},
		{"409201", "PUT", "/enrollments/there", "{" + tpm + "}", nil, 409201, "already exists"},
		{"409202", "PUT", "/enrollmentGroups/there", "{" + sym + "}", nil, 409202, "already exists"},
		{"412001", "PUT", "/enrollments/there", "{" + tpm + "}", []string{"If-Match", "AAAA"}, 412001, ""},
		{"412001 for a group", "DELETE", "/enrollmentGroups/there", "", []string{"If-Match", "AAAA"}, 412001, ""},
		{"415000", "PUT", "/enrollmentGroups/a", "{" + sym + "}", []string{"Content-Type", "text/xml"}, 415000, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			h.t = t
			if row.name == "id of 129 characters" { // what must be there for later rows
				h.owner(http.MethodPut, "/enrollments/there", "{"+tpm+"}").want(200)
				h.owner(http.MethodPut, "/enrollmentGroups/there", "{"+sym+"}").want(200)
			}
			h.owner(row.method, row.path, row.body, row.header...).refused(row.code).says(row.says)
		})
	}
	h.t = t
	for path, want := range map[string]string{"/enrollments/query": "there", "/enrollmentGroups/query": "there"} {
		a := h.owner("POST", path, `{"query":"*"}`).want(200)
		if strings.Count(a.body, `"etag"`) != 1 || !strings.Contains(a.body, want) {
			t.Errorf("what was refused left %s", a.body)
		}
	}
}
