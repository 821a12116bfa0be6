// Package fsck checks what a store holds against the promises P1 to P4 of the design: that an acknowledged registration is whole, that a device id
// belongs to one registration, that no assignment stands without its audit row, and that no challenge could be redeemed twice. It only reads, a
// consistent snapshot of one device at a time, so a service may run on the store meanwhile; what looks wrong is read again before it is told.
//
// What ties an assignment to its audit row is its operation, which the service keeps for some eleven minutes. P3 is checked while it is there; of a
// registration whose operation was pruned, a lost audit row is not found. What its hub holds is compared with what it was given all the same.
//
// It trusts nothing of the store but its answers, and knows no kind of store.
package fsck

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Store is what is checked: the service's store, with the identities of the embedded hub.
type Store interface {
	registration.Store
	// Identity reads one device of the embedded hub; registration.ErrNotFound.
	Identity(ctx context.Context, scope, hub, deviceID string) (registration.Identity, error)
	// Identities is a page of those of a hub, in order of their ids.
	Identities(ctx context.Context, scope, hub, after string, limit int) ([]registration.Identity, error)
	// HubLeftovers names devices whose identity is gone while their twin or messages are there.
	HubLeftovers(ctx context.Context, limit int) ([]registration.HubLeftover, error)
}

// Problem is one thing that is not as it must be.
type Problem struct {
	Promise string // P1 to P4, or empty for what no promise names
	Scope   string
	Object  string // an id, never a secret
	What    string // a sentence without full stop
}

func (p Problem) String() string {
	if p.Promise == "" {
		return fmt.Sprintf("scope %s, %s: %s", p.Scope, p.Object, p.What)
	}
	return fmt.Sprintf("%s, scope %s, %s: %s", p.Promise, p.Scope, p.Object, p.What)
}

// Summary says how much was looked at.
type Summary struct {
	Scopes, Enrollments, Groups, CACertificates, Registrations, SealedValues, Problems int
}

// page is how many rows are read at once.
const page = 500

// checker is one run.
type checker struct {
	ctx    context.Context
	store  Store
	sealer registration.Sealer
	tell   func(Problem)
	sum    Summary

	scope   registration.Scope
	devices map[[sha256.Size]byte]string // hub and device id → registration
	homes   map[[sha256.Size]byte]string // device id → registration
	removed map[string]bool              // device ids that were removed at a hub, as the audit log says; nil: it was not looked into yet
}

// Check walks everything and tells each problem. An error means that the store could not be read.
func Check(ctx context.Context, store Store, sealer registration.Sealer, tell func(Problem)) (Summary, error) {
	c := &checker{ctx: ctx, store: store, sealer: sealer, tell: tell}
	scopes, err := store.Scopes(ctx)
	if err != nil {
		return c.sum, err
	}
	homes := 0
	for _, scope := range scopes {
		if scope.Home {
			homes++
		}
		c.scope, c.devices, c.homes, c.removed = scope, map[[sha256.Size]byte]string{}, map[[sha256.Size]byte]string{}, nil
		c.sum.Scopes++
		for _, part := range []func() error{c.hubs, c.enrollments, c.groups, c.authorities, c.registrations, c.identities} {
			if err := part(); err != nil {
				return c.sum, err
			}
		}
	}
	if homes != 1 {
		c.scope = registration.Scope{ID: "-"}
		c.problem("", "installation", "there are %d home scopes, and there must be one", homes)
	}
	if err := c.leftovers(); err != nil {
		return c.sum, err
	}
	return c.sum, c.sealed()
}

func (c *checker) problem(promise, object, format string, args ...any) {
	c.sum.Problems++
	c.tell(Problem{promise, c.scope.ID, object, fmt.Sprintf(format, args...)})
}

// walk reads a list to its end; each gives the id of its last row.
func walk(next func(after string) (last string, n int, err error)) error {
	for after := ""; ; {
		last, n, err := next(after)
		if err != nil || n < page {
			return err
		}
		if last <= after {
			return errors.New("a list does not go on")
		}
		after = last
	}
}

// wasRemoved says whether the operator had a device removed at its hub and nobody put it there again: then it is not lost. The log is walked once, and only
// if a device is missing.
func (c *checker) wasRemoved(deviceID string) (bool, error) {
	if c.removed == nil {
		c.removed = map[string]bool{}
		for after := uint64(0); ; {
			rows, err := c.store.AuditPage(c.ctx, c.scope.ID, after, page)
			if err != nil {
				return false, err
			}
			for _, row := range rows {
				switch after = row.Seq; row.Action {
				case registration.ActionIdentityDelete, registration.ActionDeviceDelete:
					c.removed[row.Object] = true
				case registration.ActionIdentityPut, registration.ActionDevicePut:
					delete(c.removed, row.Object)
				}
			}
			if len(rows) < page {
				break
			}
		}
	}
	return c.removed[deviceID], nil
}

// hubs holds the linked hubs of a scope against what the service takes.
func (c *checker) hubs() error {
	for _, hub := range c.scope.Hubs {
		for _, what := range judgeHub(c.scope, hub) {
			c.problem("", "hub "+hub.Name, "%s", what)
		}
	}
	return nil
}

func (c *checker) enrollments() error {
	return walk(func(after string) (string, int, error) {
		rows, err := c.store.Enrollments(c.ctx, c.scope.ID, after, page)
		for _, row := range rows {
			c.sum.Enrollments++
			after = dps.FoldID(row.Enrollment.ID)
			for _, what := range c.judgeEnrollment(row.Enrollment) {
				c.problem("", "enrollment "+row.Enrollment.ID, "%s", what)
			}
		}
		return after, len(rows), err
	})
}

func (c *checker) groups() error {
	return walk(func(after string) (string, int, error) {
		rows, err := c.store.Groups(c.ctx, c.scope.ID, after, page)
		for _, row := range rows {
			c.sum.Groups++
			after = dps.FoldID(row.ID)
			for _, what := range c.judgeGroup(row) {
				c.problem("", "group "+row.ID, "%s", what)
			}
		}
		return after, len(rows), err
	})
}

func (c *checker) authorities() error {
	return walk(func(after string) (string, int, error) {
		rows, err := c.store.CACertificates(c.ctx, c.scope.ID, after, page)
		for _, row := range rows {
			c.sum.CACertificates++
			after = dps.FoldID(row.Name)
			if _, err := dps.ParseCertificate(row.DER); err != nil {
				c.problem("", "CA certificate "+row.Name, "it cannot be read: %v", err)
			}
		}
		return after, len(rows), err
	})
}

func (c *checker) registrations() error {
	return walk(func(after string) (string, int, error) {
		rows, err := c.store.Registrations(c.ctx, c.scope.ID, "", after, page)
		if err != nil {
			return "", 0, err
		}
		for _, row := range rows {
			c.sum.Registrations++
			after = dps.FoldID(row.ID)
			if err := c.device(after); err != nil {
				return "", 0, err
			}
		}
		return after, len(rows), nil
	})
}

// device judges one id, twice if need be: between the readings of its parts it may have moved.
func (c *checker) device(id string) error {
	var found []Problem
	var moved uint64
	for range 3 {
		d, err := c.store.Device(c.ctx, c.scope.ID, id)
		if err != nil {
			return err
		}
		if d.Registration == nil {
			return nil // deleted meanwhile
		}
		if found, err = c.judgeDevice(id, d); err != nil {
			return err
		}
		if len(found) == 0 || moved == d.Registration.Revision {
			break // it has not moved since it looked wrong
		}
		moved = d.Registration.Revision
	}
	for _, p := range found {
		c.sum.Problems++
		c.tell(p)
	}
	return nil
}

// sealed opens every sealed value.
func (c *checker) sealed() error {
	for cursor := ""; ; {
		n, shut, next, err := c.sealedPage(cursor)
		if err != nil {
			return err
		}
		c.sum.SealedValues += n
		for _, v := range shut {
			c.scope = registration.Scope{ID: v.Scope}
			c.problem("", string(v.Kind)+" "+v.Key, "the master key does not open it")
		}
		if next == "" {
			return nil
		}
		cursor = next
	}
}

// sealedPage reads the page after the cursor, and again while something in it is shut that was not shut before: it may have been written anew
// since it was listed. The last reading is the one that counts, its end too: what came between and pushed a value out of the page has pushed it
// into the next one.
func (c *checker) sealedPage(cursor string) (n int, shut []registration.SealedValue, next string, err error) {
	seen := map[[sha256.Size]byte]bool{}
	for range 3 {
		var values []registration.SealedValue
		if values, next, err = c.store.SealedValues(c.ctx, cursor, page); err != nil {
			return 0, nil, "", err
		}
		n, shut = len(values), nil
		settled := true
		for _, v := range values {
			if _, err := c.sealer.Open(v.Context(), v.Sealed); err == nil {
				continue
			}
			shut = append(shut, v)
			id := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %x", v.Kind, v.Scope, v.Key, v.Sealed))
			settled = settled && seen[id]
			seen[id] = true
		}
		if settled {
			break
		}
	}
	return n, shut, next, nil
}
