package registration_test

import (
	"context"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// impatient is the world's store. It notes what it is asked without a deadline.
type impatient struct {
	*tapStore
	endless map[string]bool
}

func (s *impatient) note(ctx context.Context, call string) {
	if _, ends := ctx.Deadline(); !ends {
		s.endless[call] = true
	}
}

func (s *impatient) ScopesRevision(ctx context.Context) (uint64, error) {
	s.note(ctx, "ScopesRevision")
	return s.tapStore.ScopesRevision(ctx)
}

func (s *impatient) Scopes(ctx context.Context) ([]registration.Scope, error) {
	s.note(ctx, "Scopes")
	return s.tapStore.Scopes(ctx)
}

func (s *impatient) ClaimOutbox(ctx context.Context, claim registration.OutboxClaim) ([]registration.OutboxRow, error) {
	s.note(ctx, "ClaimOutbox")
	return s.tapStore.ClaimOutbox(ctx, claim)
}

func (s *impatient) Unfinished(ctx context.Context, createdBefore time.Time, after registration.Unfinished, limit int) ([]registration.Unfinished, error) {
	s.note(ctx, "Unfinished")
	return s.tapStore.Unfinished(ctx, createdBefore, after, limit)
}

func (s *impatient) Device(ctx context.Context, scope, id string) (registration.Device, error) {
	s.note(ctx, "Device")
	return s.tapStore.Device(ctx, scope, id)
}

func (s *impatient) Finish(ctx context.Context, scope string, f registration.Finish) (registration.Verdict, error) {
	s.note(ctx, "Finish")
	return s.tapStore.Finish(ctx, scope, f)
}

func (s *impatient) Prune(ctx context.Context, operationsBefore, idleBefore time.Time, limit int) (int, error) {
	s.note(ctx, "Prune")
	return s.tapStore.Prune(ctx, operationsBefore, idleBefore, limit)
}

func (s *impatient) PruneScopes(ctx context.Context, settledBefore time.Time, limit int) (int, error) {
	s.note(ctx, "PruneScopes")
	return s.tapStore.PruneScopes(ctx, settledBefore, limit)
}

func (s *impatient) ExpireAudit(ctx context.Context, scope string, before time.Time, limit int, row *registration.Audit) (int, error) {
	s.note(ctx, "ExpireAudit")
	return s.tapStore.ExpireAudit(ctx, scope, before, limit, row)
}

// A server that takes a statement and never answers, as one whose host is gone, is waited for as long as the system resends, a quarter of an hour: unless the caller
// gives up. What a node does by itself has no caller but the end of the node.
func TestWhatANodeDoesByItselfWaitsForNoAnswerForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.away("drill")
	s := &impatient{tapStore: w.store, endless: map[string]bool{}}
	core := w.coreOn(s, w.clock.Now)
	w.hub.move(registration.Here)
	w.clock.advance(time.Minute)
	core.KeepAudit(24 * time.Hour)
	clear(s.endless) // a start is given up by who started it
	w.must(core.Maintain(w.ctx))
	a.polled(w.core, dps.StatusAssigned)
	w.delivered(core, 0, 0)
	w.must(core.FollowScopes(w.ctx))
	for call := range s.endless {
		t.Errorf("%s was asked without a deadline", call)
	}
}
