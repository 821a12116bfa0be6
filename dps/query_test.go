package dps_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/dps"
)

const (
	entries = dps.CollectionEnrollments
	groups  = dps.CollectionEnrollmentGroups
	states  = dps.CollectionRegistrations
)

// TestQueriesHaveOneSpelling walks the grammar: each text and its normal form
// after WHERE ("" is everything).
func TestQueriesHaveOneSpelling(t *testing.T) {
	for text, want := range map[string]string{
		"*":                                                           "",
		" \t\r\n* ":                                                   "",
		"SELECT *":                                                    "",
		"select *":                                                    "",
		"SELECT * FROM enrollments":                                   "",
		"sElEcT*fRoM ENROLLMENTS":                                     "",
		"SELECT*WHERE etag='a'":                                       "etag = 'a'",
		"SELECT * WHERE registrationId='Ab'":                          "registrationId = 'ab'",
		"SELECT * WHERE deviceId = 'Ab'":                              "deviceId = 'ab'",
		"SELECT * WHERE etag = 'Ab'":                                  "etag = 'Ab'",
		`SELECT * WHERE etag = "it's"`:                                "etag = 'it''s'",
		`SELECT * WHERE etag = 'it''s'`:                               "etag = 'it''s'",
		`SELECT * WHERE etag = "a""b"`:                                `etag = 'a"b'`,
		`SELECT * WHERE etag = ''`:                                    "etag = ''",
		`SELECT * WHERE etag = 'Ärger; --'`:                           "etag = 'Ärger; --'",
		"SELECT * WHERE etag <> 'a'":                                  "etag != 'a'",
		"SELECT * WHERE etag!='a'":                                    "etag != 'a'",
		"SELECT * WHERE NOT etag = 'a'":                               "etag != 'a'",
		"SELECT * WHERE not not etag = 'a'":                           "etag = 'a'",
		"SELECT * WHERE NOT(etag != 'a')":                             "etag = 'a'",
		"SELECT * WHERE ((etag = 'a'))":                               "etag = 'a'",
		"SELECT * WHERE etag IN ('a')":                                "etag = 'a'",
		"SELECT * WHERE etag in('b','a',\"b\")":                       "etag IN ('a', 'b')",
		"SELECT * WHERE deviceId IN ('B','a','b')":                    "deviceId IN ('a', 'b')",
		"SELECT * WHERE capabilities.iotEdge = TRUE":                  "capabilities.iotEdge = true",
		"SELECT * WHERE reprovisionPolicy.migrateDeviceData <> False": "reprovisionPolicy.migrateDeviceData != false",
		"SELECT * WHERE registrationState.errorCode = 400208":         "registrationState.errorCode = 400208",
		"SELECT * WHERE registrationState.errorCode IN (-0, 007, -9223372036854775808)": "registrationState.errorCode IN (-9223372036854775808, 0, 7)",
		"SELECT * WHERE startswith(registrationId,'Press-')":                            "STARTSWITH(registrationId, 'press-')",
		"SELECT * WHERE NOT STARTSWITH ( registrationState.deviceId , '' )":             "NOT STARTSWITH(registrationState.deviceId, '')",
		"SELECT * WHERE etag='a'OR etag='b'AND etag='c'":                                "etag = 'a' OR etag = 'b' AND etag = 'c'",
		"SELECT * WHERE etag='a'OR(etag='b'AND etag='c')":                               "etag = 'a' OR etag = 'b' AND etag = 'c'",
		"SELECT * WHERE (etag='a'OR etag='b')AND etag='c'":                              "(etag = 'a' OR etag = 'b') AND etag = 'c'",
		"SELECT * WHERE etag='a'AND(etag='b'AND(etag='c'))":                             "etag = 'a' AND etag = 'b' AND etag = 'c'",
		"SELECT * WHERE (etag='a' OR etag='b') OR etag='c'":                             "etag = 'a' OR etag = 'b' OR etag = 'c'",
		"SELECT * WHERE NOT etag='a' AND etag='b'":                                      "etag != 'a' AND etag = 'b'",
		"SELECT * WHERE NOT (etag='a' AND etag='b')":                                    "NOT (etag = 'a' AND etag = 'b')",
		"SELECT * WHERE NOT etag IN ('a','b')":                                          "NOT etag IN ('a', 'b')",
		"SELECT * WHERE attestation.type = 'tpm' and provisioningStatus='enabled'":      "attestation.type = 'tpm' AND provisioningStatus = 'enabled'",
	} {
		q, err := dps.ParseQuery(text, entries)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if want != "" {
			want = " WHERE " + want
		} else if q.Where != nil {
			t.Errorf("%q is not everything", text)
		}
		if got := q.Canonical(); got != "SELECT * FROM enrollments"+want || q.Collection != entries {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// TestQueriesThatAreRefused: the text points at the place and holds nothing of
// the query's own.
func TestQueriesThatAreRefused(t *testing.T) {
	w := "SELECT * WHERE " // 15 characters
	for text, want := range map[string]string{
		"":                                       "position 1: expected SELECT * or *",
		"  ":                                     "position 3: expected SELECT * or *",
		"DELETE FROM enrollments":                "position 1: expected SELECT * or *",
		"* WHERE etag = 'a'":                     "position 3: expected the end after *",
		"SELECT":                                 "position 7: expected * after SELECT",
		"SELECT etag FROM enrollments":           "position 8: expected * after SELECT",
		"SELECT * FROM":                          "position 14: expected enrollments after FROM",
		"SELECT * FROM devices":                  "position 15: expected enrollments after FROM",
		"SELECT * FROM enrollmentGroups":         "position 15: expected enrollments after FROM",
		"SELECT * GROUP BY etag":                 "position 10: expected FROM, WHERE or the end",
		"SELECT * FROM enrollments x":            "position 27: expected FROM, WHERE or the end",
		"SELECT * FROM enrollments;":             "position 26: this character has no meaning here",
		"SELECT * WHERE":                         "position 15: expected a field",
		w + "= 'a'":                              "position 16: expected a field",
		w + "'a' = etag":                         "position 16: expected a field",
		w + "secret = 'a'":                       "position 16: expected a field, one of: registrationId, deviceId,",
		w + "ETag = 'a'":                         "position 16: expected etag in exactly these letters",
		w + "status = 'a'":                       "position 16: expected a field, one of:",
		w + "enrollmentGroupId = 'a'":            "position 16: expected a field, one of:",
		w + "etag":                               "position 20: expected =, !=, <> or IN after the field",
		w + "etag < 'a'":                         "position 21: this character has no meaning here",
		w + "etag ! 'a'":                         "position 21: this character has no meaning here",
		w + "etag LIKE 'a'":                      "position 21: expected =, !=, <> or IN after the field",
		w + "etag NOT IN ('a')":                  "position 21: expected =, !=, <> or IN after the field",
		w + "etag =":                             "position 22: expected a text in quotes",
		w + "etag = etag":                        "position 23: expected a text in quotes",
		w + "etag = 5":                           "position 23: expected a text in quotes",
		w + "etag = true":                        "position 23: expected a text in quotes",
		w + "etag = NULL":                        "position 23: expected a text in quotes",
		w + "etag == 'a'":                        "position 22: expected a text in quotes",
		w + "etag = 'a":                          "position 23: the text that begins here has no closing quote",
		w + "etag = 'a''":                        "position 23: the text that begins here has no closing quote",
		w + "etag = \"a'":                        "position 23: the text that begins here has no closing quote",
		w + "etag = 'a' 'b'":                     "position 27: expected AND, OR or the end",
		w + "etag = 'a' AND":                     "position 30: expected a field",
		w + "etag = 'ää' AND 'x'":                "position 32: expected a field",
		w + "etag = 'a\x00'":                     "position 25: a text must not hold control characters",
		w + "etag = 'a\n'":                       "position 25: a text must not hold control characters",
		w + "etag = 'a\x7f'":                     "position 25: a text must not hold control characters",
		w + "etag = 'a\xff'":                     "is not valid UTF-8",
		w + "etag\u00a0= 'a'":                    "position 20: this character has no meaning here",
		w + "etag IN":                            "position 23: expected ( after IN",
		w + "etag IN 'a'":                        "position 24: expected ( after IN",
		w + "etag IN ()":                         "position 25: expected a text in quotes",
		w + "etag IN ('a'":                       "position 28: expected ) or a comma",
		w + "etag IN ('a',)":                     "position 29: expected a text in quotes",
		w + "etag IN ('a' 'b')":                  "position 29: expected ) or a comma",
		w + "(etag = 'a'":                        "position 27: expected ) or AND or OR",
		w + "etag = 'a')":                        "position 26: expected AND, OR or the end",
		w + "()":                                 "position 17: expected a field",
		w + "NOT":                                "position 19: expected a field",
		w + "STARTSWITH":                         "position 26: expected ( after STARTSWITH",
		w + "STARTSWITH(etag, 'a')":              "position 27: STARTSWITH takes only fields that are ids",
		w + "STARTSWITH('a', deviceId)":          "position 27: expected a field",
		w + "STARTSWITH(deviceId)":               "position 35: expected , after the field",
		w + "STARTSWITH(deviceId, 5)":            "position 37: expected a text in quotes",
		w + "STARTSWITH(deviceId, 'a'":           "position 40: expected ) after the text",
		w + "capabilities.iotEdge = 'true'":      "position 39: expected true or false",
		w + "capabilities.iotEdge = 1":           "position 39: expected true or false",
		w + "registrationState.errorCode = 'a'":  "position 46: expected an integer",
		w + "registrationState.errorCode = true": "position 46: expected an integer",
		w + "registrationState.errorCode = -":    "position 46: this is not an integer",
		w + "registrationState.errorCode = 5x":   "position 46: this is not an integer",
		w + "registrationState.errorCode = 1.5":  "position 46: this is not an integer",
		w + "registrationState.errorCode = 1-2":  "position 47: expected AND, OR or the end",
		w + "registrationState.errorCode = +1":   "position 46: this character has no meaning here",
		w + "registrationState.errorCode = 9223372036854775808": "position 46: expected an integer of at most 64 bits",
		w + "etag = 'a' -- AND":                                 "position 27: this is not an integer",
	} {
		q, err := dps.ParseQuery(text, entries)
		checkRefusal(t, err, "query", want)
		if err != nil && !strings.HasPrefix(err.Error(), "query: "+want) {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(dps.Query{}, q); diff != "" {
			t.Errorf("%q: a refused query is not the zero one: %s", text, diff)
		}
	}
}

// TestBoundsOfAQuery: the last size that is accepted and the first that is not.
func TestBoundsOfAQuery(t *testing.T) {
	nested := func(n int) string {
		return "SELECT * WHERE " + strings.Repeat("(", n) + "etag='a'" + strings.Repeat(")", n)
	}
	negated := func(n int) string { return "SELECT * WHERE " + strings.Repeat("NOT ", n) + "etag='a'" }
	list := func(n int) string { return "SELECT * WHERE etag IN ('a'" + strings.Repeat(",'a'", n-1) + ")" }
	chain := func(n int) string { return "SELECT * WHERE etag='a'" + strings.Repeat("OR etag='a'", n-1) }
	long := func(n int) string { return "SELECT *" + strings.Repeat(" ", n-8) }
	for name, c := range map[string]struct {
		text  func(int) string
		limit int
		want  string
	}{
		"bytes":       {long, dps.MaxQuery, "is longer than 4096 bytes"},
		"parentheses": {nested, 32, "position 48: nested deeper than 32 levels"},
		"NOT":         {negated, 32, "position 144: nested deeper than 32 levels"},
		"IN":          {list, 100, "position 425: more than 100 values"},
		"OR":          {chain, 100, "position 1121: more than 100 values"},
	} {
		if _, err := dps.ParseQuery(c.text(c.limit), entries); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err := dps.ParseQuery(c.text(c.limit+1), entries)
		checkRefusal(t, err, "query", c.want)
	}
	_, err := dps.ParseQuery("SELECT * WHERE "+strings.Repeat("(", 4000), entries)
	checkRefusal(t, err, "query", "nested deeper")
}

// TestEachCollectionHasItsOwnFields: every field works where it belongs and
// nowhere else.
func TestEachCollectionHasItsOwnFields(t *testing.T) {
	all := map[dps.Collection]string{entries: "enrollments", groups: "enrollmentGroups", states: "deviceRegistrations"}
	values := map[bool]string{true: "true", false: "'a'"}
	for c, name := range all {
		if c.String() != name {
			t.Errorf("%v is not %s", c, name)
		}
		if _, err := dps.ParseQuery("SELECT * FROM "+strings.ToUpper(name), c); err != nil {
			t.Error(err)
		}
		for other := range all {
			if _, err := dps.ParseQuery("SELECT * FROM "+name, other); (err == nil) != (c == other) {
				t.Errorf("%s over %s: %v", name, other, err)
			}
			for _, f := range other.Fields() {
				value := values[strings.HasPrefix(string(f), "capab") || strings.HasPrefix(string(f), "reprov")]
				if strings.HasSuffix(string(f), "rrorCode") {
					value = "7"
				}
				_, err := dps.ParseQuery(fmt.Sprintf("SELECT * WHERE %s = %s", f, value), c)
				if (err == nil) != hasField(c, f) {
					t.Errorf("%s over %s: %v", f, c, err)
				}
			}
		}
	}
	if _, err := dps.ParseQuery("SELECT * WHERE etag = 'a'", dps.Collection(0)); err == nil {
		t.Error("a query over nothing has fields")
	}
}

func hasField(c dps.Collection, f dps.Field) bool { return slices.Contains(c.Fields(), f) }

// TestCanonicalTellsCollectionsApart: a continuation token of one must not
// continue another.
func TestCanonicalTellsCollectionsApart(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range []dps.Collection{entries, groups, states} {
		q, err := dps.ParseQuery("SELECT * WHERE etag = 'a'", c)
		if err != nil || seen[q.Canonical()] {
			t.Errorf("%s: %q, %v", c, q.Canonical(), err)
		}
		seen[q.Canonical()] = true
	}
}

func TestQueryBodiesOfClients(t *testing.T) {
	for _, c := range []struct {
		collection dps.Collection
		body       string
		member     string // refused there
		problem    string // empty: accepted
	}{
		{entries, `{"query":"SELECT * FROM enrollments"}`, "", ""},
		{entries, `{"query":"*","later":[1]}`, "", ""},
		{groups, ` {"query":"select * from enrollmentGroups"} `, "", ""},
		{states, `{"query":"*"}`, "", ""},
		{states, ``, "", ""},
		{states, " \r\n", "", ""},
		{states, `{}`, "", ""},
		{states, `{"query":null}`, "", ""},
		{states, `{"query":""}`, "query", "position 1: expected SELECT"},
		{states, `null`, "", "must be a JSON object"},
		{states, strings.Repeat(" ", dps.MaxMessage+1), "", "longer than"},
		{entries, ``, "", "not valid JSON"},
		{groups, ` `, "", "not valid JSON"},
		{entries, `{}`, "query", "is missing"},
		{groups, `{"query":null}`, "query", "is missing"},
		{entries, `{"query":["*"]}`, "query", "must be a string"},
		{entries, `{"Query":"*"}`, "query", "spelled"},
		{entries, `{"query":"*","query":"*"}`, "", "twice"},
		{entries, "{\"query\":\"\xff\"}", "", "UTF-8"},
		{entries, `{"query":"\u0000"}`, "query", "position 1: this character"},
		{entries, strings.Repeat(`{"query":`, 10000), "", "nested deeper"},
	} {
		q, err := dps.DecodeQuery([]byte(c.body), c.collection)
		if c.problem != "" {
			checkRefusal(t, err, c.member, c.problem)
		} else if err != nil || q.Where != nil || q.Collection != c.collection {
			t.Errorf("%.60q: %+v, %v", c.body, q, err)
		}
	}
	q, err := dps.DecodeQuery([]byte(`{"query":"SELECT \u002a WHERE etag = \"it's\""}`), entries)
	if err != nil || q.Canonical() != "SELECT * FROM enrollments WHERE etag = 'it''s'" {
		t.Errorf("%q, %v", q.Canonical(), err)
	}
}

// TestSelectsEnrollments judges real objects, so that each field is that of the
// wire.
func TestSelectsEnrollments(t *testing.T) {
	small, full := smallest(), fullest()
	full.RegistrationState = &dps.RegistrationState{Status: "failed", Substatus: "initialAssignment", AssignedHub: "hub-a", DeviceID: "Dev", ErrorCode: 400208}
	for where, want := range map[string][2]bool{ // small, full
		"registrationId = 'PRESS-07'":                           {true, false},
		"registrationId = 'line4-press-07'":                     {false, true},
		"STARTSWITH(registrationId, 'LINE4')":                   {false, true},
		"STARTSWITH(registrationId, '')":                        {true, true},
		"STARTSWITH(deviceId, '')":                              {false, true}, // it is there
		"STARTSWITH(registrationId, 'press-07-and-more')":       {false, false},
		"deviceId = 'PRESS(07)'":                                {false, true},
		"deviceId != 'x'":                                       {true, true},
		"deviceId IN ('x', 'press(07)')":                        {false, true},
		"NOT deviceId IN ('x', 'press(07)')":                    {true, false},
		"attestation.type = 'tpm'":                              {true, true},
		"attestation.type = 'TPM'":                              {false, false},
		"provisioningStatus = 'disabled'":                       {false, true},
		"allocationPolicy = 'custom'":                           {false, true},
		"iotHubHostName = 'hub-a.example.net'":                  {false, true},
		"etag = 'IjAw'":                                         {false, true},
		"capabilities.iotEdge = false":                          {false, true},
		"capabilities.iotEdge != true":                          {true, true},
		"reprovisionPolicy.updateHubAssignment = true":          {false, true},
		"reprovisionPolicy.migrateDeviceData = true":            {false, false},
		"reprovisionPolicy.migrateDeviceData = false":           {false, true},
		"registrationState.status = 'unassigned'":               {true, false},
		"registrationState.status = 'failed'":                   {false, true},
		"registrationState.substatus = 'initialAssignment'":     {false, true},
		"registrationState.assignedHub = 'hub-a'":               {false, true},
		"registrationState.assignedHub != 'hub-a'":              {true, false},
		"registrationState.deviceId = 'dev'":                    {false, true},
		"registrationState.errorCode = 400208":                  {false, true},
		"registrationState.errorCode != 400207":                 {true, true},
		"NOT registrationState.errorCode = 400208":              {true, false},
		"etag = 'no' OR etag = 'IjAw' AND deviceId = 'x'":       {false, false},
		"(etag = 'IjAw' OR deviceId = 'x') AND etag != 'other'": {false, true},
	} {
		q, err := dps.ParseQuery("SELECT * WHERE "+where, entries)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]bool{q.Where.Matches(small.Field), q.Where.Matches(full.Field)}; got != want {
			t.Errorf("%s: got %v, want %v", where, got, want)
		}
	}
}

func TestSelectsRegistrations(t *testing.T) {
	s := dps.RegistrationState{RegistrationID: "Press-07", DeviceID: "d", Status: "failed", Substatus: "reprovisionedToInitialAssignment",
		AssignedHub: "hub-a", ErrorCode: 400207, ETag: "IjAw"}
	for where, want := range map[string]bool{
		"registrationId = 'press-07'":                    true,
		"deviceId = 'D'":                                 true,
		"status = 'failed'":                              true,
		"substatus = 'reprovisionedToInitialAssignment'": true,
		"assignedHub = 'hub-a'":                          true,
		"assignedHub = 'HUB-A'":                          false,
		"errorCode IN (400207, 400208)":                  true,
		"etag = 'IjAw'":                                  true,
		"etag = 'ijaw'":                                  false,
	} {
		q, err := dps.ParseQuery("SELECT * FROM deviceRegistrations WHERE "+where, states)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.Where.Matches(s.Field); got != want {
			t.Errorf("%s: %v", where, got)
		}
		if got := q.Where.Matches((&dps.RegistrationState{}).Field); got {
			t.Errorf("%s: selects a state without any member", where)
		}
	}
	for _, c := range []dps.Collection{entries, groups} {
		for _, f := range c.Fields() {
			if v, ok := s.Field(f); ok && !hasField(states, f) {
				t.Errorf("a state has %s = %q", f, v)
			}
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, text := range []string{"*", "select *", "SELECT * FROM enrollments WHERE etag = 'a''b' OR NOT (deviceId <> \"x\" AND capabilities.iotEdge = true)",
		"SELECT * FROM enrollmentGroups WHERE STARTSWITH(enrollmentGroupId, 'A')", "SELECT * FROM deviceRegistrations WHERE errorCode IN (1, -2)"} {
		f.Add(text, 1)
		f.Add(text, 2)
		f.Add(text, 3)
	}
	f.Fuzz(func(t *testing.T, text string, collection int) {
		c := dps.Collection(collection)
		q, err := dps.ParseQuery(text, c)
		if err != nil {
			if field := (*dps.FieldError)(nil); !errors.As(err, &field) || field.Member != "query" || !cmp.Equal(q, dps.Query{}) {
				t.Fatalf("error %v, query %+v", err, q)
			}
			return
		}
		if q.Where != nil {
			q.Where.Matches(func(dps.Field) (string, bool) { return "a", true })
		}
		if c.Fields() == nil || len(q.Canonical()) > dps.MaxQuery {
			return // spaces and quotes can make it longer than it came
		}
		again, err := dps.ParseQuery(q.Canonical(), c)
		if err != nil || again.Canonical() != q.Canonical() || !cmp.Equal(q, again) {
			t.Fatalf("%q became %q became %q: %v", text, q.Canonical(), again.Canonical(), err)
		}
	})
}
