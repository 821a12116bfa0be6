package storetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Histories runs random operations on a store and on the model; both must answer the same and hold the same after every step.
// A failure prints the seed and a shortened history.
func Histories(t *testing.T, open func(t *testing.T) Store) {
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{T: rt, ctx: t.Context(), store: open(t), model: newModel(), now: epoch}
		defer func() {
			if err := h.store.Close(); err != nil {
				rt.Errorf("close: %v", err)
			}
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"put": h.put, "put many": h.putMany, "put all": h.putAll, "delete enrollment": h.deleteEnrollment, "delete registration": h.deleteRegistration,
			"redeem": h.redeem, "refuse": h.refuse, "finish": h.finish, "prune": h.prune, "remember": h.remember,
			"identity": h.identity, "put group": h.putGroup, "delete group": h.deleteGroup, "redeem in a group": h.redeemInGroup,
			"move hub": h.moveHub, "claim": h.claim, "settle": h.settle, "postpone": h.postpone, "": h.check,
		})
	})
}

type history struct {
	*rapid.T
	ctx   context.Context
	store Store
	model *model
	now   time.Time
	steps int
}

var (
	historyScopes = rapid.SampledFrom([]string{"s1", "s2"})
	historyIDs    = rapid.SampledFrom([]string{"a", "A", "b"})
)

// step moves the clock and makes a name that no other step has.
func (h *history) step(t *rapid.T) (scope, id, name string) {
	h.T = t
	h.steps++
	h.now = h.now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "minutes")) * time.Minute)
	return historyScopes.Draw(t, "scope"), historyIDs.Draw(t, "id"), numbered("step", h.steps)
}

func (h *history) agree(what string, got registration.Verdict, err error, want registration.Verdict) {
	if err != nil || got != want {
		h.Fatalf("%s: verdict %d, %v; the model says %d", what, got, err, want)
	}
}

// revision draws what a caller expects: nothing, any, the current one or one that is not.
func (h *history) revision(current uint64) *uint64 {
	return rapid.SampledFrom([]*uint64{nil, anyRevision, pointer(current), pointer(current), pointer(current + 1)}).Draw(h.T, "expect")
}

// fresh checks that the store has given a new revision of the scope.
func (h *history) fresh(scope string, revision uint64) uint64 {
	if revision <= h.model.last[scope] {
		h.Fatalf("revision %d of %s after %d", revision, scope, h.model.last[scope])
	}
	h.model.last[scope] = revision
	return revision
}

func (h *history) put(t *rapid.T) {
	scope, id, name := h.step(t)
	var current uint64
	if e := h.model.device(scope, id).Enrollment; e != nil {
		current = e.Revision
	}
	e := enrollment(id, name)
	e.Created, e.Updated = h.now, h.now
	expect, a := h.revision(current), audit(name, h.now)
	stored, verdict, err := h.store.PutEnrollment(h.ctx, scope, e, expect, a)
	if verdict == registration.Applied && err == nil {
		e.Revision = h.fresh(scope, stored.Revision)
	}
	h.agree("put", verdict, err, h.model.put(scope, e, expect, a))
}

// putMany is put for several ids in one transition. Rows of one id meet each other in a sentence of the contract.
func (h *history) putMany(t *rapid.T) {
	scope, _, _ := h.step(t)
	ids := rapid.SampledFrom([][]string{{}, {"b"}, {"a", "b"}, {"b", "A"}}).Draw(t, "ids")
	puts := make([]registration.EnrollmentPut, len(ids))
	for i, id := range ids {
		var current uint64
		if e := h.model.device(scope, id).Enrollment; e != nil {
			current = e.Revision
		}
		h.steps++
		e := enrollment(id, numbered("step", h.steps))
		e.Created, e.Updated = h.now, h.now
		puts[i] = registration.EnrollmentPut{Enrollment: e, Expect: h.revision(current), Audit: audit(numbered("step", h.steps), h.now)}
	}
	verdicts, err := h.store.PutEnrollments(h.ctx, scope, puts)
	if err != nil || len(verdicts) != len(puts) {
		h.Fatalf("put many: %d verdicts for %d rows, %v", len(verdicts), len(puts), err)
	}
	for i, put := range puts {
		e := put.Enrollment
		if verdicts[i] == registration.Applied {
			d, err := h.store.Device(h.ctx, scope, e.ID)
			if err != nil || d.Enrollment == nil {
				h.Fatalf("enrollment after its transition: %+v, %v", d, err)
			}
			e.Revision = h.fresh(scope, d.Enrollment.Revision)
		}
		h.agree("put many", verdicts[i], nil, h.model.put(scope, e, put.Expect, put.Audit))
	}
}

// putAll is put for several rows, of one id too, of which all are applied or none.
func (h *history) putAll(t *rapid.T) {
	scope, _, _ := h.step(t)
	ids := rapid.SampledFrom([][]string{{}, {"b"}, {"a", "b"}, {"b", "A"}, {"a", "A"}, {"a", "b", "A"}, {"b", "a", "B"}}).Draw(t, "ids")
	puts, last := make([]registration.EnrollmentPut, len(ids)), map[string]int{}
	for i, id := range ids {
		var current uint64
		if e := h.model.device(scope, id).Enrollment; e != nil {
			current = e.Revision
		}
		h.steps++
		e := enrollment(id, numbered("step", h.steps))
		e.Created, e.Updated = h.now, h.now
		expect := h.revision(current)
		if _, again := last[dps.FoldID(id)]; again { // the row before it has a revision that nobody knows
			expect = rapid.SampledFrom([]*uint64{nil, anyRevision, anyRevision, pointer(current)}).Draw(t, "again")
		}
		last[dps.FoldID(id)] = i
		puts[i] = registration.EnrollmentPut{Enrollment: e, Expect: expect, Audit: audit(numbered("step", h.steps), h.now)}
	}
	verdicts, err := h.store.PutAllEnrollments(h.ctx, scope, puts)
	want, applied := h.model.putAll(scope, puts)
	if err != nil || !slices.Equal(verdicts, want) {
		h.Fatalf("put all: verdicts %d, %v; the model says %d", verdicts, err, want)
	}
	for i := range puts {
		k := h.key(scope, ids[i])
		if !applied || last[k.id] != i {
			continue
		}
		d, err := h.store.Device(h.ctx, scope, ids[i])
		if err != nil || d.Enrollment == nil {
			h.Fatalf("enrollment after its transition: %+v, %v", d, err)
		}
		e := h.model.enrollments[k]
		e.Revision = h.fresh(scope, d.Enrollment.Revision)
		h.model.enrollments[k] = e
	}
}

func (h *history) deleteEnrollment(t *rapid.T) {
	scope, id, name := h.step(t)
	var current uint64
	if e := h.model.device(scope, id).Enrollment; e != nil {
		current = e.Revision
	}
	expect, a := h.revision(current), audit(name, h.now)
	verdict, err := h.store.DeleteEnrollment(h.ctx, scope, id, expect, a)
	h.agree("delete enrollment", verdict, err, h.model.deleteEnrollment(scope, id, expect, a))
}

func (h *history) deleteRegistration(t *rapid.T) {
	scope, id, name := h.step(t)
	var current uint64
	if r := h.model.device(scope, id).Registration; r != nil {
		current = r.Revision
	}
	expect, a := h.revision(current), audit(name, h.now)
	verdict, err := h.store.DeleteRegistration(h.ctx, scope, id, expect, a)
	h.agree("delete registration", verdict, err, h.model.deleteRegistration(scope, id, expect, a))
}

func (h *history) redeem(t *rapid.T) {
	scope, id, name := h.step(t)
	r := redemption(id, h.model.device(scope, id), name, h.now)
	r.Audit.TrackingID = name
	switch rapid.IntRange(0, 9).Draw(t, "stale") {
	case 0:
		r.EnrollmentRevision++
	case 1:
		r.RegistrationBefore++
	case 2:
		r.Generation, r.Operation.Generation = r.Generation+1, r.Operation.Generation+1
	}
	if rapid.Bool().Draw(t, "remote") {
		r.Outbox = advance(name)
	}
	revision, verdict, err := h.store.Redeem(h.ctx, scope, r)
	if verdict == registration.Applied && err == nil {
		r.Operation.Revision, r.Registration.Revision = revision, h.registrationRevision(scope, id)
	}
	h.agree("redeem", verdict, err, h.model.redeem(scope, r))
}

// registrationRevision reads the revision that a transition gave the registration.
func (h *history) registrationRevision(scope, id string) uint64 {
	d, err := h.store.Device(h.ctx, scope, id)
	if err != nil || d.Registration == nil {
		h.Fatalf("registration after its transition: %+v, %v", d, err)
	}
	return h.fresh(scope, d.Registration.Revision)
}

// redeemInGroup is the proof of a device that a group lets in, if it has no enrollment of its own.
func (h *history) redeemInGroup(t *rapid.T) {
	scope, id, name := h.step(t)
	d := h.model.device(scope, id)
	r := redemption(id, d, name, h.now)
	r.Audit.TrackingID = name
	r.Registration.Group, r.Operation.Group = "line", "line"
	r.GroupsRevision = d.GroupsRevision + uint64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "stale"))
	revision, verdict, err := h.store.Redeem(h.ctx, scope, r)
	if verdict == registration.Applied && err == nil {
		r.Operation.Revision, r.Registration.Revision = revision, h.registrationRevision(scope, id)
	}
	h.agree("redeem in a group", verdict, err, h.model.redeem(scope, r))
}

func (h *history) putGroup(t *rapid.T) {
	scope, id, name := h.step(t)
	g := group(id, name)
	g.Created, g.Updated = h.now, h.now
	expect, a := h.revision(h.model.groups[h.key(scope, id)].Revision), audit(name, h.now)
	stored, verdict, err := h.store.PutGroup(h.ctx, scope, g, expect, a)
	if verdict == registration.Applied && err == nil {
		g.Revision = h.fresh(scope, stored.Revision)
		h.model.groupsMoved[scope] = g.Revision
	}
	h.agree("put group", verdict, err, h.model.putGroup(scope, g, expect, a))
}

func (h *history) deleteGroup(t *rapid.T) {
	scope, id, name := h.step(t)
	expect, a := h.revision(h.model.groups[h.key(scope, id)].Revision), audit(name, h.now)
	verdict, err := h.store.DeleteGroup(h.ctx, scope, id, expect, a)
	h.agree("delete group", verdict, err, h.model.deleteGroup(scope, id, expect, a))
	if verdict == registration.Applied {
		revision, err := h.store.GroupsRevision(h.ctx, scope)
		if err != nil {
			h.Fatal(err)
		}
		h.model.groupsMoved[scope] = h.fresh(scope, revision)
	}
}

func (h *history) refuse(t *rapid.T) {
	scope, id, name := h.step(t)
	r := registration.Refused{ID: id, Generation: h.model.device(scope, id).Generation, Audit: audit(name, h.now)}
	r.Generation += uint64(rapid.IntRange(0, 1).Draw(t, "stale"))
	verdict, err := h.store.Refuse(h.ctx, scope, r)
	h.agree("refuse", verdict, err, h.model.refuse(scope, r))
}

func (h *history) finish(t *rapid.T) {
	scope, id, name := h.step(t)
	operation := "none"
	if r := h.model.device(scope, id).Registration; r != nil {
		operation = r.OperationID
	}
	operations := []string{operation, operation, operation, "none"}
	if h.steps > 1 {
		operations = append(operations, numbered("step", rapid.IntRange(1, h.steps-1).Draw(t, "earlier")))
	}
	operation = rapid.SampledFrom(operations).Draw(t, "operation")
	f := finish(id, operation, rapid.SampledFrom([]registration.Status{registration.Assigned, registration.Failed}).Draw(t, "status"), h.now)
	f.Audit.TrackingID = name
	verdict, err := h.store.Finish(h.ctx, scope, f)
	want := h.model.finish(scope, f)
	h.agree("finish", verdict, err, want)
	if want == registration.Applied {
		r := h.model.registrations[h.key(scope, id)]
		r.Revision = h.registrationRevision(scope, id)
		h.model.registrations[h.key(scope, id)] = r
	}
}

func (h *history) prune(t *rapid.T) {
	h.step(t)
	before := h.now.Add(-time.Duration(rapid.IntRange(0, 10).Draw(t, "age")) * time.Minute)
	idle := h.now.Add(-time.Duration(rapid.IntRange(0, 10).Draw(t, "idle")) * time.Minute)
	removed, err := h.store.Prune(h.ctx, before, idle, 1000)
	if want := h.model.prune(before, idle); err != nil || removed != want {
		h.Fatalf("pruned %d, %v; the model says %d", removed, err, want)
	}
}

func (h *history) remember(t *rapid.T) {
	scope, id, _ := h.step(t)
	srk := numbered("srk", rapid.IntRange(0, registration.MaxOwners+3).Draw(t, "srk"))
	if err := h.store.RememberOwner(h.ctx, scope, id, []byte(srk), h.now); err != nil {
		h.Fatal(err)
	}
	h.model.remember(scope, id, srk, h.now)
}

func (h *history) identity(t *rapid.T) {
	scope, id, name := h.step(t)
	i := identity("hub", id, name, uint64(rapid.IntRange(1, 5).Draw(t, "generation")))
	i.Cutting = rapid.Bool().Draw(t, "cutting")
	p, a := identityPut(i, h.model.identities[key{scope, id}].Generation), audit(name, h.now)
	if rapid.IntRange(0, 4).Draw(t, "stale") == 0 {
		p.Was = uint64(rapid.IntRange(0, 5).Draw(t, "was"))
	}
	p.Owner = rapid.SampledFrom([]*string{nil, nil, pointer(""), pointer("one"), pointer("two")}).Draw(t, "owner")
	verdict, err := h.store.PutIdentity(h.ctx, scope, p, a)
	h.agree("identity", verdict, err, h.model.putIdentity(scope, p, a))
}
