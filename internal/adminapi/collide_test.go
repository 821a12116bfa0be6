package adminapi_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// kind is an entry of either sort, as the races see it.
type kind struct {
	collection, body, put, delete string
	exists, missing               dps.Code
}

var kinds = []kind{
	{"/enrollments", `{"attestation":{"type":"symmetricKey"},"initialTwin":{"tags":{"writer":%d}}}`, registration.ActionEnrollmentPut, registration.ActionEnrollmentDelete, dps.CodeEnrollmentExists, dps.CodeNotEnrolled},
	{"/enrollmentGroups", `{"attestation":{"type":"symmetricKey"},"initialTwin":{"tags":{"writer":%d}}}`, registration.ActionGroupPut, registration.ActionGroupDelete, dps.CodeGroupExists, dps.CodeGroupNotFound},
}

// race sends requests at once, and gives their answers in the same order.
func (h *house) race(n int, path string, request func(i int) (method, body string, header []string)) []answer {
	h.t.Helper()
	answers, errs, token := make([]answer, n), make([]error, n), as(owner)
	start := make(chan struct{})
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			method, body, header := request(i)
			<-start
			answers[i], errs[i] = h.try(method, path+version, body, token, header...)
		})
	}
	close(start)
	done.Wait()
	for _, err := range errs {
		must(h.t, err)
	}
	return answers
}

// only gives the one answer that is no refusal; the others are to be refused as the loser of a race to it is.
func (h *house) only(answers []answer, losers func(winner, loser int) dps.Code) (winner int) {
	h.t.Helper()
	winner = -1
	for i, a := range answers {
		if a.status < 300 {
			if winner >= 0 {
				h.t.Fatalf("%d and %d both won: %s %s", winner, i, answers[winner].body, a.body)
			}
			winner = i
		}
	}
	if winner < 0 {
		h.t.Fatalf("nobody won: %d %s", answers[0].status, answers[0].body)
	}
	for i, a := range answers {
		if i != winner {
			a.refused(losers(winner, i))
		}
	}
	return winner
}

// logged counts the rows of the log of an action on an object.
func (h *house) logged(action, object string) int {
	h.t.Helper()
	return len(h.ask(http.MethodGet, "/latchkey/v1/audit?object="+object+"&action="+action, "", as(owner)).log().Entries)
}

const writers = 16

// Of many writers with one etag exactly one wins, and what is there is what that one wrote, whole.
func TestOfWritersWithOneEtagExactlyOneWins(t *testing.T) {
	h := newHouse(t)
	for _, k := range kinds {
		id := "raced"
		path := k.collection + "/" + id
		creates := h.race(writers, path, func(i int) (string, string, []string) { return http.MethodPut, fmt.Sprintf(k.body, i), nil })
		winner := h.only(creates, func(int, int) dps.Code { return k.exists })
		h.isWritten(path, creates[winner], winner)
		etag, keys := creates[winner].json("etag"), creates[winner].json("attestation")
		for round := range 4 {
			answers := h.race(writers, path, func(i int) (string, string, []string) {
				return http.MethodPut, fmt.Sprintf(k.body, 100*round+i), []string{"If-Match", etag}
			})
			winner := h.only(answers, func(int, int) dps.Code { return dps.CodePreconditionFailed })
			h.isWritten(path, answers[winner], 100*round+winner)
			if answers[winner].json("attestation") != keys {
				t.Error("the keys changed with a write that has none")
			}
			etag = answers[winner].json("etag")
		}
		if n := h.logged(k.put, id); n != 5 {
			t.Errorf("%d rows of the log tell of 5 writes", n)
		}
	}
}

// isWritten checks that an entry is what an answer says of it, and of the writer.
func (h *house) isWritten(path string, a answer, writer int) {
	h.t.Helper()
	now := h.owner(http.MethodGet, path, "").want(200)
	if now.json("etag") != a.json("etag") || now.json("initialTwin", "tags", "writer") != strconv.Itoa(writer) || now.json("lastUpdatedDateTimeUtc") != a.json("lastUpdatedDateTimeUtc") {
		h.t.Errorf("there is %s\nwriter %d was answered %s", now.body, writer, a.body)
	}
}

func TestOfDeletesWithOneEtagExactlyOneWins(t *testing.T) {
	h := newHouse(t)
	for _, k := range kinds {
		path := k.collection + "/raced"
		made := h.owner(http.MethodPut, path, fmt.Sprintf(k.body, 0)).want(200)
		for _, header := range [][]string{{"If-Match", made.json("etag")}, nil, {"If-Match", "*"}} {
			answers := h.race(writers, path, func(int) (string, string, []string) { return http.MethodDelete, "", header })
			h.only(answers, func(int, int) dps.Code { return k.missing })
			h.owner(http.MethodGet, path, "").refused(k.missing)
			h.owner(http.MethodPut, path, fmt.Sprintf(k.body, 0)).want(200)
		}
		if n := h.logged(k.delete, "raced"); n != 3 {
			t.Errorf("%d rows of the log tell of 3 deletes", n)
		}
	}
}

// Writers and deleters with one etag: one of them all wins.
func TestOfWritersAndDeletersExactlyOneWins(t *testing.T) {
	h := newHouse(t)
	for _, k := range kinds {
		path := k.collection + "/raced"
		for round := range 6 {
			made := h.owner(http.MethodPut, path, fmt.Sprintf(k.body, 99)).want(200)
			answers := h.race(writers, path, func(i int) (string, string, []string) {
				if (i+round)%2 == 0 {
					return http.MethodDelete, "", []string{"If-Match", made.json("etag")}
				}
				return http.MethodPut, fmt.Sprintf(k.body, i), []string{"If-Match", made.json("etag")}
			})
			deletes := func(i int) bool { return (i+round)%2 == 0 }
			winner := h.only(answers, func(winner, loser int) dps.Code {
				if deletes(winner) && deletes(loser) {
					return k.missing
				}
				return dps.CodePreconditionFailed
			})
			if deletes(winner) {
				h.owner(http.MethodGet, path, "").refused(k.missing)
				continue
			}
			h.isWritten(path, answers[winner], winner)
			h.owner(http.MethodDelete, path, "").want(204)
		}
	}
}

// rival is a store beside which another writer is always a step ahead: while it is on, each row is written just before the core's own write.
type rival struct {
	registration.Store
	on     atomic.Bool
	writes atomic.Int64
}

func (r *rival) PutEnrollment(ctx context.Context, scope string, e registration.Enrollment, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Enrollment, registration.Verdict, error) {
	if err := r.touchEnrollment(ctx, scope, e.ID, audit); err != nil {
		return registration.Enrollment{}, registration.Conflict, err
	}
	return r.Store.PutEnrollment(ctx, scope, e, expect, audit, order)
}

func (r *rival) DeleteEnrollment(ctx context.Context, scope, id string, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	if err := r.touchEnrollment(ctx, scope, id, audit); err != nil {
		return registration.Conflict, err
	}
	return r.Store.DeleteEnrollment(ctx, scope, id, expect, audit, order)
}

func (r *rival) PutGroup(ctx context.Context, scope string, g registration.Group, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Group, registration.Verdict, error) {
	if err := r.touchGroup(ctx, scope, g.ID, audit); err != nil {
		return registration.Group{}, registration.Conflict, err
	}
	return r.Store.PutGroup(ctx, scope, g, expect, audit, order)
}

func (r *rival) DeleteGroup(ctx context.Context, scope, id string, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	if err := r.touchGroup(ctx, scope, id, audit); err != nil {
		return registration.Conflict, err
	}
	return r.Store.DeleteGroup(ctx, scope, id, expect, audit, order)
}

func (r *rival) touchEnrollment(ctx context.Context, scope, id string, audit registration.Audit) error {
	if !r.on.Load() {
		return nil
	}
	r.writes.Add(1)
	device, err := r.Store.Device(ctx, scope, dps.FoldID(id))
	if err != nil {
		return err
	}
	anyRevision := uint64(registration.AnyRevision)
	_, verdict, err := r.Store.PutEnrollment(ctx, scope, *device.Enrollment, &anyRevision, audit, "")
	return applied(verdict, err)
}

func (r *rival) touchGroup(ctx context.Context, scope, id string, audit registration.Audit) error {
	if !r.on.Load() {
		return nil
	}
	r.writes.Add(1)
	group, err := r.Store.Group(ctx, scope, dps.FoldID(id))
	if err != nil {
		return err
	}
	anyRevision := uint64(registration.AnyRevision)
	_, verdict, err := r.Store.PutGroup(ctx, scope, group, &anyRevision, audit, "")
	return applied(verdict, err)
}

func applied(verdict registration.Verdict, err error) error {
	if err == nil && verdict != registration.Applied {
		return fmt.Errorf("the rival met verdict %d", verdict)
	}
	return err
}

// A write that always meets another ends, with the code that says so, and has changed nothing.
func TestAWriteThatAlwaysCollidesIsTold409203(t *testing.T) {
	other := &rival{}
	h := newHouseOn(t, func(s registration.Store) registration.Store { other.Store = s; return other }, web.DefaultLimits)
	for _, k := range kinds {
		path, items := k.collection+"/e", k.collection[1:]
		h.owner(http.MethodPut, path, fmt.Sprintf(k.body, 1)).want(200)
		other.on.Store(true)
		before := other.writes.Load()
		h.because(h.owner(http.MethodPut, path, fmt.Sprintf(k.body, 2), "If-Match", "*").refused(dps.CodeConflict), registration.ReasonConflict.String())
		if n := other.writes.Load() - before; n < 2 {
			t.Errorf("%s was written only %d times before it gave up", path, n)
		}
		h.because(h.owner(http.MethodDelete, path, "", "If-Match", "*").refused(dps.CodeConflict), registration.ReasonConflict.String())
		name := map[string]string{"enrollments": "registrationId", "enrollmentGroups": "enrollmentGroupId"}[items]
		bulk := h.owner(http.MethodPost, k.collection, fmt.Sprintf(`{"mode":"update","%s":[{"%s":"e","etag":"*",%s]}`, items, name, fmt.Sprintf(k.body, 3)[1:])).want(200)
		if want := `"` + name + `":"e","errorCode":409203,`; bulk.json("isSuccessful") != "false" || !strings.Contains(bulk.body, want) {
			t.Errorf("bulk: %s, want %s", bulk.body, want)
		}
		// With an etag the loser is told that it is no longer the entry's.
		now := h.owner(http.MethodGet, path, "").want(200)
		h.owner(http.MethodPut, path, fmt.Sprintf(k.body, 2), "If-Match", now.json("etag")).refused(dps.CodePreconditionFailed)
		other.on.Store(false)
		if now := h.owner(http.MethodGet, path, "").want(200); now.json("initialTwin", "tags", "writer") != "1" {
			t.Errorf("a write that was refused left %s", now.body)
		}
		h.owner(http.MethodPut, path, fmt.Sprintf(k.body, 2), "If-Match", "*").want(200)
	}
}

// slow is a store whose writes of groups wait.
type slow struct {
	registration.Store
	begun, end chan struct{}
}

func (s *slow) PutGroup(ctx context.Context, scope string, g registration.Group, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Group, registration.Verdict, error) {
	close(s.begun)
	<-s.end
	return s.Store.PutGroup(ctx, scope, g, expect, audit, "")
}

// A service with all places taken refuses every operation before it looks at it, says when to come back, and takes the request afterwards.
func TestAFullServiceRefusesEveryOperationWith429001(t *testing.T) {
	s := &slow{begun: make(chan struct{}), end: make(chan struct{})}
	limits := web.DefaultLimits
	limits.Concurrent, limits.Parked, limits.Handler = 1, 0, time.Hour
	h := newHouseOn(t, func(inner registration.Store) registration.Store { s.Store = inner; return s }, limits)
	type result struct {
		answer answer
		err    error
	}
	first := make(chan result, 1)
	token := as(owner)
	go func() {
		a, err := h.try(http.MethodPut, "/enrollmentGroups/slow"+version, symmetric, token)
		first <- result{a, err}
	}()
	<-s.begun
	var last answer
	for _, o := range operations {
		last = h.ask(o.method, o.path+version, o.body, token, "Content-Type", o.media())
		if last.status != http.StatusTooManyRequests {
			t.Errorf("%s %s: %d %s", o.method, o.path, last.status, last.body)
			continue
		}
		last.refused(dps.CodeTooManyRequests)
		if after, err := strconv.Atoi(last.header.Get("Retry-After")); err != nil || after < 5 || after > 30 {
			t.Errorf("%s %s: Retry-After %q", o.method, o.path, last.header.Get("Retry-After"))
		}
	}
	close(s.end)
	held := <-first
	must(t, held.err)
	held.answer.want(200)
	h.because(last, registration.ReasonOverload.String())
	for _, collection := range []string{"/enrollments/query", "/enrollmentGroups/query"} { // nothing of what was refused was done
		if got := h.owner(http.MethodPost, collection, `{"query":"*"}`).want(200); strings.Contains(got.body, `"e"`) || strings.Contains(got.body, `"g"`) {
			t.Errorf("%s: %s", collection, got.body)
		}
	}
}
