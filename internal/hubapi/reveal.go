package hubapi

import (
	"context"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Programs read devices again and again, for their connection state. That their keys were shown is written once in a while for the same access policy at
// the same address and the same state of the identity, not each time: the log is for ever, and would hold nothing else.
const (
	revealEvery = time.Hour
	mostReveals = 10_000 // remembered; beyond, all are forgotten and written anew
)

// reveals remembers what is in the audit log already.
type reveals struct {
	mu   sync.Mutex
	seen map[reveal]time.Time
}

type reveal struct {
	scope, policy, address, device, etag string
}

// fresh says whether a row of this kind was written a short time ago.
func (r *reveals) fresh(x reveal, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.seen[x]
	age := now.Sub(at)
	return ok && age >= 0 && age < revealEvery
}

// note remembers a row that is durable.
func (r *reveals) note(x reveal, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) >= mostReveals || r.seen == nil {
		r.seen = make(map[reveal]time.Time)
	}
	r.seen[x] = now
}

// reveal has it in the audit that a device's keys are shown, before they are.
func (a *API) reveal(ctx context.Context, by registration.Caller, d registration.KnownDevice) error {
	x, now := reveal{by.Scope, by.Policy, by.Address, d.DeviceID, etag(d.Identity)}, a.now()
	if a.shown.fresh(x, now) {
		return nil
	}
	if err := a.core.NoteHubCall(ctx, by, registration.ActionDeviceReveal, d.DeviceID, ""); err != nil {
		return err
	}
	a.shown.note(x, now)
	return nil
}
