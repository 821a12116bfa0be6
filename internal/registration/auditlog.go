package registration

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// AuditLogRight is what reading the log needs: it tells of enrollments and of registrations, so who may read only one of them may not read it.
const AuditLogRight = EnrollmentRead | RegistrationStatusRead

// AuditFilter selects rows of the log; a zero member selects all.
type AuditFilter struct {
	Object string    // an id, compared without regard to case
	Action string    // one of the closed set of actions
	Since  time.Time // rows written at or after it
}

// AuditLogPage is one page of the log.
type AuditLogPage struct {
	Lines        []AuditLine
	Continuation string // empty: there was no more
	// Next is always there: asked with it, the log goes on behind the last row that this page took into account. It is Continuation if
	// that is there.
	Next string
}

// AuditLog gives the page of at most size rows (0: the default; more than MaxPage counts as MaxPage) that follows the continuation, oldest
// first. A page is found within a bounded number of rows, as in a query, so it may be short, or empty, and still have a continuation.
func (c *Core) AuditLog(ctx context.Context, by Caller, filter AuditFilter, size int, continuation string) (AuditLogPage, error) {
	s, _ := c.scope(by.Scope)
	refuse := func(detail string) (AuditLogPage, error) {
		return AuditLogPage{}, c.fault(s, dps.CodeBadRequest, ReasonBadRequest, detail, nil)
	}
	if filter.Action != "" && !slices.Contains(actions, filter.Action) {
		return refuse("action: not an action of this service. It is one of " + strings.Join(actions, ", ") + ".")
	}
	after, ok := s.openAuditPlace(filter, continuation)
	if !ok {
		return refuse("continuation: not one of this question. Begin again without it.")
	}
	if size <= 0 {
		size = defaultPage
	}
	page, after, more, err := c.auditLines(ctx, s, filter, after, min(size, MaxPage))
	if err != nil {
		return AuditLogPage{}, c.storeFault(s, "reading the audit log", err)
	}
	page.Next = s.sealContinuation(filter.binding(), strconv.FormatUint(after, 10))
	if more {
		page.Continuation = page.Next
	}
	return page, nil
}

// auditLines collects matching rows from behind a place, and says where it came to and whether there is more.
func (c *Core) auditLines(ctx context.Context, s *scope, filter AuditFilter, after uint64, size int) (page AuditLogPage, place uint64, more bool, err error) {
	for read := 0; read < queryBudget; {
		lines, err := c.store.AuditPage(ctx, s.ID, after, queryChunk)
		if err != nil {
			return AuditLogPage{}, 0, false, err
		}
		for _, line := range lines {
			if filter.selects(line.Audit) {
				if len(page.Lines) == size {
					return page, after, true, nil
				}
				page.Lines = append(page.Lines, line)
			}
			after = line.Seq
		}
		if read += len(lines); len(lines) < queryChunk {
			return page, after, false, nil
		}
	}
	return page, after, true, nil
}

func (f AuditFilter) selects(row Audit) bool {
	return (f.Object == "" || dps.FoldID(row.Object) == dps.FoldID(f.Object)) && (f.Action == "" || row.Action == f.Action) && !row.At.Before(f.Since)
}

// binding is what a continuation of the log belongs to. Quoted, no filter reads as another, and none as a query.
func (f AuditFilter) binding() string {
	since := ""
	if !f.Since.IsZero() {
		since = f.Since.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("audit %q %q %s", dps.FoldID(f.Object), f.Action, since)
}

func (s *scope) openAuditPlace(filter AuditFilter, continuation string) (after uint64, ok bool) {
	text, ok := s.openContinuation(filter.binding(), continuation)
	if !ok || text == "" {
		return 0, ok
	}
	after, err := strconv.ParseUint(text, 10, 64)
	return after, err == nil
}
