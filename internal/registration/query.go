package registration

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"

	"latchkey.example/latchkey/dps"
)

// Sizes of a query's work. A page is found within a bounded number of rows: a query that few rows answer comes back with a short page,
// and the continuation goes on from there.
const (
	defaultPage = 100
	MaxPage     = 1000
	queryChunk  = 100
	pageBytes   = 4 << 20 // of documents, after which a page ends early
	queryBudget = 10_000  // rows read for one page
)

// Page is one page of a query.
type Page[T any] struct {
	Items        []T
	Continuation string // empty: there are no more
}

// collection is what a query walks over.
type collection[Row, Item any] struct {
	list func(ctx context.Context, scope, after string, limit int) ([]Row, error) // in order of folded ids
	id   func(Row) string
	size func(Row) int // bytes of it that an answer will hold, roughly
	show func(Row) (Item, func(dps.Field) (string, bool), error)
}

// QueryEnrollments gives the page of at most size enrollments (0: the default; more than MaxPage counts as MaxPage) that follows the
// continuation. The tree of the query is walked for each row; no text of it reaches the store.
func (c *Core) QueryEnrollments(ctx context.Context, by Caller, q dps.Query, size int, continuation string) (Page[dps.IndividualEnrollment], error) {
	s, _ := c.scope(by.Scope)
	return ask(ctx, c, s, q, "", size, continuation, collection[Listed, dps.IndividualEnrollment]{
		list: c.store.Enrollments,
		id:   func(l Listed) string { return l.Enrollment.ID },
		size: func(l Listed) int { return len(l.Enrollment.Document) },
		show: func(l Listed) (dps.IndividualEnrollment, func(dps.Field) (string, bool), error) {
			tested, err := c.wireEnrollment(s, l.Enrollment, l.Registration, true)
			shown := tested
			shown.RegistrationState = nil
			return shown, tested.Field, err
		},
	})
}

// QueryGroups is QueryEnrollments for enrollment groups.
func (c *Core) QueryGroups(ctx context.Context, by Caller, q dps.Query, size int, continuation string) (Page[dps.EnrollmentGroup], error) {
	s, _ := c.scope(by.Scope)
	return ask(ctx, c, s, q, "", size, continuation, collection[Group, dps.EnrollmentGroup]{
		list: c.store.Groups,
		id:   func(g Group) string { return g.ID },
		size: func(g Group) int { return len(g.Document) },
		show: func(g Group) (dps.EnrollmentGroup, func(dps.Field) (string, bool), error) {
			wire, err := c.wireGroup(s, g)
			return wire, wire.Field, err
		},
	})
}

// stateSize is about what a registration state takes in an answer.
const stateSize = 512

// QueryRegistrations is QueryEnrollments for the registrations of the devices that a group let in, or, with an empty group, of all devices of
// the scope. Registrations outlive their group, so one that is not there has those it left behind.
func (c *Core) QueryRegistrations(ctx context.Context, by Caller, group string, q dps.Query, size int, continuation string) (Page[dps.RegistrationState], error) {
	s, _ := c.scope(by.Scope)
	return ask(ctx, c, s, q, dps.FoldID(group), size, continuation, collection[Registration, dps.RegistrationState]{
		list: func(ctx context.Context, scope, after string, limit int) ([]Registration, error) {
			return c.store.Registrations(ctx, scope, group, after, limit)
		},
		id:   func(r Registration) string { return r.ID },
		size: func(Registration) int { return stateSize },
		show: func(r Registration) (dps.RegistrationState, func(dps.Field) (string, bool), error) {
			state := stateOf(r.ID, &r)
			return *state, state.Field, nil
		},
	})
}

// ask answers one page. What the continuation is bound to is the query and within, which narrows the collection.
func ask[Row, Item any](ctx context.Context, c *Core, s *scope, q dps.Query, within string, size int, continuation string, of collection[Row, Item]) (Page[Item], error) {
	binding := q.Collection.String() + "\x00" + within + "\x00" + q.Canonical()
	after, ok := s.openContinuation(binding, continuation)
	if !ok {
		return Page[Item]{}, c.fault(s, dps.CodeBadRequest, ReasonBadRequest, "x-ms-continuation: not a continuation of this query. Begin again without it.", nil)
	}
	if size <= 0 {
		size = defaultPage
	}
	size = min(size, MaxPage)
	var page Page[Item]
	total := 0
	for read := 0; read < queryBudget; {
		rows, err := of.list(ctx, s.ID, after, queryChunk)
		if err != nil {
			return Page[Item]{}, c.storeFault(s, "listing "+q.Collection.String(), err)
		}
		for _, row := range rows {
			item, field, err := of.show(row)
			if err != nil {
				return Page[Item]{}, err
			}
			if q.Where != nil && !q.Where.Matches(field) {
				after = dps.FoldID(of.id(row))
				continue
			}
			if total += of.size(row); len(page.Items) == size || len(page.Items) > 0 && total > pageBytes { // there is more, so this page is not the last
				page.Continuation = s.sealContinuation(binding, after)
				return page, nil
			}
			page.Items = append(page.Items, item)
			after = dps.FoldID(of.id(row))
		}
		if read += len(rows); len(rows) < queryChunk {
			return page, nil
		}
	}
	page.Continuation = s.sealContinuation(binding, after)
	return page, nil
}

// A continuation is where to go on, signed together with what it continues, its binding: MAC ‖ place. It is opaque to clients, and one that was
// changed, or is of another query or scope, is refused.
const continuationMAC = 16

func (s *scope) continuationMAC(binding, after string) []byte {
	key, err := hkdf.Key(sha256.New, s.root, nil, "latchkey continuation v1", 32)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(binding + "\x00" + after))
	return mac.Sum(nil)[:continuationMAC]
}

func (s *scope) sealContinuation(binding, after string) string {
	return base64.RawURLEncoding.EncodeToString(append(s.continuationMAC(binding, after), after...))
}

func (s *scope) openContinuation(binding, continuation string) (after string, ok bool) {
	if continuation == "" {
		return "", true
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimSpace(continuation))
	if err != nil || len(raw) < continuationMAC {
		return "", false
	}
	after = string(raw[continuationMAC:])
	return after, subtle.ConstantTimeCompare(raw[:continuationMAC], s.continuationMAC(binding, after)) == 1
}
