package registration

import (
	"context"

	"latchkey.example/latchkey/dps"
)

// exportPage is how many enrollments of an export are in memory at once.
const exportPage = 100

// Export gives every enrollment of the caller's scope, in order of their folded ids, without registration states. What changes meanwhile is in it
// or not; nothing is in it twice. It ends with the first error of each.
func (c *Core) Export(ctx context.Context, by Caller, each func(dps.IndividualEnrollment) error) error {
	s, _ := c.scope(by.Scope)
	for after := ""; ; {
		lines, err := c.store.Enrollments(ctx, s.ID, after, exportPage)
		if err != nil {
			return c.storeFault(s, "exporting enrollments", err)
		}
		for _, line := range lines {
			wire, err := c.wireEnrollment(s, line.Enrollment, nil, false)
			if err != nil {
				return err
			}
			if err := each(wire); err != nil {
				return err
			}
			after = dps.FoldID(line.Enrollment.ID)
		}
		if len(lines) < exportPage {
			return nil
		}
	}
}
