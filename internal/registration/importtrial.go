package registration

import (
	"context"
	"hash/maphash"

	"latchkey.example/latchkey/dps"
)

// trialWindow is how many lines apart two lines of one id are surely seen to have one.
const trialWindow = 1 << 16

// Trial is what a dry run remembers of the lines that it would have written: hashes of their ids, of the last trialWindow to twice as many. It belongs
// to one goroutine.
type Trial struct {
	seed          maphash.Seed
	newer, before map[uint64]struct{}
}

// NewTrial begins a dry run.
func NewTrial() *Trial { return &Trial{seed: maphash.MakeSeed(), newer: map[uint64]struct{}{}} }

func (t *Trial) key(id string) uint64 { return maphash.String(t.seed, dps.FoldID(id)) }

// wrote says whether an earlier line would have written this id.
func (t *Trial) wrote(id string) bool {
	key := t.key(id)
	_, newer := t.newer[key]
	_, before := t.before[key]
	return newer || before
}

func (t *Trial) write(id string) {
	if len(t.newer) == trialWindow {
		t.before, t.newer = t.newer, map[uint64]struct{}{}
	}
	t.newer[t.key(id)] = struct{}{}
}

// TryImport says what Import would do with these lines after those that the trial has seen, and writes nothing. Two lines with one id are taken for
// that if they are at most trialWindow lines apart; further apart each may look as if the other were not there.
func (c *Core) TryImport(ctx context.Context, by Caller, mode IfExists, trial *Trial, lines []ImportLine) ([]Imported, error) {
	s, _ := c.scope(by.Scope)
	results, rows := c.judgeAll(s, lines)
	for _, row := range rows {
		var err error
		if row.before, err = c.importBefore(ctx, s, row.draft.row.ID); err != nil {
			return results, err
		}
		if row.before == nil && trial.wrote(row.draft.row.ID) {
			row.before = &row.draft.row // as good as that of the earlier line, of which only its id is remembered
		}
		result := &results[row.at]
		if _, _, err = c.settle(s, row.draft, row.before); err != nil {
			result.fail(err)
			continue
		}
		result.settle(row, foreseen(row, mode), mode)
		if result.Outcome == ImportCreated {
			trial.write(row.draft.row.ID)
		}
	}
	return results, nil
}

// foreseen is what the store would say of a row, if nobody changes anything.
func foreseen(row importRow, mode IfExists) Verdict {
	if row.before != nil && mode != ReplaceExisting {
		return Exists
	}
	return Applied
}
