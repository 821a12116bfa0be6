package registration

import (
	"context"
	"encoding/json"
	"time"
)

// expireBatch bounds one transition of expireAudit.
const expireBatch = 1000

// expireAudit removes audit rows that are older than the retention, if there is one. The first batch of a run leaves a row that says so.
func (c *Core) expireAudit(ctx context.Context) error {
	keep := time.Duration(c.retention.Load())
	if keep <= 0 {
		return nil
	}
	before := c.now().Add(-keep)
	detail, err := json.Marshal(struct {
		Before time.Time `json:"before"`
	}{before.UTC()})
	if err != nil {
		return err
	}
	for id := range c.scopes.Load().byID {
		row := &Audit{At: c.now(), Actor: ActorService, Action: ActionAuditExpire, Object: id, Outcome: OutcomeOK, Reason: ReasonDeleted, Detail: string(detail)}
		for removed := expireBatch; removed == expireBatch; row = nil {
			removed, err = patiently(ctx, sweepTime, func(ctx context.Context) (int, error) { return c.store.ExpireAudit(ctx, id, before, expireBatch, row) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// KeepAudit sets how long audit rows are kept from now on; 0: for ever.
func (c *Core) KeepAudit(d time.Duration) { c.retention.Store(int64(d)) }
