// Package reading reads all that a store answers with, so that two stores, or one before and after a change, can be compared. It is also compiled
// into the programs of earlier releases that make the test data of test/upgrade, so it uses nothing that came later than the first release.
package reading

import (
	"context"
	"encoding/json"
	"errors"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Store is what is read: the service's store, with the identities of the embedded hub.
type Store interface {
	registration.Store
	Identity(ctx context.Context, scope, hub, deviceID string) (registration.Identity, error)
}

// Reading is all that a store answers with. Nothing in it is opened: secrets are there as they are sealed.
type Reading struct {
	Scopes []registration.Scope
	Held   []Held // of each scope in order, then of the deleted ones that were named
	Sealed []registration.SealedValue
}

// Held is what a scope holds.
type Held struct {
	Scope          string
	GroupsRevision uint64
	Holdings       registration.Holdings
	Enrollments    []registration.Listed
	Groups         []registration.Group
	CACertificates []registration.CACertificate
	Registrations  []registration.Registration
	Devices        []registration.Device // of every id that has an enrollment or a registration, and of those that were named
	Identities     []registration.Identity
	Audit          []registration.AuditLine
}

// page is small, so that there are several.
const page = 50

// Of reads a store. deleted are scopes that are gone, whose logs stay; ids are such as have no row that a list shows.
func Of(ctx context.Context, store Store, deleted, ids []string) (r Reading, err error) {
	if r.Scopes, err = store.Scopes(ctx); err != nil {
		return Reading{}, err
	}
	var names []string
	for _, scope := range r.Scopes {
		names = append(names, scope.ID)
	}
	for _, name := range append(names, deleted...) {
		held := Held{Scope: name}
		if err := held.read(ctx, store, ids); err != nil {
			return Reading{}, err
		}
		r.Held = append(r.Held, held)
	}
	for cursor := ""; ; {
		values, next, err := store.SealedValues(ctx, cursor, page)
		if err != nil {
			return Reading{}, err
		}
		r.Sealed = append(r.Sealed, values...)
		if cursor = next; cursor == "" {
			return r, nil
		}
	}
}

func (h *Held) read(ctx context.Context, store Store, ids []string) (err error) {
	if h.GroupsRevision, err = store.GroupsRevision(ctx, h.Scope); err != nil {
		return err
	}
	if h.Holdings, err = store.Holdings(ctx, h.Scope); err != nil {
		return err
	}
	for _, read := range []func() error{
		func() error {
			return list(&h.Enrollments, func(l registration.Listed) string { return l.Enrollment.ID },
				func(after string) ([]registration.Listed, error) { return store.Enrollments(ctx, h.Scope, after, page) })
		},
		func() error {
			return list(&h.Groups, func(g registration.Group) string { return g.ID },
				func(after string) ([]registration.Group, error) { return store.Groups(ctx, h.Scope, after, page) })
		},
		func() error {
			return list(&h.CACertificates, func(c registration.CACertificate) string { return c.Name },
				func(after string) ([]registration.CACertificate, error) {
					return store.CACertificates(ctx, h.Scope, after, page)
				})
		},
		func() error {
			return list(&h.Registrations, func(r registration.Registration) string { return r.ID },
				func(after string) ([]registration.Registration, error) {
					return store.Registrations(ctx, h.Scope, "", after, page)
				})
		},
		func() error { return h.readDevices(ctx, store, ids) },
		func() error { return h.readAudit(ctx, store) },
	} {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

// list reads the pages of a list.
func list[T any](into *[]T, id func(T) string, next func(after string) ([]T, error)) error {
	for after := ""; ; {
		rows, err := next(after)
		if err != nil {
			return err
		}
		*into = append(*into, rows...)
		if len(rows) < page {
			return nil
		}
		after = dps.FoldID(id(rows[len(rows)-1]))
	}
}

func (h *Held) readDevices(ctx context.Context, store Store, ids []string) error {
	seen := map[string]bool{}
	for _, e := range h.Enrollments {
		ids = append(ids[:len(ids):len(ids)], e.Enrollment.ID)
	}
	for _, r := range h.Registrations {
		ids = append(ids[:len(ids):len(ids)], r.ID)
	}
	for _, id := range ids {
		if id = dps.FoldID(id); seen[id] {
			continue
		}
		seen[id] = true
		d, err := store.Device(ctx, h.Scope, id)
		if err != nil {
			return err
		}
		h.Devices = append(h.Devices, d)
		if d.Registration == nil || d.Registration.DeviceID == "" {
			continue
		}
		identity, err := store.Identity(ctx, h.Scope, d.Registration.Hub, d.Registration.DeviceID)
		if errors.Is(err, registration.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		h.Identities = append(h.Identities, identity)
	}
	return nil
}

func (h *Held) readAudit(ctx context.Context, store Store) error {
	for after := uint64(0); ; {
		lines, err := store.AuditPage(ctx, h.Scope, after, page)
		if err != nil {
			return err
		}
		h.Audit = append(h.Audit, lines...)
		if len(lines) < page {
			return nil
		}
		after = lines[len(lines)-1].Seq
	}
}

// JSON is a reading as it is kept.
func (r Reading) JSON() []byte {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		panic(err) // it holds nothing that has no JSON
	}
	return text
}
