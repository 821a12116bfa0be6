package faults

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/registration"
)

// kept is how long an operation that was acknowledged must still be there and be told; who asks shortly before its end may be late.
const (
	kept      = 10 * time.Minute
	endMargin = time.Minute
)

// page is how many rows are read at once.
const page = 500

// checker compares what devices were told with a store.
type checker struct {
	ctx    context.Context
	store  fsck.Store
	sealer registration.Sealer
	scope  string
	findings

	redeemed map[string][]redeemed // by registration id, in the log's order
	refused  map[string]int        // refused proofs in the log, likewise
	assigned map[string]int        // assignments in the log, by operation
}

// redeemed is an accepted proof in the audit log.
type redeemed struct {
	Operation string `json:"operation"`
	Owner     string `json:"owner"` // the storage root key's name, hex
}

// Check compares all that the devices were told with a store that nobody writes to any more. The audit log has every proof that was accepted, each
// once; what it says is compared as a whole, and then each device's registration, operation and identity at its hub.
func Check(ctx context.Context, store fsck.Store, sealer registration.Sealer, scope string, devices []*Device) ([]Finding, error) {
	c := &checker{ctx: ctx, store: store, sealer: sealer, scope: scope, redeemed: map[string][]redeemed{}, refused: map[string]int{}, assigned: map[string]int{}}
	if err := c.readAudit(); err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, d := range devices {
		known[d.ID] = true
		if err := c.device(d); err != nil {
			return nil, err
		}
	}
	for id := range c.redeemed {
		if !known[id] {
			c.add(Invented, id, "the audit log has a proof of a device that never registered")
		}
	}
	err := c.list(known)
	return c.all(), err
}

// readAudit takes every accepted proof and every assignment from the audit log.
func (c *checker) readAudit() error {
	for after := uint64(0); ; {
		lines, err := c.store.AuditPage(c.ctx, c.scope, after, page)
		if err != nil || len(lines) == 0 {
			return err
		}
		for _, line := range lines {
			after = line.Seq
			switch {
			case line.Action != registration.ActionRegister && line.Action != registration.ActionAssign:
				continue
			case line.Outcome == registration.OutcomeRefused:
				c.refused[line.Object]++
				continue
			}
			var r redeemed
			if err := json.Unmarshal([]byte(line.Detail), &r); err != nil {
				return fmt.Errorf("audit row %d: %w", line.Seq, err)
			}
			if line.Action == registration.ActionAssign {
				c.assigned[r.Operation]++
			} else {
				c.redeemed[line.Object] = append(c.redeemed[line.Object], r)
			}
		}
	}
}

// list finds registrations of nobody, and device ids with two of them.
func (c *checker) list(known map[string]bool) error {
	named := map[string]string{}
	for after := ""; ; {
		rows, err := c.store.Registrations(c.ctx, c.scope, "", after, page)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			after = row.ID
			if !known[row.ID] {
				c.add(Invented, row.ID, "it is registered and nobody asked for it")
			}
			name := row.Hub + "/" + row.DeviceID
			if other, twice := named[name]; twice {
				c.add(Doubled, name, "it is the device of %s and of %s", other, row.ID)
			}
			named[name] = row.ID
		}
	}
}

// device holds one device's proofs against all that is stored of it.
func (c *checker) device(d *Device) error {
	c.proofs(d)
	stored, err := c.store.Device(c.ctx, c.scope, d.ID)
	if err != nil {
		return err
	}
	acknowledged, refused, unknown := d.count()
	if n := int(stored.Generation); n < acknowledged+refused {
		c.add(Lost, d.ID, "%d proofs were acknowledged, %d refused, and %d are counted", acknowledged, refused, n)
	} else if n > acknowledged+refused+unknown {
		c.add(Doubled, d.ID, "%d proofs were sent and %d are counted", acknowledged+refused+unknown, n)
	}
	if n := c.refused[d.ID]; n < refused || n > refused+unknown {
		c.add(Wrong, d.ID, "%d proofs were refused, and the audit log has %d", refused, n)
	}
	last := d.last()
	switch {
	case last == nil && unknown == 0 && stored.Registration != nil:
		c.add(Invented, d.ID, "no proof was acknowledged, and it is registered")
		return nil
	case last == nil:
		return nil
	case stored.Registration == nil:
		c.add(Lost, d.ID, "operation %s was acknowledged, and there is no registration", last.Operation)
		return nil
	}
	if err := c.operations(d); err != nil || unknown > 0 { // the newest is perhaps one that nobody was told of
		return err
	}
	c.registration(d, stored, last)
	return c.identity(d, stored)
}

// proofs compares what a device was told with its rows in the audit log: each acknowledged proof has one, in their order, and no other has any.
func (c *checker) proofs(d *Device) {
	rows := c.redeemed[d.ID]
	_, _, unknown := d.count()
	places := map[string]int{}
	for i, row := range rows {
		if _, twice := places[row.Operation]; twice {
			c.add(Doubled, d.ID, "the audit log has operation %s twice", row.Operation)
		}
		places[row.Operation] = i
	}
	before := -1
	for _, p := range d.proofs {
		if p.Operation == "" {
			continue
		}
		place, there := places[p.Operation]
		if !there {
			c.add(Lost, d.ID, "operation %s was acknowledged and is not in the audit log", p.Operation)
			continue
		}
		delete(places, p.Operation)
		if place < before {
			c.add(Wrong, d.ID, "operation %s is in the audit log before one that was acknowledged before it", p.Operation)
		}
		before = place
		if owner := nameOf(p.Owner); rows[place].Owner != owner {
			c.add(Wrong, d.ID, "operation %s was proved by the owner %s, and the audit log says %s", p.Operation, owner, rows[place].Owner)
		}
		if n := c.assigned[p.Operation]; n > 1 {
			c.add(Doubled, d.ID, "operation %s was assigned %d times by the audit log", p.Operation, n)
		} else if n == 0 && p.Assigned {
			c.add(Lost, d.ID, "operation %s was assigned, and the audit log does not say so", p.Operation)
		}
	}
	if len(places) > unknown {
		c.add(Invented, d.ID, "the audit log has %d proofs that were never acknowledged, and %d were left without an answer", len(places), unknown)
	}
}

// operations are kept for their time, the superseded ones too.
func (c *checker) operations(d *Device) error {
	for _, p := range d.proofs {
		if p.Operation == "" || time.Since(p.Told) > kept {
			continue
		}
		o, err := c.store.Operation(c.ctx, c.scope, p.Operation)
		switch {
		case errors.Is(err, registration.ErrNotFound):
			c.add(Lost, d.ID, "operation %s was acknowledged %v ago and is not there", p.Operation, time.Since(p.Told).Round(time.Second))
		case err != nil:
			return err
		case p.Assigned && o.Status != registration.Assigned:
			c.add(Lost, d.ID, "operation %s was assigned, and is stored as %s", p.Operation, o.Status)
		case o.RegistrationID != d.ID || !bytes.Equal(o.SRK, p.Owner):
			c.add(Wrong, d.ID, "operation %s is stored as one of %s, or of another owner", p.Operation, o.RegistrationID)
		}
	}
	return nil
}

// registration compares a device's registration with its last proof.
func (c *checker) registration(d *Device, stored registration.Device, last *Proof) {
	r := stored.Registration
	switch {
	case r.OperationID != last.Operation:
		c.add(Lost, d.ID, "operation %s was acknowledged last, and %s is stored as the last", last.Operation, r.OperationID)
	case !bytes.Equal(r.SRK, last.Owner):
		c.add(Wrong, d.ID, "the owner stored is not the one that proved itself last")
	case last.Assigned && r.Status != registration.Assigned:
		c.add(Lost, d.ID, "it was assigned, and is stored as %s", r.Status)
	case last.Assigned && (r.Hub != last.Hub || r.DeviceID != last.DeviceID):
		c.add(Wrong, d.ID, "it was assigned as %s at %s, and is stored as %s at %s", last.DeviceID, last.Hub, r.DeviceID, r.Hub)
	}
	if !last.Assigned {
		return
	}
	if key, err := c.open(registration.ContextHubKey(c.scope, d.ID), r.SealedHubKey); err != nil || !bytes.Equal(key.Primary, last.Key) {
		c.add(Wrong, d.ID, "the hub key stored is not the one that the device holds: %v", err)
	}
}

// identity compares what the hub holds with what the device holds: its owner's key in one slot, and no other key of it anywhere.
func (c *checker) identity(d *Device, stored registration.Device) error {
	r, last := stored.Registration, d.last()
	identity, err := c.store.Identity(c.ctx, c.scope, r.Hub, r.DeviceID)
	if errors.Is(err, registration.ErrNotFound) {
		if r.Status == registration.Assigned {
			c.add(Lost, d.ID, "it is assigned and its hub does not know it")
		}
		return nil
	}
	if err != nil {
		return err
	}
	held, err := c.open(registration.ContextIdentityKey(c.scope, r.Hub, r.DeviceID), identity.SealedKey)
	if err != nil {
		c.add(Wrong, d.ID, "what its hub holds cannot be opened: %v", err)
		return nil
	}
	if last.Assigned && (!bytes.Equal(held.Primary, last.Key) || held.Secondary != nil) {
		c.add(Wrong, d.ID, "its hub holds another key than the device")
	}
	for _, p := range d.proofs {
		if r.Status == registration.Assigned && p.Assigned && !bytes.Equal(p.Owner, last.Owner) && bytes.Equal(held.Primary, p.Key) {
			c.add(Wrong, d.ID, "its hub holds the key of an owner before the last")
		}
	}
	return nil
}

func (c *checker) open(context string, sealed []byte) (registration.Credential, error) {
	encoded, err := c.sealer.Open(context, sealed)
	if err != nil {
		return registration.Credential{}, err
	}
	return registration.DecodeCredential(encoded)
}

// nameOf is the TPM name of a storage root key, hex.
func nameOf(srk []byte) string {
	key, err := attest.ParseSRK(srk)
	if err != nil {
		return err.Error()
	}
	return hex.EncodeToString(key.Name())
}
