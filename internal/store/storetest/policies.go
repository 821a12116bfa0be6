package storetest

import (
	"slices"
	"sync"

	"latchkey.example/latchkey/internal/registration"
)

func testPolicy(name string, rights registration.Right, salt string) registration.AccessPolicy {
	return registration.AccessPolicy{Name: name, Rights: rights, SealedPrimary: []byte("primary " + salt), SealedSecondary: []byte("secondary " + salt)}
}

// policies reads the access policies of a scope.
func (w *world) policies(scope string) []registration.AccessPolicy {
	w.Helper()
	scopes, err := w.store.Scopes(w.ctx)
	w.ok(err)
	for _, s := range scopes {
		if s.ID == scope {
			return s.Policies
		}
	}
	w.Fatalf("there is no scope %s", scope)
	return nil
}

func policyRoundTrip(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope), audit("scope", epoch)))
	want := testScope(scope).Policies
	made := testPolicy("new-1@x._", registration.EnrollmentWrite, "one")
	w.applied(w.store.PutPolicy(w.ctx, scope, nil, made, audit("create", epoch)))
	w.same("created", w.policies(scope), append(slices.Clone(want), made))
	w.audited(scope, "create", 1)

	// The name is taken as it stands, and free in other letters.
	w.verdict(registration.Exists)(w.store.PutPolicy(w.ctx, scope, nil, testPolicy("new-1@x._", registration.AllRights, "two"), audit("again", epoch)))
	w.same("created twice", w.policies(scope), append(slices.Clone(want), made))
	w.audited(scope, "again", 0)
	w.applied(w.store.PutPolicy(w.ctx, scope, nil, testPolicy("NEW-1@x._", 0, "other"), audit("capitals", epoch)))
	w.applied(w.store.DeletePolicy(w.ctx, scope, "NEW-1@x._", audit("delete capitals", epoch)))
	w.same("the other was deleted", w.policies(scope), append(slices.Clone(want), made))

	changed := testPolicy("new-1@x._", registration.AllRights, "changed")
	w.applied(w.store.PutPolicy(w.ctx, scope, &made, changed, audit("replace", epoch)))
	w.same("replaced, in its place", w.policies(scope), append(slices.Clone(want), changed))
	w.audited(scope, "replace", 1)

	w.applied(w.store.DeletePolicy(w.ctx, scope, "new-1@x._", audit("delete", epoch)))
	w.same("deleted", w.policies(scope), want)
	w.audited(scope, "delete", 1)
	w.verdict(registration.Missing)(w.store.DeletePolicy(w.ctx, scope, "new-1@x._", audit("delete again", epoch)))
	w.verdict(registration.Missing)(w.store.PutPolicy(w.ctx, scope, &changed, changed, audit("replace what is gone", epoch)))
	w.audited(scope, "delete again", 0)
	w.audited(scope, "replace what is gone", 0)
	w.same("nothing came back", w.policies(scope), want)
}

// policyCompared: who read an older row must not bring its keys or rights back.
func policyCompared(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope), audit("scope", epoch)))
	stored := testScope(scope).Policies[1]
	for tracking, spoil := range map[string]func(*registration.AccessPolicy){
		"other rights":    func(p *registration.AccessPolicy) { p.Rights = registration.EnrollmentWrite },
		"other primary":   func(p *registration.AccessPolicy) { p.SealedPrimary = []byte("older") },
		"other secondary": func(p *registration.AccessPolicy) { p.SealedSecondary = []byte("older") },
		"swapped keys": func(p *registration.AccessPolicy) {
			p.SealedPrimary, p.SealedSecondary = p.SealedSecondary, p.SealedPrimary
		},
	} {
		was := stored
		spoil(&was)
		w.verdict(registration.Conflict)(w.store.PutPolicy(w.ctx, scope, &was, testPolicy("Reader", registration.AllRights, "new"), audit(tracking, epoch)))
		w.audited(scope, tracking, 0)
		w.same(tracking, w.policies(scope), testScope(scope).Policies)
	}
	w.applied(w.store.PutPolicy(w.ctx, scope, &stored, testPolicy("Reader", registration.AllRights, "new"), audit("as read", epoch)))
}

func policyLastOne(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope), audit("scope", epoch)))
	w.applied(w.store.CreateScope(w.ctx, testScope(otherScope), audit("scope", epoch))) // its owner does not help
	owner, reader := testScope(scope).Policies[0], testScope(scope).Policies[1]
	stripped := owner
	stripped.Rights = registration.AllRights &^ registration.ServiceConfig

	w.verdict(registration.LastOne)(w.store.DeletePolicy(w.ctx, scope, "owner", audit("delete last", epoch)))
	w.verdict(registration.LastOne)(w.store.PutPolicy(w.ctx, scope, &owner, stripped, audit("strip last", epoch)))
	w.audited(scope, "delete last", 0)
	w.audited(scope, "strip last", 0)
	w.same("refused", w.policies(scope), testScope(scope).Policies)

	// Other rights and the keys of the last one may change.
	narrow := testPolicy("owner", registration.ServiceConfig, "narrow")
	w.applied(w.store.PutPolicy(w.ctx, scope, &owner, narrow, audit("narrow", epoch)))

	// With a second one, the first may go; then the second is the last.
	second := reader
	second.Rights = registration.ServiceConfig | registration.EnrollmentRead
	w.applied(w.store.PutPolicy(w.ctx, scope, &reader, second, audit("second", epoch)))
	stripped = narrow
	stripped.Rights = 0
	w.applied(w.store.PutPolicy(w.ctx, scope, &narrow, stripped, audit("strip", epoch)))
	w.applied(w.store.DeletePolicy(w.ctx, scope, "owner", audit("delete", epoch)))
	w.verdict(registration.LastOne)(w.store.DeletePolicy(w.ctx, scope, "Reader", audit("delete the second", epoch)))
	w.same("one is left", w.policies(scope), []registration.AccessPolicy{second})
}

func policiesAreIsolated(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope), audit("scope", epoch)))
	w.applied(w.store.CreateScope(w.ctx, testScope(otherScope), audit("scope", epoch)))
	reader := testScope(otherScope).Policies[1]
	w.applied(w.store.PutPolicy(w.ctx, otherScope, &reader, testPolicy("Reader", registration.AllRights, "new"), audit("1", epoch)))
	w.applied(w.store.PutPolicy(w.ctx, otherScope, nil, testPolicy("third", registration.AllRights, "third"), audit("2", epoch)))
	w.same("after changes in the other scope", w.policies(scope), testScope(scope).Policies)
	w.applied(w.store.DeletePolicy(w.ctx, otherScope, "Reader", audit("3", epoch)))
	w.same("after a deletion in the other scope", w.policies(scope), testScope(scope).Policies)
	w.verdict(registration.Missing)(w.store.DeletePolicy(w.ctx, scope, "third", audit("4", epoch)))
	w.verdict(registration.Missing)(w.store.PutPolicy(w.ctx, "0neNobody", nil, testPolicy("p", registration.AllRights, "p"), audit("5", epoch)))
	w.audited("0neNobody", "5", 0)
}

// policyOneWins lets many replace what all of them read: exactly one does.
func policyOneWins(w *world) {
	w.applied(w.store.CreateScope(w.ctx, testScope(scope), audit("scope", epoch)))
	was := testScope(scope).Policies[1]
	const writers = 20
	verdicts := make([]registration.Verdict, writers)
	errs := make([]error, writers)
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			verdicts[i], errs[i] = w.store.PutPolicy(w.ctx, scope, &was, testPolicy("Reader", registration.EnrollmentRead, numbered("new", i)), audit(numbered("w", i), epoch))
		})
	}
	group.Wait()
	winner := -1
	for i := range writers {
		w.ok(errs[i])
		switch {
		case verdicts[i] == registration.Applied && winner < 0:
			winner = i
		case verdicts[i] != registration.Conflict:
			w.Fatalf("writer %d: verdict %d, and %d had won", i, verdicts[i], winner)
		}
	}
	if winner < 0 {
		w.Fatal("nobody won")
	}
	w.same("the winner's row", w.policies(scope)[1], testPolicy("Reader", registration.EnrollmentRead, numbered("new", winner)))
}
