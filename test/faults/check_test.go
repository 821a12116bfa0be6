package faults

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/rig"
)

// forgeries are false memories: what a device is made to remember otherwise than it was told. The device has two owners, its last two proofs are of one each.
var forgeries = map[string]struct {
	kind  Kind
	forge func(d *Device, last, before *Proof)
}{
	"an acknowledgement that never was": {Lost, func(d *Device, last, _ *Proof) {
		d.proofs = append(d.proofs, &Proof{Owner: last.Owner, Operation: "5.0", Told: time.Now()})
	}},
	"an acknowledgement of long ago": {Lost, func(d *Device, last, _ *Proof) {
		d.proofs = slices.Insert(d.proofs, 0, &Proof{Owner: last.Owner, Operation: "5.0"})
	}},
	"a refusal that never was": {Lost, func(d *Device, last, _ *Proof) {
		d.proofs = append(d.proofs, &Proof{Owner: last.Owner, Refused: true})
	}},
	"a registration that was not asked for": {Invented, func(d *Device, _, _ *Proof) { d.proofs = d.proofs[1:] }},
	"a proof that counted twice":            {Doubled, func(d *Device, _, _ *Proof) { d.proofs = d.proofs[:len(d.proofs)-1] }},
	"an acknowledgement that was a refusal": {Invented, func(d *Device, _, _ *Proof) {
		for _, p := range d.proofs {
			p.Operation, p.Refused = "", true
		}
	}},
	"another order":          {Wrong, func(_ *Device, last, before *Proof) { *last, *before = *before, *last }},
	"another owner":          {Wrong, func(_ *Device, last, before *Proof) { last.Owner = before.Owner }},
	"the old owner's key":    {Wrong, func(_ *Device, last, before *Proof) { last.Key = before.Key }},
	"another key":            {Wrong, func(_ *Device, last, _ *Proof) { last.Key = make([]byte, 32) }},
	"an old owner's key now": {Wrong, func(_ *Device, last, before *Proof) { before.Key = last.Key }},
	"another device id":      {Wrong, func(_ *Device, last, _ *Proof) { last.DeviceID = "other" }},
	"another hub":            {Wrong, func(_ *Device, last, _ *Proof) { last.Hub = "other.test" }},
	"nothing at all":         {Invented, func(d *Device, _, _ *Proof) { d.ID = "unknown" }},
}

// falsehoods are of the store: what is read otherwise than it is stored, of one device.
var falsehoods = map[string]struct {
	kind   Kind
	change func(*falseStore)
}{
	"a registration is gone": {Lost, func(f *falseStore) { f.device = func(d *registration.Device) { d.Registration = nil } }},
	"an older operation is the last": {Lost, func(f *falseStore) {
		f.device = func(d *registration.Device) { d.Registration.OperationID = "5.0" }
	}},
	"it is assigning still": {Lost, func(f *falseStore) {
		f.device = func(d *registration.Device) { d.Registration.Status = registration.Assigning }
	}},
	"a redemption is not counted": {Lost, func(f *falseStore) {
		f.device = func(d *registration.Device) { d.Generation-- }
	}},
	"a redemption is counted twice": {Doubled, func(f *falseStore) { f.device = func(d *registration.Device) { d.Generation++ } }},
	"its hub does not know it": {Lost, func(f *falseStore) {
		f.identity = func(*registration.Identity) error { return registration.ErrNotFound }
	}},
	"what its hub holds is damaged": {Wrong, func(f *falseStore) {
		f.identity = func(i *registration.Identity) error { i.SealedKey = i.SealedKey[1:]; return nil }
	}},
	"two have its device id": {Doubled, func(f *falseStore) { f.twin = "twin" }},
	"an operation is gone": {Lost, func(f *falseStore) {
		f.operation = func(*registration.Operation) error { return registration.ErrNotFound }
	}},
	"an operation is assigning still": {Lost, func(f *falseStore) {
		f.operation = func(o *registration.Operation) error { o.Status = registration.Assigning; return nil }
	}},
	"a device is assigned twice": {Doubled, func(f *falseStore) { f.twice = registration.ActionAssign }},
	"a proof is accepted twice":  {Doubled, func(f *falseStore) { f.twice = registration.ActionRegister }},
	"an operation is another owner's": {Wrong, func(f *falseStore) {
		f.operation = func(o *registration.Operation) error { o.SRK = nil; return nil }
	}},
	"an audit row is gone": {Lost, func(f *falseStore) {
		f.audit = func(a *registration.Audit) {
			if a.Action == registration.ActionRegister {
				a.Action = registration.ActionPoll
			}
		}
	}},
	"an assignment has no audit row": {Lost, func(f *falseStore) {
		f.audit = func(a *registration.Audit) {
			if a.Action == registration.ActionAssign {
				a.Action = registration.ActionPoll
			}
		}
	}},
	"a refusal that nobody was told of": {Wrong, func(f *falseStore) {
		f.audit = func(a *registration.Audit) {
			if a.Action == registration.ActionAssign {
				a.Action, a.Outcome = registration.ActionRegister, registration.OutcomeRefused
			}
		}
	}},
}

// falseStore tells falsehoods about one device.
type falseStore struct {
	fsck.Store
	id        string
	twin      string
	twice     string // action of audit rows that are there twice
	device    func(*registration.Device)
	operation func(*registration.Operation) error
	identity  func(*registration.Identity) error
	audit     func(*registration.Audit)
}

func (f *falseStore) Device(ctx context.Context, scope, id string) (registration.Device, error) {
	d, err := f.Store.Device(ctx, scope, id)
	if id == f.id && f.device != nil && err == nil {
		f.device(&d)
	}
	return d, err
}

func (f *falseStore) Operation(ctx context.Context, scope, id string) (registration.Operation, error) {
	o, err := f.Store.Operation(ctx, scope, id)
	if o.RegistrationID == f.id && f.operation != nil && err == nil {
		err = f.operation(&o)
	}
	return o, err
}

func (f *falseStore) Identity(ctx context.Context, scope, hub, deviceID string) (registration.Identity, error) {
	i, err := f.Store.Identity(ctx, scope, hub, deviceID)
	if deviceID == f.id && f.identity != nil && err == nil {
		err = f.identity(&i)
	}
	return i, err
}

func (f *falseStore) AuditPage(ctx context.Context, scope string, after uint64, limit int) ([]registration.AuditLine, error) {
	lines, err := f.Store.AuditPage(ctx, scope, after, limit)
	for i := range lines {
		if lines[i].Object == f.id && f.audit != nil {
			f.audit(&lines[i].Audit)
		}
		if lines[i].Object == f.id && lines[i].Action == f.twice {
			lines = append(lines, lines[i])
		}
	}
	return lines, err
}

func (f *falseStore) Registrations(ctx context.Context, scope, group, after string, limit int) ([]registration.Registration, error) {
	rows, err := f.Store.Registrations(ctx, scope, group, after, limit)
	for _, row := range rows {
		if row.ID == f.id && f.twin != "" {
			rows = append(rows, row)
		}
	}
	return rows, err
}

// Whatever is told otherwise than it is, by a device or by the store, is found: each line of the check can fail.
func TestTheCheckFindsEveryFalsehood(t *testing.T) {
	s := rig.New(t, rig.Config{})
	load := startOn(t, s, seed(t))
	if err := load.Await(400, time.Minute); err != nil {
		t.Fatal(err)
	}
	load.Stop(endLimit)
	mustHold(t, s, load)
	at := slices.IndexFunc(load.devices, hasTwoOwners)
	if at < 0 {
		t.Fatal("no device has two owners")
	}
	store, ring := openFile(t, s)
	want := func(t *testing.T, store fsck.Store, devices []*Device, kind Kind) {
		found, err := Check(t.Context(), store, ring, s.IDScope, devices)
		if err != nil {
			t.Fatal(err)
		}
		wantFinding(t, found, kind)
	}
	for name, f := range forgeries {
		t.Run(name, func(t *testing.T) {
			devices := slices.Clone(load.devices)
			devices[at] = devices[at].clone()
			last := len(devices[at].proofs) - 1
			f.forge(devices[at], devices[at].proofs[last], devices[at].proofs[last-1])
			want(t, store, devices, f.kind)
		})
	}
	for name, f := range falsehoods {
		t.Run(name, func(t *testing.T) {
			liar := &falseStore{Store: store, id: load.devices[at].ID}
			f.change(liar)
			want(t, liar, load.devices, f.kind)
		})
	}
}

// hasTwoOwners: its last two proofs are of one each, and it knows both hub keys.
func hasTwoOwners(d *Device) bool {
	n := len(d.proofs)
	return !d.rival && n > 1 && d.proofs[n-1].Assigned && d.proofs[n-2].Assigned && !bytes.Equal(d.proofs[n-1].Owner, d.proofs[n-2].Owner)
}

func (d *Device) clone() *Device {
	twin := *d
	twin.proofs = nil
	for _, p := range d.proofs {
		again := *p
		twin.proofs = append(twin.proofs, &again)
	}
	return &twin
}
