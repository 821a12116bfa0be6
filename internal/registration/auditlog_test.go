package registration_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// log walks the audit log of a caller's scope to its end, and gives its lines and where to follow from.
func (w *world) log(by registration.Caller, filter registration.AuditFilter, size int, from string) (lines []registration.AuditLine, next string) {
	w.Helper()
	for {
		page, err := w.core.AuditLog(w.ctx, by, filter, size, from)
		w.must(err)
		lines = append(lines, page.Lines...)
		if size > 0 && len(page.Lines) > size || page.Next == "" || page.Continuation != "" && page.Continuation != page.Next {
			w.Fatalf("a page of %d for size %d, continuation %q, next %q", len(page.Lines), size, page.Continuation, page.Next)
		}
		if page.Continuation == "" {
			return lines, page.Next
		}
		from = page.Continuation
	}
}

func deeds(lines []registration.AuditLine) string {
	var all []string
	for _, line := range lines {
		all = append(all, line.Action+" "+line.Object)
	}
	return strings.Join(all, ", ")
}

func TestTheLogTellsWhatHappenedInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("Pump").register()
	w.enrolled("valve")
	w.must(w.core.DeleteRegistration(w.ctx, operator, "PUMP", ""))
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "Valve", ""))
	const want = "scope.create " + scopeOne + ", scope.create " + scopeTwo + ", enrollment.put pump, device.register pump, device.assign pump, enrollment.put valve, registration.delete pump, enrollment.delete valve"
	for size := range 9 {
		lines, _ := w.log(operator, registration.AuditFilter{}, size, "")
		if got := deeds(lines); got != want {
			t.Errorf("in pages of %d: %s, want %s", size, got, want)
		}
	}
	foreign := operator
	foreign.Scope = scopeTwo
	if lines, _ := w.log(foreign, registration.AuditFilter{}, 0, ""); deeds(lines) != "scope.create "+scopeTwo {
		t.Errorf("the other scope shows %s", deeds(lines))
	}
}

func TestTheLogIsFiltered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("Pump").register()
	w.clock.advance(time.Hour)
	second := w.clock.Now()
	w.enrolled("valve")
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", ""))
	for _, c := range []struct {
		filter registration.AuditFilter
		want   string
	}{
		{registration.AuditFilter{Object: "PUMP"}, "enrollment.put pump, device.register pump, device.assign pump, enrollment.delete pump"},
		{registration.AuditFilter{Action: registration.ActionEnrollmentPut}, "enrollment.put pump, enrollment.put valve"},
		{registration.AuditFilter{Since: second}, "enrollment.put valve, enrollment.delete pump"},
		{registration.AuditFilter{Since: second.Add(time.Microsecond)}, ""},
		{registration.AuditFilter{Object: "pump", Action: registration.ActionEnrollmentPut, Since: second}, ""},
		{registration.AuditFilter{Object: "pump", Since: second}, "enrollment.delete pump"},
		{registration.AuditFilter{Object: "pum"}, ""},
		{registration.AuditFilter{Object: "pump' OR '1'='1"}, ""},
		{registration.AuditFilter{Object: scopeOne}, "scope.create " + scopeOne},
	} {
		for size := range 4 {
			if lines, _ := w.log(operator, c.filter, size, ""); deeds(lines) != c.want {
				t.Errorf("%+v in pages of %d: %s, want %s", c.filter, size, deeds(lines), c.want)
			}
		}
	}
	for _, wrong := range []string{"enrollment", "ENROLLMENT.PUT", "enrollment.put ", "x"} {
		_, err := w.core.AuditLog(w.ctx, operator, registration.AuditFilter{Action: wrong}, 0, "")
		if fault := w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadRequest); !strings.Contains(fault.Detail, "enrollment.put, enrollment.delete") {
			t.Errorf("%q: told %q", wrong, fault.Detail)
		}
	}
}

// Who has read to the end goes on from there, and meets only what was written since, whether or not the last rows matched.
func TestTheLogCanBeFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	puts := registration.AuditFilter{Action: registration.ActionEnrollmentPut}
	lines, next := w.log(operator, puts, 0, "")
	if len(lines) > 0 {
		t.Fatalf("at first: %s", deeds(lines))
	}
	for _, id := range []string{"a", "b"} {
		w.enrolled(id).register() // ends with rows that do not match
		if lines, next = w.log(operator, puts, 0, next); deeds(lines) != "enrollment.put "+id {
			t.Errorf("after %s: %s", id, deeds(lines))
		}
		if lines, again := w.log(operator, puts, 0, next); len(lines) != 0 || again != next {
			t.Errorf("nothing was written, and the log goes on with %s", deeds(lines))
		}
	}
	if lines, _ = w.log(operator, puts, 0, ""); deeds(lines) != "enrollment.put a, enrollment.put b" {
		t.Errorf("from the first: %s", deeds(lines))
	}
}

func TestACursorIsOfOneFilterInOneScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("a")
	filter := registration.AuditFilter{Object: "a", Action: registration.ActionEnrollmentPut, Since: epoch}
	_, next := w.log(operator, filter, 1, "")
	refused := func(what string, by registration.Caller, filter registration.AuditFilter, continuation string) {
		t.Helper()
		page, err := w.core.AuditLog(w.ctx, by, filter, 1, continuation)
		fault := w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadRequest)
		if !strings.HasPrefix(fault.Detail, "continuation: ") || page.Lines != nil || page.Next != "" {
			t.Errorf("%s: told %q, with %+v", what, fault.Detail, page)
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(next)
	w.must(err)
	for i := range raw {
		altered := slices.Clone(raw)
		altered[i] ^= 1
		refused("altered", operator, filter, base64.RawURLEncoding.EncodeToString(altered))
	}
	foreign := operator
	foreign.Scope = scopeTwo
	refused("of another scope", foreign, filter, next)
	for _, change := range []func(*registration.AuditFilter){
		func(f *registration.AuditFilter) { f.Object = "b" },
		func(f *registration.AuditFilter) { f.Object = `a" "enrollment.put` },
		func(f *registration.AuditFilter) { f.Action = "" },
		func(f *registration.AuditFilter) { f.Since = epoch.Add(time.Nanosecond) },
	} {
		other := filter
		change(&other)
		refused("of another filter", operator, other, next)
	}
	query, err := w.core.QueryEnrollments(w.ctx, operator, w.parse(everything), 1, "")
	w.must(err)
	w.enrolled("b")
	if query, err = w.core.QueryEnrollments(w.ctx, operator, w.parse(everything), 1, query.Continuation); err != nil || query.Continuation == "" {
		t.Fatalf("%+v, %v", query, err)
	}
	refused("of a query", operator, filter, query.Continuation)
	_, err = w.core.QueryEnrollments(w.ctx, operator, w.parse(everything), 1, next)
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadRequest)
	// The same filter in other words goes on, after a restart too.
	same := registration.AuditFilter{Object: "A", Action: filter.Action, Since: epoch.In(time.FixedZone("", 3600))}
	_, err = w.newCore().AuditLog(w.ctx, operator, same, 1, next)
	w.must(err)
}

// longLog is a store with a long audit log. It counts the rows read of it.
type longLog struct {
	registration.Store
	rows    []registration.AuditLine
	read    int
	longest int // limit asked for
}

func (l *longLog) AuditPage(_ context.Context, _ string, after uint64, limit int) ([]registration.AuditLine, error) {
	from := sort.Search(len(l.rows), func(i int) bool { return l.rows[i].Seq > after })
	rows := l.rows[from:min(from+limit, len(l.rows))]
	l.read, l.longest = l.read+len(rows), max(l.longest, limit)
	return rows, nil
}

// Objects that repeat seldom make the log read far for little: each page still costs no more than its budget.
func TestAPageOfTheLogIsMadeOfABoundedNumberOfRows(t *testing.T) {
	t.Parallel()
	const budget = 10_000
	w := newWorld(t)
	long := &longLog{Store: w.inner}
	for i := range 20_400 {
		object := "pump"
		if i == 5_199 || i == 20_399 {
			object = "valve"
		}
		long.rows = append(long.rows, registration.AuditLine{Seq: uint64(2*i + 1), Audit: registration.Audit{At: epoch, Object: object}})
	}
	core, err := registration.New(w.ctx, registration.Config{Store: long, Hub: w.hub, Sealer: w.ring, Now: w.clock.Now, Rand: w.rand, Logger: slog.New(slog.DiscardHandler)})
	w.must(err)
	var pages []int
	continuation := ""
	for more := true; more; more = continuation != "" {
		long.read = 0
		page, err := core.AuditLog(w.ctx, operator, registration.AuditFilter{Object: "valve"}, 2, continuation)
		w.must(err)
		pages, continuation = append(pages, len(page.Lines)), page.Continuation
		if long.read > budget || continuation != "" && long.read < budget {
			t.Errorf("%d rows read for one page", long.read)
		}
	}
	if fmt.Sprint(pages) != "[1 0 1]" || long.longest > 500 {
		t.Errorf("pages of %v, %d rows asked for at once", pages, long.longest)
	}
	for size, want := range map[int]int{0: 100, -1: 100, 501: 501, math.MaxInt32: registration.MaxPage} {
		page, err := core.AuditLog(w.ctx, operator, registration.AuditFilter{}, size, "")
		w.must(err)
		if len(page.Lines) != want || page.Continuation == "" {
			t.Errorf("size %d: %d lines", size, len(page.Lines))
		}
	}
}

func TestTheLogWithTheStoreDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	w.store.failNext("AuditPage", 1, before)
	if page, err := w.core.AuditLog(w.ctx, operator, registration.AuditFilter{}, 0, ""); !d.retryable(err) || page.Next != "" {
		t.Errorf("%+v, %v", page, err)
	}
}

// lastDetail is what the newest row of an action tells.
func (w *world) lastDetail(action string) string {
	w.Helper()
	lines, _ := w.log(operator, registration.AuditFilter{Action: action}, 0, "")
	if len(lines) == 0 {
		w.Fatalf("no row of %s", action)
	}
	return lines[len(lines)-1].Detail
}

func TestChangesAreToldBeforeAndAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("Pump", softtpm.ECC, 0)
	d.enroll("", nil)
	key := fmt.Sprintf("%x", w.snapshot("pump").Enrollment.EKKeyID)
	plain := `{"mechanism":"tpm","ekKeyId":"` + key + `","provisioningStatus":"enabled","pinned":false}`
	full := `{"mechanism":"tpm","ekKeyId":"` + key + `","deviceId":"press-7","provisioningStatus":"disabled","pinned":true,"pinnedSrk":"` + digest(string(d.chip.SRK.Bytes())) + `",` +
		`"allocationPolicy":"static","iotHubs":["` + hubOne + `"],"webhook":"` + digest("https://f.example/?code=secret") + `","iotEdge":true,` +
		`"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":false},"tags":"` + digest(`{"canary":"Zm9yZ2Vk"}`) + `",` +
		`"desired":"` + digest(`{"rate":5}`) + `","optionalDeviceInformation":"` + digest(`{"note":1}`) + `"}`
	same := func(action, want string) {
		t.Helper()
		if got := w.lastDetail(action); got != want {
			t.Errorf("%s tells\n%s\nwant\n%s", action, got, want)
		}
	}
	same(registration.ActionEnrollmentPut, `{"before":null,"after":`+plain+`}`)
	encode := base64.StdEncoding.EncodeToString
	pinned := map[string]any{"type": "tpm", "tpm": map[string]any{"endorsementKey": encode(d.chip.EK.Bytes()), "storageRootKey": encode(d.chip.SRK.Bytes())}}
	change := map[string]any{"deviceId": "press-7", "provisioningStatus": "disabled", "allocationPolicy": "static", "attestation": pinned,
		"initialTwin": map[string]any{"tags": map[string]any{"canary": "Zm9yZ2Vk"}, "properties": map[string]any{"desired": map[string]any{"rate": 5}}},
		"iotHubs":     []string{hubOne}, "capabilities": map[string]any{"iotEdge": true}, "reprovisionPolicy": map[string]any{"migrateDeviceData": false},
		"customAllocationDefinition": map[string]any{"webhookUrl": "https://f.example/?code=secret", "apiVersion": "2021-10-01"}, "optionalDeviceInformation": map[string]any{"note": 1}}
	d.enroll("*", change)
	same(registration.ActionEnrollmentPut, `{"before":`+plain+`,"after":`+full+`}`)
	w.store.beforeNext("DeleteEnrollment", func() { d.enroll("*", nil) }) // somebody changes it between the read and the delete
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", ""))
	same(registration.ActionEnrollmentDelete, `{"before":`+plain+`,"after":null}`)

	d.enroll("", nil)
	d.register()
	w.must(w.core.DeleteRegistration(w.ctx, operator, "pump", ""))
	same(registration.ActionRegistrationDelete, `{"before":{"status":"assigned","substatus":"initialAssignment","hub":"`+hubOne+`","deviceId":"Pump","mechanism":"tpm","ekKeyId":"`+key+`"},"after":null}`)
}

func digest(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// An enrollment whose document cannot be read, which no release wrote, can still be removed.
func TestABrokenEnrollmentCanBeDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("pump")
	row := *w.snapshot("pump").Enrollment
	row.Document = []byte(`{"attestation":`)
	_, verdict, err := w.inner.PutEnrollment(w.ctx, scopeOne, row, pointer(registration.AnyRevision), registration.Audit{At: epoch}, "")
	w.must(err)
	if verdict != registration.Applied {
		t.Fatalf("verdict %d", verdict)
	}
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", ""))
	if detail := w.lastDetail(registration.ActionEnrollmentDelete); !strings.HasPrefix(detail, `{"before":{"mechanism":"tpm","ekKeyId":"`) {
		t.Errorf("told %s", detail)
	}
}

// Every action can be asked for: the set that filters know is the set of constants.
func TestTheSetOfActionsIsWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file, err := parser.ParseFile(token.NewFileSet(), "audit.go", nil, 0)
	w.must(err)
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Action") {
			return true
		}
		found++
		action, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		w.must(err)
		if _, err := w.core.AuditLog(w.ctx, operator, registration.AuditFilter{Action: action}, 0, ""); err != nil {
			t.Errorf("%s: %v", spec.Names[0].Name, err)
		}
		return true
	})
	if found < 9 {
		t.Errorf("only %d actions were found", found)
	}
}
