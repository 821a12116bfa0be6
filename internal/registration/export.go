package registration

import (
	"context"

	"latchkey.example/latchkey/dps"
)

// exportPage is how many rows of an export are in memory at once.
const exportPage = 100

// Export gives every enrollment of the caller's scope, in order of their folded ids, without registration states. What changes meanwhile is in it
// or not; nothing is in it twice. It ends with the first error of each.
func (c *Core) Export(ctx context.Context, by Caller, each func(dps.IndividualEnrollment) error) error {
	s, _ := c.scope(by.Scope)
	return exportRows(ctx, c, s, c.store.Enrollments, func(l Listed) string { return l.Enrollment.ID }, func(l Listed) error {
		wire, err := c.wireEnrollment(s, l.Enrollment, nil, false)
		if err != nil {
			return err
		}
		return each(wire)
	})
}

// exportRows gives all rows of a list, a page at a time.
func exportRows[Row any](ctx context.Context, c *Core, s *scope, list func(ctx context.Context, scope, after string, limit int) ([]Row, error),
	id func(Row) string, each func(Row) error,
) error {
	for after := ""; ; {
		rows, err := list(ctx, s.ID, after, exportPage)
		if err != nil {
			return c.storeFault(s, "exporting", err)
		}
		for _, row := range rows {
			if err := each(row); err != nil {
				return err
			}
			after = dps.FoldID(id(row))
		}
		if len(rows) < exportPage {
			return nil
		}
	}
}
