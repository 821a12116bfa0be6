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
type Page struct {
	Enrollments  []dps.IndividualEnrollment
	Continuation string // empty: there are no more
}

// QueryEnrollments gives the page of at most size enrollments (0: the default; more than MaxPage counts as MaxPage) that follows the
// continuation. The tree of the query is walked for each row; no text of it reaches the store.
func (c *Core) QueryEnrollments(ctx context.Context, by Caller, q dps.Query, size int, continuation string) (Page, error) {
	s, _ := c.scope(by.Scope)
	binding := dps.CollectionEnrollments.String() + "\x00" + q.Canonical()
	after, ok := s.openContinuation(binding, continuation)
	if !ok {
		return Page{}, c.fault(s, dps.CodeBadRequest, ReasonBadRequest, "x-ms-continuation: not a continuation of this query. Begin again without it.", nil)
	}
	if size <= 0 {
		size = defaultPage
	}
	size = min(size, MaxPage)
	var page Page
	total := 0
	for read := 0; read < queryBudget; {
		lines, err := c.store.Enrollments(ctx, s.ID, after, queryChunk)
		if err != nil {
			return Page{}, c.storeFault(s, "listing enrollments", err)
		}
		for _, line := range lines {
			wire, err := c.wireEnrollment(s, line.Enrollment, line.Registration, true)
			if err != nil {
				return Page{}, err
			}
			if q.Where != nil && !q.Where.Matches(wire.Field) {
				after = dps.FoldID(line.Enrollment.ID)
				continue
			}
			if total += len(line.Enrollment.Document); len(page.Enrollments) == size || len(page.Enrollments) > 0 && total > pageBytes { // there is more, so this page is not the last
				page.Continuation = s.sealContinuation(binding, after)
				return page, nil
			}
			wire.RegistrationState = nil
			page.Enrollments = append(page.Enrollments, wire)
			after = dps.FoldID(line.Enrollment.ID)
		}
		if read += len(lines); len(lines) < queryChunk {
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
