package registration

import (
	"context"
	"fmt"
	"slices"

	"latchkey.example/latchkey/dps"
)

// ImportAll is Import for at most MaxAtomic lines that are written together or not at all, in one transition with an audit row for each. If a line
// fails none is written, the results name every line that fails, and those that would have been written are ImportWithheld. Lines of one id
// meet each other as in Import. With dryRun nothing is written in any case, and the results say what would be. An error means that the store
// failed: all lines are ImportUnknown, and all of them are written or none.
func (c *Core) ImportAll(ctx context.Context, by Caller, mode IfExists, dryRun bool, lines []ImportLine) ([]Imported, error) {
	s, _ := c.scope(by.Scope)
	if len(lines) > MaxAtomic {
		return nil, c.fault(s, dps.CodeTooLarge, ReasonBadRequest, fmt.Sprintf("An all-or-nothing import takes at most %d lines.", MaxAtomic), nil)
	}
	judged, rows := c.judgeAll(s, lines)
	unknown := make([]Imported, len(lines))
	for try := range redeemTries {
		a := allRows{core: c, scope: s, by: by, mode: mode, results: slices.Clone(judged), known: map[string]*Enrollment{}}
		if err := a.prepare(ctx, rows); err != nil {
			return unknown, err
		}
		if a.failed() || dryRun || len(a.puts) == 0 {
			return a.withhold(), nil
		}
		verdicts, err := c.store.PutAllEnrollments(ctx, s.ID, a.puts)
		if err != nil {
			return unknown, c.storeFault(s, "importing enrollments together", err)
		}
		last := try == redeemTries-1
		if !a.refused(verdicts, last) {
			return a.results, nil
		}
		if a.failed() {
			return a.withhold(), nil
		}
	}
	return unknown, nil // the last try ends above
}

// judgeAll parts the lines that fail for themselves from those to be written.
func (c *Core) judgeAll(s *scope, lines []ImportLine) ([]Imported, []importRow) {
	results := make([]Imported, len(lines))
	var rows []importRow
	for i, line := range lines {
		draft, err := c.importRow(s, line)
		results[i].RegistrationID = draft.row.ID
		if err != nil {
			results[i].fail(err)
			continue
		}
		rows = append(rows, importRow{at: i, draft: draft})
	}
	return results, rows
}

// allRows is one try of an all-or-nothing import.
type allRows struct {
	core  *Core
	scope *scope
	by    Caller
	mode  IfExists

	results []Imported
	puts    []EnrollmentPut
	lines   []int                  // of the puts, their places among the results
	known   map[string]*Enrollment // what an earlier line makes of a folded id
}

// prepare settles every row against what is there, earlier lines taken for written.
func (a *allRows) prepare(ctx context.Context, rows []importRow) (err error) {
	for _, r := range rows {
		folded := dps.FoldID(r.draft.row.ID)
		earlier := a.known[folded]
		if r.before = earlier; earlier == nil {
			if r.before, err = a.core.importBefore(ctx, a.scope, r.draft.row.ID); err != nil {
				return err
			}
		}
		result := &a.results[r.at]
		row, _, err := a.core.settle(a.scope, r.draft, r.before)
		if err != nil {
			result.fail(err)
			continue
		}
		verdict := foreseen(r, a.mode)
		result.settle(r, verdict, a.mode)
		if verdict != Applied {
			continue
		}
		put := a.core.importPut(a.by, r.before, row)
		if earlier != nil { // its revision is not given out yet
			put.Expect = new(uint64)
			*put.Expect = AnyRevision
		}
		a.puts, a.lines, a.known[folded] = append(a.puts, put), append(a.lines, r.at), &row
	}
	return nil
}

func (a *allRows) failed() bool {
	return slices.ContainsFunc(a.results, func(r Imported) bool { return r.Outcome == ImportFailed })
}

// withhold takes back, if a line failed, what was foreseen of the others.
func (a *allRows) withhold() []Imported {
	if !a.failed() {
		return a.results
	}
	for i, r := range a.results {
		if r.Outcome == ImportCreated || r.Outcome == ImportReplaced {
			a.results[i].Outcome = ImportWithheld
		}
	}
	return a.results
}

// refused says whether the store wrote nothing, and fails the rows that no other try will help. Others were moved since they were read.
func (a *allRows) refused(verdicts []Verdict, last bool) (refused bool) {
	for i, verdict := range verdicts {
		if verdict == Applied {
			continue
		}
		refused = true
		result := &a.results[a.lines[i]]
		switch {
		case verdict == Taken:
			result.fail(a.core.certificateTaken(a.scope))
		case last:
			result.fail(a.core.fault(a.scope, dps.CodeConflict, ReasonConflict, "", nil))
		}
	}
	return refused
}
