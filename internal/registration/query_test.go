package registration_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

const everything = "SELECT * FROM enrollments"

func (w *world) parse(text string) dps.Query {
	w.Helper()
	q, err := dps.ParseQuery(text, dps.CollectionEnrollments)
	w.must(err)
	return q
}

// walk follows a query to its end and gives the ids of each page, folded. Whatever it meets, a walk ends: a page that is neither the last
// nor leads on has made no way.
func (w *world) walk(core *registration.Core, text string, size int) (pages [][]string) {
	w.Helper()
	q, continuation := w.parse(text), ""
	for {
		page, err := core.QueryEnrollments(w.ctx, operator, q, size, continuation)
		w.must(err)
		pages = append(pages, idsOf(page))
		if page.Continuation == "" {
			return pages
		}
		if page.Continuation == continuation {
			w.Fatalf("%s: the walk stands still", text)
		}
		continuation = page.Continuation
	}
}

func idsOf(page registration.Page[dps.IndividualEnrollment]) (ids []string) {
	for _, e := range page.Items {
		ids = append(ids, dps.FoldID(e.RegistrationID))
	}
	return ids
}

func TestPagesAreOfTheSizeAskedForAndTheLastLeadsNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, id := range []string{"d-4", "D-1", "d-6", "d-3", "D-5", "d-2"} {
		change := map[string]any{"deviceId": id}
		if i%3 == 2 { // d-6 and d-2: rows that do not match stand first to last
			change["provisioningStatus"] = "disabled"
		}
		w.device(id, softtpm.ECC, 0).enroll("", change)
	}
	for text, ids := range map[string][]string{
		everything: {"d-1", "d-2", "d-3", "d-4", "d-5", "d-6"},
		"SELECT * WHERE provisioningStatus = 'enabled'":  {"d-1", "d-3", "d-4", "d-5"},
		"SELECT * WHERE provisioningStatus = 'disabled'": {"d-2", "d-6"},
		"SELECT * WHERE registrationId = 'D-1'":          {"d-1"},
		"SELECT * WHERE registrationId = 'absent'":       nil,
	} {
		for size := 1; size <= 7; size++ {
			want := slices.Collect(slices.Chunk(ids, size)) // never an empty page at the end
			if ids == nil {
				want = [][]string{nil}
			}
			if got := w.walk(w.core, text, size); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s in pages of %d: %q, want %q", text, size, got, want)
			}
		}
	}
}

func TestItemsOfAPageAreTheEnrollmentsWithoutTheirState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("Pump").register()
	page, err := w.core.QueryEnrollments(w.ctx, operator, w.parse(everything), 0, "")
	w.must(err)
	want, err := w.core.Enrollment(w.ctx, operator, "pump")
	w.must(err)
	if want.RegistrationState == nil || want.RegistrationState.Status != dps.StatusAssigned {
		t.Fatalf("read %+v", want)
	}
	want.RegistrationState = nil
	if len(page.Items) != 1 || page.Items[0].RegistrationState != nil || !bytes.Equal(page.Items[0].Encode(), want.Encode()) {
		t.Errorf("page %+v, want %s", page, want.Encode())
	}
}

func TestAQueryStaysInItsScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("pump")
	foreign := operator
	foreign.Scope = scopeTwo
	_, err := w.core.PutEnrollment(w.ctx, foreign, w.device("valve", softtpm.ECC, 0).wire(nil), "")
	w.must(err)
	for by, want := range map[registration.Caller]string{operator: "[pump]", foreign: "[valve]"} {
		page, err := w.core.QueryEnrollments(w.ctx, by, w.parse(everything), 0, "")
		w.must(err)
		if got := fmt.Sprint(idsOf(page)); got != want || page.Continuation != "" {
			t.Errorf("scope %s shows %s", by.Scope, got)
		}
	}
}

func TestTheStateOfTheRegistrationCanBeAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("idle")
	w.enrolled("done").register()
	w.hub.failNext("EnsureDevice", 1, before)
	waiting := w.enrolled("waiting")
	_, err := waiting.prove(waiting.token(waiting.challenge(), registration.OperationWindow))
	w.must(err)
	for condition, want := range map[string]string{
		"registrationState.status = 'unassigned'":                                             "[idle]",
		"registrationState.status = 'assigning'":                                              "[waiting]",
		"registrationState.status = 'assigned'":                                               "[done]",
		"registrationState.status != 'assigned'":                                              "[idle waiting]",
		"registrationState.status IN ('assigned','unassigned')":                               "[done idle]",
		"registrationState.assignedHub = '" + hubOne + "'":                                    "[done]",
		"registrationState.assignedHub != '" + hubOne + "'":                                   "[idle waiting]",
		"registrationState.assignedHub = '" + hubTwo + "'":                                    "[]",
		"registrationState.status = 'assigned' AND registrationId = 'idle'":                   "[]",
		"registrationState.substatus = 'initialAssignment' OR registrationId = 'IDLE'":        "[done idle]",
		"NOT (registrationState.status = 'assigned' OR registrationState.status='assigning')": "[idle]",
	} {
		page, err := w.core.QueryEnrollments(w.ctx, operator, w.parse("SELECT * FROM enrollments WHERE "+condition), 0, "")
		w.must(err)
		if got := fmt.Sprint(idsOf(page)); got != want {
			t.Errorf("%s: %s, want %s", condition, got, want)
		}
	}
	w.must(w.core.DeleteRegistration(w.ctx, operator, "done", ""))
	if got := w.walk(w.core, "SELECT * WHERE registrationState.status = 'unassigned'", 0); fmt.Sprint(got) != "[[done idle]]" {
		t.Errorf("after its registration was deleted: %s", got)
	}
}

// Enrollments that stay are met once each, in order, whatever is made and deleted between the pages and during them.
func TestAWalkMeetsWhatStaysOnceWhileOthersComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	chance := rand.New(rand.NewPCG(seedOf(t), 0))
	others := &churn{world: w, there: map[string]bool{}}
	var stay []string
	for i := range 30 {
		if id := fmt.Sprintf("%02d", i); i%2 == 0 {
			w.enrolled(id)
			stay = append(stay, id)
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // at any moment
		defer close(stopped)
		background := &churn{world: w, there: map[string]bool{}}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				background.toggle(fmt.Sprintf("%02d-b", i%30))
			}
		}
	}()
	for _, size := range []int{1, 2, 7} {
		var met []string
		q, continuation := w.parse(everything), ""
		for more := true; more; more = continuation != "" {
			page, err := w.core.QueryEnrollments(w.ctx, operator, q, size, continuation)
			w.must(err)
			met, continuation = append(met, idsOf(page)...), page.Continuation
			if size > 1 {
				others.toggle(fmt.Sprintf("%02d", chance.IntN(15)*2+1))
			}
			if n := len(met); n > 0 && others.there[met[n-1]] {
				others.toggle(met[n-1]) // the very row that the continuation names
			}
		}
		if !sort.StringsAreSorted(met) || len(slices.Compact(slices.Clone(met))) != len(met) {
			t.Errorf("in pages of %d: not in order, or twice: %q", size, met)
		}
		met = slices.DeleteFunc(met, func(id string) bool { return !slices.Contains(stay, id) })
		if !slices.Equal(met, stay) {
			t.Errorf("in pages of %d: met %q of %q", size, met, stay)
		}
	}
	close(stop)
	<-stopped
}

// churn makes and deletes enrollments.
type churn struct {
	*world
	there map[string]bool
}

func (c *churn) toggle(id string) {
	var err error
	if c.there[id] {
		err = c.core.DeleteEnrollment(c.ctx, operator, id, "")
	} else {
		d := device{world: c.world, scope: scopeOne, id: id, chip: softtpm.New(softtpm.ECC, 0)}
		_, err = c.core.PutEnrollment(c.ctx, operator, d.wire(nil), "")
	}
	if err != nil {
		c.Errorf("%s: %v", id, err)
	}
	c.there[id] = !c.there[id]
}

func TestAContinuationIsOfOneQueryInOneScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range []string{"a", "b", "c"} {
		w.enrolled(id)
	}
	text := "SELECT * FROM enrollments WHERE registrationId IN ('a', 'b', 'c')"
	first, err := w.core.QueryEnrollments(w.ctx, operator, w.parse(text), 1, "")
	w.must(err)
	refused := func(what string, by registration.Caller, text, continuation string) {
		t.Helper()
		page, err := w.core.QueryEnrollments(w.ctx, by, w.parse(text), 1, continuation)
		fault := w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadRequest)
		if fault.Detail != "x-ms-continuation: not a continuation of this query. Begin again without it." || page.Items != nil {
			t.Errorf("%s: told %q, with %+v", what, fault.Detail, page)
		}
	}
	for i := range first.Continuation {
		for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. ") {
			if c != first.Continuation[i] {
				refused("altered", operator, text, first.Continuation[:i]+string(c)+first.Continuation[i+1:])
			}
		}
		if i > 0 {
			refused("cut", operator, text, first.Continuation[:i])
			refused("cut in front", operator, text, first.Continuation[i:])
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(first.Continuation)
	w.must(err)
	for _, other := range []string{first.Continuation + "A", first.Continuation + "AAAA", first.Continuation + first.Continuation, first.Continuation + "=", "!", "ä", "AAAA", strings.Repeat("A", 1<<16),
		base64.RawURLEncoding.EncodeToString(append(raw, 0)), base64.RawURLEncoding.EncodeToString(raw[:16])} {
		refused("made up", operator, text, other)
	}
	foreign := operator
	foreign.Scope = scopeTwo
	refused("of another scope", foreign, text, first.Continuation)
	for _, other := range []string{everything, text + " AND registrationId != 'b'", "SELECT * WHERE registrationId IN ('a', 'b', 'c', 'd')", "SELECT * WHERE NOT registrationId IN ('a','b','c')"} {
		refused("of another query", operator, other, first.Continuation)
	}
	// The same query in other words goes on, in pages of another size, after a restart and after the row that it names is gone.
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "a", ""))
	rest, err := w.newCore().QueryEnrollments(w.ctx, operator, w.parse(`select * where registrationId in ("C",'b','A')`), 2, " "+first.Continuation)
	w.must(err)
	if got := fmt.Sprint(idsOf(rest)); got != "[b c]" || rest.Continuation != "" {
		t.Errorf("went on with %s, %q", got, rest.Continuation)
	}
}

// crowd is a store with many enrollments, made from one real one. It counts the rows read of it, and can fail.
type crowd struct {
	registration.Store
	rows []registration.Listed

	mu      sync.Mutex
	read    int
	longest int // limit asked for
	fails   int // the call that fails, counting from 1
	calls   int
}

// crowded is a core on so many enrollments. Every step-th is disabled.
func (w *world) crowded(n, step int) (*registration.Core, *crowd) {
	w.Helper()
	one, other := w.device("pump-000000", softtpm.ECC, 0), w.device("pump-000001", softtpm.ECC, 0)
	one.enroll("", nil)
	other.enroll("", disabled)
	enabledRow, disabledRow := *w.snapshot(one.id).Enrollment, *w.snapshot(other.id).Enrollment
	c := &crowd{Store: w.inner}
	for i := range n {
		row := enabledRow
		if step > 0 && i%step == step-1 {
			row = disabledRow
		}
		id := fmt.Sprintf("pump-%06d", i)
		row.Document = bytes.Replace(row.Document, []byte(row.ID), []byte(id), 1)
		row.ID = id
		c.rows = append(c.rows, registration.Listed{Enrollment: row})
	}
	core, err := registration.New(w.ctx, registration.Config{Store: c, Hub: w.hub, Sealer: w.ring, Now: w.clock.Now, Rand: w.rand, Logger: slog.New(slog.DiscardHandler)})
	w.must(err)
	return core, c
}

func (c *crowd) Enrollments(_ context.Context, _, after string, limit int) ([]registration.Listed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if c.calls == c.fails {
		return nil, errInjected
	}
	from := sort.Search(len(c.rows), func(i int) bool { return c.rows[i].Enrollment.ID > after })
	rows := c.rows[from:min(from+limit, len(c.rows))]
	c.read, c.longest = c.read+len(rows), max(c.longest, limit)
	return rows, nil
}

func TestThePageSizeHasADefaultAndALimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	core, _ := w.crowded(registration.MaxPage+1, 0)
	for size, want := range map[int]int{0: 100, 1: 1, 501: 501, registration.MaxPage: 1000, math.MaxInt32: 1000} {
		page, err := core.QueryEnrollments(w.ctx, operator, w.parse(everything), size, "")
		w.must(err)
		if len(page.Items) != want || page.Continuation == "" {
			t.Errorf("size %d: %d items, continuation %q; want %d", size, len(page.Items), page.Continuation, want)
		}
	}
	for _, size := range []int{500, 1000} { // sizes at which the store's own chunks end
		pages := w.walk(core, everything, size)
		if all := slices.Concat(pages...); len(all) != registration.MaxPage+1 || len(pages) != registration.MaxPage/size+1 {
			t.Errorf("in pages of %d: %d items, %d pages", size, len(all), len(pages))
		}
	}
}

// What costs much and finds little comes back with little, and can be gone on with to the end.
func TestAPageIsMadeOfABoundedNumberOfRows(t *testing.T) {
	t.Parallel()
	const budget = 10_000
	w := newWorld(t)
	core, rows := w.crowded(10_400, 5_200) // the 5,200th and the last are disabled
	for text, want := range map[string]string{
		"SELECT * WHERE registrationId = 'pump-010300'":  "[[] [pump-010300]]",
		"SELECT * WHERE provisioningStatus = 'disabled'": "[[pump-005199] [pump-010399]]",
	} {
		q, continuation := w.parse(text), ""
		var pages [][]string
		for more := true; more; more = continuation != "" {
			rows.read = 0
			page, err := core.QueryEnrollments(w.ctx, operator, q, 2, continuation)
			w.must(err)
			pages, continuation = append(pages, idsOf(page)), page.Continuation
			if rows.read > budget || continuation != "" && rows.read < budget {
				t.Errorf("%s: %d rows read for one page", text, rows.read)
			}
		}
		if got := fmt.Sprint(pages); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if rows.longest > 500 {
		t.Errorf("%d rows were asked for at once", rows.longest)
	}
}

func TestAQueryWithTheStoreDownIsRefusedWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	core, rows := w.crowded(registration.MaxPage+1, 0)
	for rows.fails = 1; rows.fails <= 3; rows.fails++ {
		rows.calls = 0
		page, err := core.QueryEnrollments(w.ctx, operator, w.parse(everything), registration.MaxPage, "")
		if !w.device("any", softtpm.ECC, 0).retryable(err) || page.Items != nil || page.Continuation != "" {
			t.Errorf("call %d failed: %d items, %v", rows.fails, len(page.Items), err)
		}
	}
}

// Documents may be large: a page ends by its bytes too, and the rest comes with the continuation.
func TestAPageEndsAtItsBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	note := strings.Repeat("x", 80_000)
	const devices = 60 // 4.8 MB of documents
	for i := range devices {
		w.device(fmt.Sprintf("d%02d", i), softtpm.ECC, 0).enroll("", map[string]any{"optionalDeviceInformation": map[string]string{"note": note}})
	}
	q, err := dps.ParseQuery("SELECT *", dps.CollectionEnrollments)
	w.must(err)
	first, err := w.core.QueryEnrollments(w.ctx, operator, q, registration.MaxPage, "")
	w.must(err)
	rest, err := w.core.QueryEnrollments(w.ctx, operator, q, registration.MaxPage, first.Continuation)
	w.must(err)
	if n := len(first.Items); n == devices || n < 40 || first.Continuation == "" || n+len(rest.Items) != devices || rest.Continuation != "" {
		t.Errorf("pages of %d and %d", n, len(rest.Items))
	}
}
