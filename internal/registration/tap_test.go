package registration_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/farhub"
)

var errInjected = errors.New("injected fault")

// moment is when a call fails.
type moment int

const (
	before moment = iota // nothing happened
	after                // it took effect, and the caller hears that it failed
)

func (m moment) String() string { return [...]string{"before", "after"}[m] }

// tap counts calls by name, fails chosen ones, and runs a step of the story in front of them.
type tap struct {
	mu     sync.Mutex
	counts map[string]int
	faults map[string][]fault
	steps  map[string]func()
}

// fault fails calls from the nth on, n counted from when it was set.
type fault struct {
	skip, times int
	when        moment
	err         error
}

func newTap() *tap {
	return &tap{counts: map[string]int{}, faults: map[string][]fault{}, steps: map[string]func(){}}
}

// failNext fails the next calls of a name.
func (t *tap) failNext(call string, times int, when moment) { t.plan(call, 0, times, when) }

// plan fails calls of a name after some that pass.
func (t *tap) plan(call string, skip, times int, when moment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[call] = append(t.faults[call], fault{skip, times, when, errInjected})
}

// heal forgets all plans.
func (t *tap) heal() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.faults)
}

// beforeNext runs a step once, right before the next call of a name.
func (t *tap) beforeNext(call string, step func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps[call] = step
}

// take returns the counts and starts them again.
func (t *tap) take() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := maps.Clone(t.counts)
	clear(t.counts)
	return counts
}

// enter notes a call and says how it is to fail.
func (t *tap) enter(call string) (fails bool, when moment) {
	t.mu.Lock()
	t.counts[call]++
	step := t.steps[call]
	delete(t.steps, call)
	if plans := t.faults[call]; len(plans) > 0 {
		switch f := &plans[0]; {
		case f.skip > 0:
			f.skip--
		default:
			fails, when = true, f.when
			if f.times--; f.times <= 0 {
				t.faults[call] = plans[1:]
			}
		}
	}
	t.mu.Unlock()
	if step != nil {
		step()
	}
	return fails, when
}

// through passes a call on, or fails it before or after its effect.
func through[T any](t *tap, call string, do func() (T, error)) (T, error) {
	var zero T
	fails, when := t.enter(call)
	if fails && when == before {
		return zero, fmt.Errorf("%s: %w", call, errInjected)
	}
	result, err := do()
	if fails {
		return zero, fmt.Errorf("%s, after its effect: %w", call, errInjected)
	}
	return result, err
}

// tapStore is the real store behind a tap. It judges what the core asks of it: a Finish must follow the hub's acknowledgement of that very key.
type tapStore struct {
	registration.Store
	*tap
	w *world

	mu          sync.Mutex
	redemptions map[string]uint64 // challenges spent, by folded id
	since       time.Time         // of the last reading of owners
}

func newTapStore(w *world) *tapStore {
	return &tapStore{Store: w.inner, tap: newTap(), w: w, redemptions: map[string]uint64{}}
}

func (s *tapStore) ScopesRevision(ctx context.Context) (uint64, error) {
	return through(s.tap, "ScopesRevision", func() (uint64, error) { return s.Store.ScopesRevision(ctx) })
}

func (s *tapStore) Scopes(ctx context.Context) ([]registration.Scope, error) {
	return through(s.tap, "Scopes", func() ([]registration.Scope, error) { return s.Store.Scopes(ctx) })
}

func (s *tapStore) Groups(ctx context.Context, scope, after string, limit int) ([]registration.Group, error) {
	return through(s.tap, "Groups", func() ([]registration.Group, error) { return s.Store.Groups(ctx, scope, after, limit) })
}

func (s *tapStore) CreateScope(ctx context.Context, scope registration.Scope, a registration.Audit) (registration.Verdict, error) {
	return through(s.tap, "CreateScope", func() (registration.Verdict, error) { return s.Store.CreateScope(ctx, scope, a) })
}

func (s *tapStore) DeleteScope(ctx context.Context, id string, a registration.Audit) (registration.Verdict, error) {
	return through(s.tap, "DeleteScope", func() (registration.Verdict, error) { return s.Store.DeleteScope(ctx, id, a) })
}

func (s *tapStore) PutEnrollment(ctx context.Context, scope string, e registration.Enrollment, expect *uint64, a registration.Audit, order registration.HubOrder) (registration.Enrollment, registration.Verdict, error) {
	var verdict registration.Verdict
	stored, err := through(s.tap, "PutEnrollment", func() (stored registration.Enrollment, err error) {
		stored, verdict, err = s.Store.PutEnrollment(ctx, scope, e, expect, a, order)
		return stored, err
	})
	return stored, verdict, err
}

func (s *tapStore) PutEnrollments(ctx context.Context, scope string, puts []registration.EnrollmentPut) ([]registration.Verdict, error) {
	return through(s.tap, "PutEnrollments", func() ([]registration.Verdict, error) { return s.Store.PutEnrollments(ctx, scope, puts) })
}

func (s *tapStore) PutAllEnrollments(ctx context.Context, scope string, puts []registration.EnrollmentPut) ([]registration.Verdict, error) {
	return through(s.tap, "PutAllEnrollments", func() ([]registration.Verdict, error) { return s.Store.PutAllEnrollments(ctx, scope, puts) })
}

func (s *tapStore) Enrollments(ctx context.Context, scope, after string, limit int) ([]registration.Listed, error) {
	return through(s.tap, "Enrollments", func() ([]registration.Listed, error) { return s.Store.Enrollments(ctx, scope, after, limit) })
}

func (s *tapStore) DeleteEnrollment(ctx context.Context, scope, id string, expect *uint64, a registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	return through(s.tap, "DeleteEnrollment", func() (registration.Verdict, error) {
		return s.Store.DeleteEnrollment(ctx, scope, id, expect, a, order)
	})
}

func (s *tapStore) DeleteRegistration(ctx context.Context, scope, id string, expect *uint64, a registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	return through(s.tap, "DeleteRegistration", func() (registration.Verdict, error) {
		return s.Store.DeleteRegistration(ctx, scope, id, expect, a, order)
	})
}

func (s *tapStore) Device(ctx context.Context, scope, id string) (registration.Device, error) {
	return through(s.tap, "Device", func() (registration.Device, error) { return s.Store.Device(ctx, scope, id) })
}

func (s *tapStore) Operation(ctx context.Context, scope, operationID string) (registration.Operation, error) {
	return through(s.tap, "Operation", func() (registration.Operation, error) { return s.Store.Operation(ctx, scope, operationID) })
}

func (s *tapStore) Redeem(ctx context.Context, scope string, r registration.Redemption) (revision uint64, verdict registration.Verdict, err error) {
	verdict, err = through(s.tap, "Redeem", func() (registration.Verdict, error) {
		var verdict registration.Verdict
		var err error
		revision, verdict, err = s.Store.Redeem(ctx, scope, r)
		return s.spent(r.ID, verdict, err)
	})
	return revision, verdict, err
}

func (s *tapStore) Refuse(ctx context.Context, scope string, r registration.Refused) (registration.Verdict, error) {
	return through(s.tap, "Refuse", func() (registration.Verdict, error) {
		verdict, err := s.Store.Refuse(ctx, scope, r)
		return s.spent(r.ID, verdict, err)
	})
}

func (s *tapStore) spent(id string, verdict registration.Verdict, err error) (registration.Verdict, error) {
	if err == nil && verdict == registration.Applied {
		s.mu.Lock()
		s.redemptions[id]++
		s.mu.Unlock()
	}
	return verdict, err
}

func (s *tapStore) redeemed(id string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.redemptions[id]
}

func (s *tapStore) Finish(ctx context.Context, scope string, f registration.Finish) (registration.Verdict, error) {
	s.judgeFinish(ctx, scope, f)
	return through(s.tap, "Finish", func() (registration.Verdict, error) { return s.Store.Finish(ctx, scope, f) })
}

func (s *tapStore) Allocate(ctx context.Context, scope string, a registration.Allocated) (registration.Verdict, error) {
	return through(s.tap, "Allocate", func() (registration.Verdict, error) { return s.Store.Allocate(ctx, scope, a) })
}

func (s *tapStore) SaveMove(ctx context.Context, scope string, m registration.SavedMove) (registration.Verdict, error) {
	return through(s.tap, "SaveMove", func() (registration.Verdict, error) { return s.Store.SaveMove(ctx, scope, m) })
}

func (s *tapStore) judgeFinish(ctx context.Context, scope string, f registration.Finish) {
	o, err := s.Store.Operation(ctx, scope, f.OperationID)
	if errors.Is(err, registration.ErrNotFound) || ctx.Err() != nil {
		return // deleted meanwhile: there is nothing to finish; or nobody wants it any more
	}
	if err != nil {
		s.w.Errorf("Finish of operation %s: %v", f.OperationID, err)
		return
	}
	if f.Status == registration.Assigned && !s.w.hub.acknowledgedAt(o.Hub, scope, o.DeviceID, s.w.credentialOf(scope, o), o.Revision) {
		s.w.Errorf("Finish of operation %s before the hub has acknowledged its key", f.OperationID)
	}
	if f.Audit.TrackingID != o.TrackingID || f.Audit.Action != registration.ActionAssign {
		s.w.Errorf("Finish of operation %s carries the audit row %+v", f.OperationID, f.Audit)
	}
}

func (s *tapStore) RememberOwner(ctx context.Context, scope, id string, srk []byte, at time.Time) error {
	_, err := through(s.tap, "RememberOwner", func() (struct{}, error) { return struct{}{}, s.Store.RememberOwner(ctx, scope, id, srk, at) })
	return err
}

func (s *tapStore) Owners(ctx context.Context, scope, id string, since time.Time) ([][]byte, error) {
	s.mu.Lock()
	s.since = since
	s.mu.Unlock()
	return through(s.tap, "Owners", func() ([][]byte, error) { return s.Store.Owners(ctx, scope, id, since) })
}

func (s *tapStore) AppendAudit(ctx context.Context, scope string, a registration.Audit) error {
	_, err := through(s.tap, "AppendAudit", func() (struct{}, error) { return struct{}{}, s.Store.AppendAudit(ctx, scope, a) })
	return err
}

func (s *tapStore) AuditByTrackingID(ctx context.Context, scope, trackingID string) ([]registration.Audit, error) {
	return through(s.tap, "AuditByTrackingID", func() ([]registration.Audit, error) { return s.Store.AuditByTrackingID(ctx, scope, trackingID) })
}

func (s *tapStore) AuditPage(ctx context.Context, scope string, after uint64, limit int) ([]registration.AuditLine, error) {
	return through(s.tap, "AuditPage", func() ([]registration.AuditLine, error) { return s.Store.AuditPage(ctx, scope, after, limit) })
}

func (s *tapStore) lastSince() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// judgingHub is a hub that holds the core to its side of the contract.
type judgingHub struct {
	dropped []string // scope and hub
	*tap
	w       *world
	far     *farhub.Hubs                          // of the first scope, over the network
	refuses map[string]error                      // calls that end so, before any effect
	hangAt  func(ctx context.Context, hub string) // in front of each EnsureDevice over the network; nil: nothing

	mu      sync.Mutex
	devices map[string]*hubDevice // by scope and device id
	hangs   bool
	reached func() // called when a request hangs
	reach   registration.Reach
}

type hubDevice struct {
	removed    bool // it is not there any more, but for its generation
	disabled   bool
	data       registration.DeviceData
	credential registration.Credential
	key        []byte
	generation uint64
	cuts       int // sessions ended because the key changed
	acked      []registration.HubDevice
}

func newJudgingHub(w *world) *judgingHub {
	h := &judgingHub{tap: newTap(), w: w, far: farhub.New(), devices: map[string]*hubDevice{}, reach: registration.Here}
	h.far.Judge = w.Errorf
	h.far.Local = func(deviceID string) []string {
		h.mu.Lock()
		defer h.mu.Unlock()
		if d := h.devices[scopeOne+" "+deviceID]; d != nil && !d.removed {
			return []string{hubOne}
		}
		return nil
	}
	return h
}

func (h *judgingHub) Reach(_, hub string) registration.Reach {
	if h.far.Has(hub) {
		return registration.Remote
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reach
}

// move takes the hub to another process, or back.
func (h *judgingHub) move(reach registration.Reach) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reach = reach
}

func (h *judgingHub) Drop(_ context.Context, scope, hub string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped = append(h.dropped, scope+" "+hub)
	return nil
}

func (h *judgingHub) EnsureDevice(ctx context.Context, scope, hub string, d registration.HubDevice) error {
	if reached, hangs := h.hanging(); hangs {
		reached()
		<-ctx.Done()
		return ctx.Err()
	}
	if h.far.Has(hub) {
		if err := h.meets(ctx, "EnsureDevice "+hub, hub); err != nil {
			return err
		}
		_, err := through(h.tap, "EnsureDevice "+hub, func() (struct{}, error) { return struct{}{}, h.far.EnsureDevice(ctx, scope, hub, d) })
		return err
	}
	_, err := through(h.tap, "EnsureDevice", func() (struct{}, error) { return struct{}{}, h.ensure(scope, hub, d) })
	return err
}

// meets is what a call meets before it has any effect.
func (h *judgingHub) meets(ctx context.Context, call, hub string) error {
	h.mu.Lock()
	hang, err := h.hangAt, h.refuses[call]
	h.mu.Unlock()
	if hang != nil {
		hang(ctx, hub)
	}
	return errors.Join(err, ctx.Err())
}

func (h *judgingHub) heal() {
	h.mu.Lock()
	h.refuses = nil
	h.mu.Unlock()
	h.tap.heal()
}

func (h *judgingHub) RemoveDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	_, err := through(h.tap, "RemoveDevice "+hub, func() (struct{}, error) {
		if hub != hubOne && hub != hubTwo {
			return struct{}{}, h.far.RemoveDevice(ctx, scope, hub, deviceID, generation)
		}
		return struct{}{}, h.fenced(scope, deviceID, generation, func(d *hubDevice) { d.removed, d.data = true, registration.DeviceData{} })
	})
	return err
}

func (h *judgingHub) DisableDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	_, err := through(h.tap, "DisableDevice "+hub, func() (struct{}, error) {
		if hub != hubOne && hub != hubTwo {
			return struct{}{}, h.far.DisableDevice(ctx, scope, hub, deviceID, generation)
		}
		return struct{}{}, h.fenced(scope, deviceID, generation, func(d *hubDevice) { d.disabled = true })
	})
	return err
}

// fenced changes a device unless a later generation was seen. What was removed leaves its generation behind.
func (h *judgingHub) fenced(scope, deviceID string, generation uint64, change func(d *hubDevice)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.devices[scope+" "+deviceID]
	switch {
	case h.reach == registration.Elsewhere:
		return registration.ErrElsewhere
	case known == nil:
		return nil
	case generation < known.generation:
		return registration.ErrStale
	}
	known.generation = generation
	change(known)
	return nil
}

func (h *judgingHub) DeviceData(ctx context.Context, scope, hub, deviceID string) (registration.DeviceData, error) {
	return through(h.tap, "DeviceData "+hub, func() (registration.DeviceData, error) {
		if hub != hubOne && hub != hubTwo {
			return h.far.DeviceData(ctx, scope, hub, deviceID)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		known := h.devices[scope+" "+deviceID]
		if known == nil || known.removed {
			return registration.DeviceData{}, registration.ErrNotFound
		}
		return known.data, nil
	})
}

func (h *judgingHub) ensure(scope, hub string, d registration.HubDevice) error {
	h.judge(scope, hub, d)
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.devices[scope+" "+d.DeviceID]
	if known == nil {
		known = &hubDevice{key: d.Credential.Primary, credential: d.Credential, removed: true}
		h.devices[scope+" "+d.DeviceID] = known
	}
	changed := !known.removed && !known.credential.Equal(d.Credential)
	switch {
	case changed && h.reach == registration.Elsewhere:
		return registration.ErrElsewhere
	case d.Generation < known.generation:
		return registration.ErrStale
	case d.Generation == known.generation && changed:
		h.w.Errorf("hub: generation %d of %s came with two keys", d.Generation, d.DeviceID)
	case changed:
		known.cuts++
	}
	known.key, known.credential, known.generation = d.Credential.Primary, d.Credential, d.Generation
	known.acked = append(known.acked, d)
	if d.Data != nil && (known.removed || d.Data.Replace) {
		known.data = *d.Data
	}
	known.removed, known.disabled = false, false
	return nil
}

func (h *judgingHub) judge(scope, hub string, d registration.HubDevice) {
	if want := map[string]string{scopeOne: hubOne, scopeTwo: hubTwo}[scope]; hub != want && (want != "" || h.w.core.HostScope(hub) != scope) {
		if of, further := h.w.core.HubScope(hub); !further || of != scope {
			h.w.Errorf("hub: scope %s asked for the hub %q", scope, hub)
		}
	}
	if !d.Credential.Valid() || bytes.Equal(d.Credential.Primary, make([]byte, len(d.Credential.Primary))) && d.Credential.Certificate == nil || d.DeviceID == "" || d.Generation == 0 {
		h.w.Errorf("hub: key of %d bytes, device %q, generation %d", len(d.Credential.Primary), d.DeviceID, d.Generation)
	}
}

// hang makes every call wait for its context to end, after calling reached.
func (h *judgingHub) hang(reached func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hangs, h.reached = true, reached
}

func (h *judgingHub) recover() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hangs = false
}

func (h *judgingHub) hanging() (reached func(), hangs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reached, h.hangs
}

// device returns what the hub holds of a device of the first scope.
func (h *judgingHub) device(deviceID string) hubDevice {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.devices[scopeOne+" "+deviceID]; d != nil {
		return *d
	}
	return hubDevice{}
}

// acknowledgedAt says whether the hub that an operation goes to has its key.
func (h *judgingHub) acknowledgedAt(hub, scope, deviceID string, credential []byte, generation uint64) bool {
	if !h.far.Has(hub) {
		return h.acknowledged(scope, deviceID, credential, generation)
	}
	d, there := h.far.At(hub, deviceID)
	return there && d.Generation >= generation && bytes.Equal(d.Credential.Encode(), credential)
}

func (h *judgingHub) acknowledged(scope, deviceID string, credential []byte, generation uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.devices[scope+" "+deviceID]
	if known == nil {
		return false
	}
	for _, d := range known.acked {
		if d.Generation == generation && bytes.Equal(d.Credential.Encode(), credential) {
			return true
		}
	}
	return false
}

func (s *tapStore) CloseRegistration(ctx context.Context, scope string, c registration.Closing) (revision uint64, verdict registration.Verdict, err error) {
	verdict, err = through(s.tap, "CloseRegistration", func() (registration.Verdict, error) {
		var verdict registration.Verdict
		var err error
		revision, verdict, err = s.Store.CloseRegistration(ctx, scope, c)
		return s.spent(c.ID, verdict, err)
	})
	return revision, verdict, err
}

func (s *tapStore) Closure(ctx context.Context, scope, id string) (registration.Closure, error) {
	return through(s.tap, "Closure", func() (registration.Closure, error) { return s.Store.Closure(ctx, scope, id) })
}
