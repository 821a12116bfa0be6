package adminapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

const queryAll = `{"query":"SELECT * FROM enrollments"}`

// create makes enrollments of the chip.
func (h *house) create(ids ...string) {
	h.t.Helper()
	for _, id := range ids {
		h.owner(http.MethodPut, "/enrollments/"+id, enrollment("")).want(200)
	}
}

// query asks for a page; header is pairs.
func (h *house) query(body string, header ...string) answer {
	h.t.Helper()
	return h.owner(http.MethodPost, "/enrollments/query", body, header...)
}

// ids checks what every page has, and gives the ids on it.
func (a answer) ids() string {
	a.t.Helper()
	a.want(200)
	if a.header.Get("x-ms-item-type") != "Enrollment" || a.header.Get("Content-Type") != "application/json; charset=utf-8" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		a.t.Errorf("headers of a page: %v", a.header)
	}
	var items []struct{ RegistrationID string }
	unmarshal(a.t, a.body, &items)
	ids := []string{}
	for _, item := range items {
		ids = append(ids, item.RegistrationID)
	}
	return strings.Join(ids, " ")
}

// continuation is the header as it stands, and whether it is there at all: clients stop where it is not.
func (a answer) continuation() (token string, there bool) {
	values, there := a.header[http.CanonicalHeaderKey("x-ms-continuation")]
	if there && (len(values) != 1 || values[0] == "") {
		a.t.Errorf("x-ms-continuation is %q", values)
	}
	return strings.Join(values, ""), there
}

func TestPagesFollowEachOtherToTheLast(t *testing.T) {
	h := newHouse(t)
	h.create("d", "B", "a", "C")
	for size, pages := range map[string][]string{
		"1": {"a", "B", "C", "d"}, "2": {"a B", "C d"}, "3": {"a B C", "d"}, "4": {"a B C d"}, "5": {"a B C d"}, "1000": {"a B C d"},
		"1001": {"a B C d"}, "99999999999999999999": {"a B C d"}, "0": {"a B C d"}, "": {"a B C d"},
	} {
		var header []string
		if size != "" {
			header = []string{"x-ms-max-item-count", size}
		}
		for i, want := range pages {
			page := h.query(queryAll, header...)
			if got := page.ids(); got != want {
				t.Errorf("page %d of size %q: %q, want %q", i, size, got, want)
			}
			token, more := page.continuation()
			if more != (i < len(pages)-1) {
				t.Fatalf("page %d of size %q: continuation %q", i, size, token)
			}
			header = []string{"x-ms-max-item-count", size, "x-ms-continuation", token}
		}
	}
}

func TestAPageOfNothingIsAnEmptyArray(t *testing.T) {
	page := newHouse(t).query(queryAll)
	if _, more := page.continuation(); page.ids() != "" || page.body != "[]" || more {
		t.Errorf("%s, %v", page.body, page.header)
	}
}

func TestPageSizesThatAreNoneAreRefused(t *testing.T) {
	h := newHouse(t)
	for _, size := range []string{"-1", "-0", "+1", "1.5", "1e3", "ten", "0x10", "1 000", "1_000", "1,2", "٣", "NaN", strings.Repeat("9", 4000) + "x"} {
		h.because(h.query(queryAll, "x-ms-max-item-count", size).refused(dps.CodeBadRequest).says("x-ms-max-item-count must be a whole number, 0 or more."), "bad-request")
	}
}

func TestItemsOfAQueryAreEnrollmentsWithoutTheirState(t *testing.T) {
	h := newHouse(t)
	h.owner(http.MethodPut, "/enrollments/Pump", enrollment(`,"deviceId":"press","provisioningStatus":"disabled"`)).want(200)
	h.create("Valve")
	h.register("valve")
	var want []map[string]any
	for _, id := range []string{"pump", "valve"} {
		var whole map[string]any
		unmarshal(t, h.owner(http.MethodGet, "/enrollments/"+id, "").want(200).body, &whole)
		if whole["registrationState"] == nil || whole["provisioningStatus"] == nil || whole["etag"] == nil {
			t.Fatalf("%v", whole)
		}
		delete(whole, "registrationState")
		want = append(want, whole)
	}
	var got []map[string]any
	unmarshal(t, h.query(queryAll).body, &got)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("items %v, want %v", got, want)
	}
	for condition, want := range map[string]string{
		"registrationState.status = 'assigned'":                "Valve",
		"registrationState.status = 'unassigned'":              "Pump",
		"registrationState.assignedHub = '" + host + "'":       "Valve",
		"registrationState.assignedHub = '" + otherHost + "'":  "",
		"provisioningStatus = 'disabled' AND deviceId='PRESS'": "Pump",
	} {
		if got := h.query(fmt.Sprintf(`{"query":%q}`, "SELECT * FROM enrollments WHERE "+condition)).ids(); got != want {
			t.Errorf("%s: %q, want %q", condition, got, want)
		}
	}
}

func TestQueriesThatAreRefusedSayWhere(t *testing.T) {
	h := newHouse(t)
	for body, says := range map[string]string{
		``:             "not valid JSON",
		`{}`:           "query: is missing",
		`{"query":5}`:  "query: must be a string",
		`{"query":""}`: "query: position 1: expected SELECT",
		`{"query":"SELECT * FROM enrollmentGroups"}`:     "query: position 15: expected enrollments",
		`{"query":"SELECT * WHERE secret = 'a'"}`:        "query: position 16: expected a field",
		`{"query":"SELECT * WHERE etag = 'a' OR 1 = 1"}`: "query: position 30: expected a field",
	} {
		h.because(h.query(body).refused(dps.CodeBadRequest).says(says), "bad-request")
	}
	h.query(queryAll, "Content-Type", "text/plain").refused(dps.CodeUnsupportedMediaType)
}

func TestContinuationsThatAreOfSomethingElseAreRefused(t *testing.T) {
	h := newHouse(t)
	h.create("a", "b", "c")
	token, more := h.query(queryAll, "x-ms-max-item-count", "1").continuation()
	if !more {
		t.Fatal("no continuation")
	}
	altered := "A" + token[1:]
	if token[0] == 'A' {
		altered = "B" + token[1:]
	}
	const says = "x-ms-continuation: not a continuation of this query. Begin again without it."
	for name, other := range map[string]string{"altered": altered, "cut": token[:len(token)-1], "cut to nothing much": token[:3], "longer": token + "AA", "made up": base64.StdEncoding.EncodeToString([]byte(`[{"token":"+RID:1","range":{}}]`))} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			h.because(h.query(queryAll, "x-ms-continuation", other).refused(dps.CodeBadRequest).says(says), "bad-request")
		})
	}
	h.t = t
	h.query(`{"query":"SELECT * WHERE provisioningStatus = 'enabled'"}`, "x-ms-continuation", token).refused(dps.CodeBadRequest).says(says)
	foreign := spelled(key(otherScope, owner, "primary"), otherHost, owner, time.Now().Add(time.Hour))
	h.ask(http.MethodPost, "/enrollments/query"+version, queryAll, foreign, "Host", otherHost, "x-ms-continuation", token).refused(dps.CodeBadRequest).says(says)
	if got := h.query(`{"query":"select  *"}`, "x-ms-continuation", token).ids(); got != "b c" {
		t.Errorf("the same query in other words goes on with %q", got)
	}
	if got := h.query(queryAll, "x-ms-continuation", "").ids(); got != "a b c" {
		t.Errorf("an empty continuation begins with %q", got)
	}
}

// `query` is an id like others to all methods but POST.
func TestAnEnrollmentCanBeCalledQuery(t *testing.T) {
	h := newHouse(t)
	h.create("Query")
	for _, path := range []string{"/enrollments/query", "/enrollments/QUERY", "/Enrollments/Query/", "/ENROLLMENTS/qUERY/", "/enrollments/%71uery"} {
		if got := h.owner(http.MethodGet, path, "").want(200).json("registrationId"); got != "Query" {
			t.Errorf("GET %s: %q", path, got)
		}
		if got := h.owner(http.MethodPost, path, queryAll).ids(); got != "Query" {
			t.Errorf("POST %s: %q", path, got)
		}
	}
	if got := h.owner(http.MethodPost, "/enrollments/query/attestationmechanism", "").want(200).json("type"); got != "tpm" {
		t.Errorf("attestation of type %q", got)
	}
	h.because(h.owner(http.MethodPost, "/enrollments/queries", queryAll).refused(dps.CodeMethodNotAllowed), "method")
	h.owner(http.MethodDelete, "/enrollments/QUERY/", "").want(204)
	h.owner(http.MethodGet, "/enrollments/query", "").refused(dps.CodeNotEnrolled)
}

// bulk is the body of a bulk request; items are the members of enrollments.
func bulk(mode string, items ...string) string {
	return fmt.Sprintf(`{"enrollments":[%s],"mode":%q}`, strings.Join(items, ","), mode)
}

// item is an enrollment of the chip in a bulk request; more is further members, with a leading comma.
func item(id, more string) string {
	return fmt.Sprintf(`{"registrationId":%q,%s`, id, enrollment(more)[1:])
}

const allDone = `{"errors":[],"isSuccessful":true}`

func TestBulkRequestsAreAnsweredItemByItem(t *testing.T) {
	h := newHouse(t)
	ask := func(want string, mode string, items ...string) {
		t.Helper()
		if got := h.owner(http.MethodPost, "/enrollments", bulk(mode, items...)).want(200); got.body != want {
			t.Errorf("%s\n%s\nwant\n%s", mode, got.body, want)
		}
	}
	failed := func(errors ...string) string {
		return `{"errors":[` + strings.Join(errors, ",") + `],"isSuccessful":false}`
	}
	one := func(id string, code int, says string) string {
		return fmt.Sprintf(`{"registrationId":%q,"errorCode":%d,"errorStatus":%q}`, id, code, says)
	}
	etag := func(id string) string {
		return `,"etag":"` + h.owner(http.MethodGet, "/enrollments/"+id, "").want(200).json("etag") + `"`
	}
	exists := func(id string) string { return one(id, 409201, "Enrollment already exists.") }
	missing := func(id string) string { return one(id, 404201, "Enrollment not found.") }
	mismatch := func(id string) string {
		return one(id, 412001, "Precondition failed. The etag is not the current one; read the resource again.")
	}
	ask(allDone, "create", item("a", ""), item("B", ""), item("c", ""))
	stale := etag("a")
	ask(failed(exists("A"), exists("b")), "create", item("A", ""), item("d", ""), item("b", etag("b")))
	ask(failed(exists("a"), mismatch("absent"), mismatch("b")), "update", item("a", ""), item("absent", stale), item("b", stale), item("e", ""), item("c", etag("c")), item("d", `,"etag":"*"`))
	ask(allDone, "UPDATEIFMATCHETAG", item("a", stale+`,"deviceId":"x"`))
	ask(failed(one("a", 412001, "The item needs its etag."), mismatch("b"), mismatch("absent")), "updateIfMatchEtag", item("a", ""), item("b", stale), item("absent", `,"etag":"*"`), item("c", etag("c")))
	ask(failed(mismatch("a"), missing("absent")), "delete", item("a", stale), item("absent", ""), `{"registrationId":"b"}`, item("C", etag("c")), `{"registrationId":"d","etag":"*"}`)
	ask(failed(one("f", 400004, "attestation: is missing")), "create", item("g", ""), `{"registrationId":"f"}`, item("h", ""))
	if got := h.query(queryAll).ids(); got != "a e g h" {
		t.Errorf("left %q", got)
	}
}

func TestABulkRequestIsRefusedWhole(t *testing.T) {
	h := newHouse(t)
	var eleven []string
	for i := range 11 {
		eleven = append(eleven, item(fmt.Sprintf("n-%02d", i), ""))
	}
	for body, says := range map[string]string{
		bulk("create", eleven...):                         "enrollments: holds more than 10 items",
		bulk("create", item("a", ""), item("A", "")):      "enrollments[1].registrationId: is that of an earlier item",
		bulk("delete", item("a", ""), item("a", "")):      "enrollments[1].registrationId: is that of an earlier item",
		bulk("upsert", item("a", "")):                     "mode: must be one of: create, update, updateIfMatchETag, delete",
		bulk("", item("a", "")):                           "mode: must be one of",
		bulk("create"):                                    "enrollments: is missing or empty",
		bulk("create", item("a", ""), enrollment("")):     "enrollments[1].registrationId: is missing",
		bulk("create", item("a", ""), item("not ok", "")): "enrollments[1].registrationId",
		`{"enrollments":[` + item("a", "") + `]}`:         "mode: is missing",
		`{"enrollmentGroups":[],"mode":"create"}`:         "enrollments: is missing or empty",
		`[]`: "must be a JSON object",
		``:   "not valid JSON",
	} {
		h.because(h.owner(http.MethodPost, "/enrollments", body).refused(dps.CodeBadRequest).says(says), "bad-request")
	}
	if got := h.query(queryAll).ids(); got != "" {
		t.Errorf("refused requests left %q", got)
	}
	if got := h.owner(http.MethodPost, "/enrollments", bulk("create", eleven[:10]...)).want(200); got.body != allDone {
		t.Errorf("ten items: %s", got.body)
	}
}

func TestBulkIsServedWithATrailingSlashAndInAnyCase(t *testing.T) {
	h := newHouse(t)
	for i, path := range []string{"/enrollments", "/enrollments/", "/Enrollments", "/ENROLLMENTS/"} {
		if got := h.owner(http.MethodPost, path, bulk("create", item(fmt.Sprint("p-", i), ""))).want(200); got.body != allDone {
			t.Errorf("%s: %s", path, got.body)
		}
	}
	if got := h.query(queryAll).ids(); got != "p-0 p-1 p-2 p-3" {
		t.Errorf("created %q", got)
	}
}

// Every item that was done has a row of its own, and all carry the id that the answer names.
func TestTheAuditRowsOfABulkRequestCarryItsTrackingID(t *testing.T) {
	h := newHouse(t)
	h.create("there")
	done := h.owner(http.MethodPost, "/enrollments", bulk("create", item("One", ""), item("there", ""), item("two", ""))).want(200)
	var rows []struct{ Action, Object, Actor, Address, Outcome string }
	unmarshal(t, h.because(done, "managed").json("audit"), &rows)
	if got := fmt.Sprint(rows); got != "[{enrollment.put one policy:"+owner+" 127.0.0.1 ok} {enrollment.put two policy:"+owner+" 127.0.0.1 ok}]" {
		t.Errorf("audit %s", got)
	}
	if queried := h.query(queryAll).want(200); queried.header.Get("x-ms-request-id") == "" || h.because(queried, "managed").json("audit") != "[]" {
		t.Errorf("a query left an audit row, or has no tracking id: %v", queried.header)
	}
}

func TestListsNeedTheirRights(t *testing.T) {
	h := newHouse(t)
	h.create("e")
	for _, operation := range []struct {
		path, body string
		right      registration.Right
	}{
		{"/enrollments/query", queryAll, registration.EnrollmentRead},
		{"/enrollments", bulk("create", item("new", "")), registration.EnrollmentWrite},
		{"/enrollments/", bulk("delete", item("e", "")), registration.EnrollmentWrite},
		{"/enrollments/e/attestationmechanism", "", registration.EnrollmentWrite}, // reading is not enough: it shows keys
	} {
		for policy, holds := range rights {
			if holds&operation.right == 0 {
				h.because(h.ask(http.MethodPost, operation.path+version, operation.body, as(policy)).refused(dps.CodeUnauthorized), "admin-right")
			}
		}
		h.ask(http.MethodPost, operation.path+version, operation.body, "").refused(dps.CodeUnauthorized)
		h.ask(http.MethodPost, operation.path, operation.body, as(owner)).refused(dps.CodeBadRequest).says("api-version")
	}
	if got := h.query(queryAll).ids(); got != "e" {
		t.Fatalf("refused requests left %q", got)
	}
	h.ask(http.MethodPost, "/enrollments/query"+version, queryAll, as("enrollment-read")).want(200)
	h.ask(http.MethodPost, "/enrollments/e/attestationmechanism"+version, "", as("enrollment-write")).want(200)
	h.ask(http.MethodPost, "/enrollments"+version, bulk("delete", item("e", "")), as("enrollment-write")).want(200)
}

// Node sends an empty body to an all lower-case path, Java {}; whatever is sent is not looked at.
func TestTheAttestationMechanismIsShown(t *testing.T) {
	h := newHouse(t)
	ek, srk := b64(chip.EK.Bytes()), b64(chip.SRK.Bytes())
	h.owner(http.MethodPut, "/enrollments/Pinned", fmt.Sprintf(`{"attestation":{"type":"tpm","tpm":{"endorsementKey":%q,"storageRootKey":%q}}}`, ek, srk)).want(200)
	h.create("plain")
	var whole struct{ Attestation json.RawMessage }
	for id, want := range map[string]string{
		"pinned": fmt.Sprintf(`{"type":"tpm","tpm":{"endorsementKey":%q,"storageRootKey":%q}}`, ek, srk),
		"PLAIN":  fmt.Sprintf(`{"type":"tpm","tpm":{"endorsementKey":%q}}`, ek),
	} {
		for _, path := range []string{"/enrollments/%s/attestationmechanism", "/Enrollments/%s/AttestationMechanism/"} {
			path := fmt.Sprintf(path, id)
			for _, body := range []string{"", "{}", `"ignored"`, "not JSON"} {
				if got := h.owner(http.MethodPost, path, body).want(200); got.body != want {
					t.Errorf("%s with %q: %s, want %s", path, body, got.body, want)
				}
			}
			h.owner(http.MethodPost, path, "x", "Content-Type", "text/plain").want(200)
			h.because(h.owner(http.MethodGet, path, "").refused(dps.CodeMethodNotAllowed), "method")
		}
		unmarshal(t, h.owner(http.MethodGet, "/enrollments/"+id, "").want(200).body, &whole)
		if string(whole.Attestation) != want {
			t.Errorf("GET shows %s, want %s", whole.Attestation, want)
		}
	}
	h.because(h.owner(http.MethodPost, "/enrollments/absent/attestationmechanism", "").refused(dps.CodeNotEnrolled), "enrollment-missing")
	h.because(h.owner(http.MethodPost, "/enrollments/not%20ok/attestationmechanism", "").refused(dps.CodeBadRequest), "bad-id")
}

// A client that knows nothing but the headers meets each enrollment once, in order, while an operator works.
func TestAClientMeetsEveryEnrollmentOnceWhileOthersChange(t *testing.T) {
	h := newHouse(t)
	h.create("b", "d", "f", "h", "j")
	var met []string
	header := []string{"x-ms-max-item-count", "2"}
	for _, changes := range [][]string{{"DELETE d", "PUT a", "PUT i"}, {"PUT z", "DELETE b"}, {"PUT k", "DELETE a"}, nil} {
		page := h.query(queryAll, header...)
		met = append(met, strings.Fields(page.ids())...)
		token, more := page.continuation()
		if more != (changes != nil) {
			t.Fatalf("after %q: continuation %q", met, token)
		}
		header = []string{"x-ms-max-item-count", "2", "x-ms-continuation", token}
		for _, change := range changes {
			method, id, _ := strings.Cut(change, " ")
			h.owner(method, "/enrollments/"+id, enrollment(""))
		}
	}
	if want := strings.Fields("b d f h i j k z"); !slices.Equal(met, want) {
		t.Errorf("met %q, want %q", met, want)
	}
}
