package registration

import (
	"context"
	"time"

	"latchkey.example/latchkey/dps"
)

// Explanation is all that is known of one answer.
type Explanation struct {
	TrackingID string
	At         time.Time
	Reason     Reason
	Recent     *DecisionEntry // from memory, if nothing newer of the same kind took its place
	Audit      []Audit        // what was written durably under this id
}

// Why explains an answer by its tracking id. Reason and time are always known, since the id carries them; who asked is known while the
// memory of refusals holds it, and for ever once the device had proved itself.
func (c *Core) Why(ctx context.Context, by Caller, trackingID string) (Explanation, error) {
	s, _ := c.scope(by.Scope)
	missing := c.fault(s, dps.CodeNotFound, ReasonNotFound, "No answer of this service carries this tracking id.", nil)
	reason, at, ok := s.tracking.read(trackingID)
	if !ok {
		if reason, at, ok = c.scopes.Load().nobody.tracking.read(trackingID); !ok || reason != ReasonUnknownScope {
			return Explanation{}, missing
		}
	}
	x := Explanation{TrackingID: trackingID, At: at, Reason: reason}
	if entry, found := c.decisions.find(s.ID, trackingID); found {
		x.Recent = &entry
	}
	audit, err := c.store.AuditByTrackingID(ctx, s.ID, trackingID)
	if err != nil {
		return Explanation{}, c.storeFault(s, "reading the audit", err)
	}
	x.Audit = audit
	return x, nil
}
