package registration

import (
	"context"
	"errors"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

// IfExists is what an import does with an enrollment that is there already.
type IfExists int

// The ways to treat what is there.
const (
	RefuseExisting IfExists = iota
	SkipExisting
	ReplaceExisting
)

// ImportLine is one enrollment to import, or why it could not be read.
type ImportLine struct {
	Enrollment dps.IndividualEnrollment // its id may be empty: it is derived from the endorsement key
	// KeysWithheld says that its symmetric keys are those of the entry that is there: without one with such keys the line fails, since no
	// device has keys that would be made now.
	KeysWithheld bool
	Err          error
}

// Imported is what became of a line.
type Imported struct {
	RegistrationID string // as far as it is known
	Outcome        ImportOutcome
	Code           dps.Code // of ImportFailed
	Message        string   // of ImportFailed, public
}

// ImportOutcome is the end of a line.
type ImportOutcome int

// The closed set of outcomes. ImportUnknown is that of lines that the store gave no answer for.
const (
	ImportUnknown ImportOutcome = iota
	ImportCreated
	ImportReplaced
	ImportSkipped
	ImportFailed
	ImportWithheld // good in itself, and not written since another line of an all-or-nothing import failed
)

// importRow is a line that was judged good.
type importRow struct {
	at     int // its place among the lines
	draft  enrollmentDraft
	before *Enrollment // what it replaces
}

// Import writes enrollments in transitions of at most MaxPuts, each with its own audit row, and says for each line what became of it. An error
// means that the store failed: lines with ImportUnknown may or may not be written, and those after them are not.
func (c *Core) Import(ctx context.Context, by Caller, mode IfExists, lines []ImportLine) ([]Imported, error) {
	s, _ := c.scope(by.Scope)
	results, rows := c.judgeAll(s, lines)
	var run []importRow
	inRun := map[string]bool{}
	write := func() error {
		err := c.importRun(ctx, s, by, mode, run, results)
		run = run[:0]
		clear(inRun)
		return err
	}
	for _, row := range rows {
		folded := dps.FoldID(row.draft.row.ID)
		if inRun[folded] || len(run) == MaxPuts { // a line that meets an earlier one finds it written
			if err := write(); err != nil {
				return results, err
			}
		}
		inRun[folded] = true
		run = append(run, row)
	}
	return results, write()
}

func (c *Core) importRow(s *scope, line ImportLine) (enrollmentDraft, error) {
	wire := line.Enrollment
	if line.Err != nil {
		return enrollmentDraft{row: Enrollment{ID: wire.RegistrationID}}, line.Err
	}
	if wire.RegistrationID == "" && wire.Attestation.TPM != nil {
		wire.RegistrationID = attest.RegistrationID(wire.Attestation.TPM.EndorsementKey)
	}
	if !dps.ValidRegistrationID(wire.RegistrationID) { // only an enrollment without an EK comes here without one
		return enrollmentDraft{}, c.fault(s, dps.CodeBadRequest, ReasonBadEnrollment, "registrationId: is missing", nil)
	}
	draft, err := c.draftEnrollment(s, wire)
	draft.row.ID, draft.keysWithheld = wire.RegistrationID, line.KeysWithheld
	return draft, err
}

// importRun writes rows of different ids. Those that are there are read and compared, so that the audit tells what was replaced.
func (c *Core) importRun(ctx context.Context, s *scope, by Caller, mode IfExists, run []importRow, results []Imported) error {
	for range redeemTries {
		if len(run) == 0 {
			return nil
		}
		puts := make([]EnrollmentPut, 0, len(run))
		var ready []importRow
		for _, r := range run {
			row, _, err := c.settle(s, r.draft, r.before)
			if err != nil && r.before == nil { // it may lack only what the one that is there has
				if r.before, err = c.importBefore(ctx, s, r.draft.row.ID); err != nil {
					return err
				}
				if row, _, err = c.settle(s, r.draft, r.before); err == nil && mode != ReplaceExisting {
					results[r.at].settle(r, Exists, mode)
					continue
				}
			}
			if err != nil {
				results[r.at].fail(err)
				continue
			}
			puts, ready = append(puts, c.importPut(by, r.before, row)), append(ready, r)
		}
		verdicts, err := c.store.PutEnrollments(ctx, s.ID, puts)
		if err != nil {
			return c.storeFault(s, "importing enrollments", err)
		}
		var again []importRow
		for i, r := range ready {
			if verdicts[i] == Taken {
				results[r.at].fail(c.certificateTaken(s))
				continue
			}
			if results[r.at].settle(r, verdicts[i], mode) {
				continue
			}
			if r.before, err = c.importBefore(ctx, s, r.draft.row.ID); err != nil {
				return err
			}
			again = append(again, r)
		}
		run = again
	}
	for _, r := range run {
		results[r.at].fail(c.fault(s, dps.CodeConflict, ReasonConflict, "", nil))
	}
	return nil
}

// importPut creates a row, or replaces what was there before as it was read.
func (c *Core) importPut(by Caller, before *Enrollment, row Enrollment) EnrollmentPut {
	put := EnrollmentPut{Enrollment: row, Audit: c.callerAudit(by, ActionEnrollmentPut, dps.FoldID(row.ID), ReasonChanged, enrollmentChange(before, row))}
	if before != nil {
		put.Expect = &before.Revision
	}
	return put
}

func (c *Core) importBefore(ctx context.Context, s *scope, id string) (*Enrollment, error) {
	device, err := c.store.Device(ctx, s.ID, dps.FoldID(id))
	if err != nil {
		return nil, c.storeFault(s, "reading before an import", err)
	}
	return device.Enrollment, nil
}

// settle takes a verdict for the end of a row, unless the row is to be tried again.
func (r *Imported) settle(row importRow, verdict Verdict, mode IfExists) bool {
	switch {
	case verdict == Applied && row.before == nil:
		r.Outcome = ImportCreated
	case verdict == Applied:
		r.Outcome = ImportReplaced
	case verdict == Exists && mode == SkipExisting:
		r.Outcome = ImportSkipped
	case verdict == Exists && mode == RefuseExisting:
		r.Outcome, r.Code = ImportFailed, dps.CodeEnrollmentExists
		r.Message = "Enrollment already exists. Import with ifExists=skip to leave it as it is, or with ifExists=replace to replace it."
	default:
		return false
	}
	return true
}

// fail tells the outside of an error.
func (r *Imported) fail(err error) {
	r.Outcome, r.Code = ImportFailed, dps.CodeInternal
	var fault *Fault
	var field *dps.FieldError
	switch {
	case errors.As(err, &fault):
		r.Code, r.Message = fault.Code, fault.Detail
	case errors.As(err, &field):
		r.Code, r.Message = dps.CodeBadRequest, field.Error()
	}
	if r.Message == "" {
		r.Message = r.Code.Message()
	}
}
