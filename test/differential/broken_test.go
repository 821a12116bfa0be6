package differential

import (
	"context"
	"slices"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/storetest"
)

// broken is a store with one fault; each type below overrides one method of a store that has none.
type broken struct{ storetest.Store }

// deafToGenerations redeems whatever count of redemptions the device was challenged at: a challenge counts twice.
type deafToGenerations broken

func (b deafToGenerations) Redeem(ctx context.Context, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	if d, err := b.Device(ctx, scope, r.ID); err == nil && r.Check() == nil {
		r.Generation, r.Operation.Generation = d.Generation, d.Generation+1
	}
	return b.Store.Redeem(ctx, scope, r)
}

// deafToRevisions redeems though the registration has moved since it was read.
type deafToRevisions broken

func (b deafToRevisions) Redeem(ctx context.Context, scope string, r registration.Redemption) (uint64, registration.Verdict, error) {
	if d, err := b.Device(ctx, scope, r.ID); err == nil && d.Registration != nil {
		r.RegistrationBefore = d.Registration.Revision
	}
	return b.Store.Redeem(ctx, scope, r)
}

// prunesTooMuch removes one row more than it may.
type prunesTooMuch broken

func (b prunesTooMuch) Prune(ctx context.Context, operations, idle time.Time, limit int) (int, error) {
	return b.Store.Prune(ctx, operations, idle, limit+1)
}

// prunesTooEarly forgets generations a second before it may.
type prunesTooEarly broken

func (b prunesTooEarly) Prune(ctx context.Context, operations, idle time.Time, limit int) (int, error) {
	return b.Store.Prune(ctx, operations, idle.Add(time.Second), limit)
}

// losesAudit forgets one row of the log in seven, of those whose tracking id others share.
type losesAudit broken

func (b losesAudit) AuditPage(ctx context.Context, scope string, after uint64, limit int) ([]registration.AuditLine, error) {
	page, err := b.Store.AuditPage(ctx, scope, after, limit)
	return slices.DeleteFunc(page, func(l registration.AuditLine) bool { return l.TrackingID == "shared" && l.Seq%7 == 0 }), err
}

// appendsNothing says that it has written a row of the log, and has not if others share the tracking id.
type appendsNothing broken

func (b appendsNothing) AppendAudit(ctx context.Context, scope string, a registration.Audit) error {
	if a.TrackingID == "shared" {
		return nil
	}
	return b.Store.AppendAudit(ctx, scope, a)
}

// expiresYoung removes audit rows that are an hour too young.
type expiresYoung broken

func (b expiresYoung) ExpireAudit(ctx context.Context, scope string, before time.Time, limit int, a *registration.Audit) (int, error) {
	return b.Store.ExpireAudit(ctx, scope, before.Add(time.Hour), limit, a)
}

// cutsPages gives a full page without its last row.
type cutsPages broken

func (b cutsPages) Registrations(ctx context.Context, scope, group, after string, limit int) ([]registration.Registration, error) {
	page, err := b.Store.Registrations(ctx, scope, group, after, limit)
	return page[:min(len(page), max(limit-1, 1))], err
}

// caseless takes device ids at the hub for the same that differ by case.
type caseless broken

func (b caseless) Identity(ctx context.Context, scope, hub, device string) (registration.Identity, error) {
	if device == "A" {
		device = "a"
	}
	return b.Store.Identity(ctx, scope, hub, device)
}

// sealsBlindly replaces sealed values that were written anew since they were read.
type sealsBlindly broken

func (b sealsBlindly) ReplaceSealed(ctx context.Context, values []registration.SealedReplacement) (int, error) {
	all, _, err := b.SealedValues(ctx, "", 10_000)
	if err != nil {
		return 0, err
	}
	values = slices.Clone(values)
	for i, v := range values {
		for _, now := range all {
			if now.Kind == v.Kind && now.Scope == v.Scope && now.Key == v.Key {
				values[i].Sealed = now.Sealed
			}
		}
	}
	return b.Store.ReplaceSealed(ctx, values)
}

// forgetsSealed lists all but the last sealed value of a page that others follow.
type forgetsSealed broken

func (b forgetsSealed) SealedValues(ctx context.Context, cursor string, limit int) ([]registration.SealedValue, string, error) {
	values, next, err := b.Store.SealedValues(ctx, cursor, limit)
	if next != "" {
		values = values[:len(values)-1]
	}
	return values, next, err
}

// goesBack gives revisions out anew when an enrollment is replaced.
type goesBack broken

func (b goesBack) PutEnrollment(ctx context.Context, scope string, e registration.Enrollment, expect *uint64, a registration.Audit, order registration.HubOrder) (registration.Enrollment, registration.Verdict, error) {
	stored, verdict, err := b.Store.PutEnrollment(ctx, scope, e, expect, a, order)
	if expect != nil && verdict == registration.Applied {
		stored.Revision--
	}
	return stored, verdict, err
}

// finishesTwice ends an operation that has ended.
type finishesTwice broken

func (b finishesTwice) Finish(ctx context.Context, scope string, f registration.Finish) (registration.Verdict, error) {
	verdict, err := b.Store.Finish(ctx, scope, f)
	if verdict == registration.Conflict {
		verdict = registration.Applied
	}
	return verdict, err
}

// What is wrong with a store is found, whatever it is: mostly by the first thousand calls.
func TestABrokenStoreIsFound(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(storetest.Store) storetest.Store{
		"a redemption ignores the generation":          func(s storetest.Store) storetest.Store { return deafToGenerations{s} },
		"a redemption ignores the registration":        func(s storetest.Store) storetest.Store { return deafToRevisions{s} },
		"a prune removes one too many":                 func(s storetest.Store) storetest.Store { return prunesTooMuch{s} },
		"a prune forgets generations too early":        func(s storetest.Store) storetest.Store { return prunesTooEarly{s} },
		"an audit row is lost":                         func(s storetest.Store) storetest.Store { return losesAudit{s} },
		"an audit row is not written":                  func(s storetest.Store) storetest.Store { return appendsNothing{s} },
		"an audit row expires too early":               func(s storetest.Store) storetest.Store { return expiresYoung{s} },
		"a page ends too early":                        func(s storetest.Store) storetest.Store { return cutsPages{s} },
		"device ids are compared without case":         func(s storetest.Store) storetest.Store { return caseless{s} },
		"a sealed value is replaced that was not read": func(s storetest.Store) storetest.Store { return sealsBlindly{s} },
		"a sealed value is not listed":                 func(s storetest.Store) storetest.Store { return forgetsSealed{s} },
		"a revision does not rise":                     func(s storetest.Store) storetest.Store { return goesBack{s} },
		"an operation ends twice":                      func(s storetest.Store) storetest.Store { return finishesTwice{s} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tried := seeds(t, 10)
			for _, seed := range tried {
				h := storetest.NewHistory(t.Context(), storetest.Seeded(seed), storetest.NewModel(), wrap(storetest.NewModel()))
				if err := h.Play(1_000); err != nil {
					return
				}
			}
			t.Errorf("it is in none of the histories of the seeds %d", tried)
		})
	}
}
