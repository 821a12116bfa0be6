package registration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"latchkey.example/latchkey/dps"
)

// orderPage is how many devices of a group are ordered for at a time.
const orderPage = 100

// judgeOrder refuses an order that says nothing, as the entry lets its devices in.
func (c *Core) judgeOrder(s *scope, by Caller, disabled bool, reason Reason) error {
	if by.HubOrder == NoHubOrder || disabled {
		return nil
	}
	return c.fault(s, dps.CodeBadRequest, reason, "hubDevice goes with provisioningStatus disabled, or with deleting the entry: devices of an enabled one are to work at their hubs.", nil)
}

// carryOut does to a device at its hub what the operator has ordered, unless the device has proved itself again since.
func (c *Core) carryOut(ctx context.Context, row OutboxRow, claim string) error {
	order, err := decodeOrder[DeviceOrder](row.Outbox)
	if err != nil {
		return err
	}
	reach := c.hub.Reach(row.Scope, order.Hub)
	if row.Kind == OutboxDeviceOrder && reach == Elsewhere {
		return c.passOn(ctx, row, claim, []Outbox{{Kind: OutboxDeviceOrderEmbedded, Object: row.Object}})
	}
	if after := order.operations(); len(after) > 0 { // what may still be made at the hub for them would outlive the order
		if err := c.othersDone(ctx, row.Scope, plan{After: after}); err != nil {
			return err
		}
	}
	work := func(ctx context.Context) error { return c.shutOut(ctx, row.Scope, order) }
	if reach == Remote {
		err = c.overTheNetwork(ctx, remoteTime, row.Scope, []string{order.Hub}, work)
	} else {
		_, err = patiently(ctx, outboxTime, func(ctx context.Context) (struct{}, error) { return struct{}{}, work(ctx) })
	}
	outcome := "done"
	switch {
	case errors.Is(err, ErrStale):
		outcome = "registered again since"
	case errors.Is(err, ErrUnlinked):
		gone, followed := c.unlinked(ctx, row.Scope, order.Hub)
		if !gone || followed != nil {
			return errors.Join(err, followed)
		}
		outcome = "the hub is not linked any more"
	case err != nil:
		return err
	}
	return c.auditOrder(ctx, row.Scope, order, outcome)
}

func (c *Core) shutOut(ctx context.Context, scope string, order DeviceOrder) (err error) {
	switch order.Order {
	case HubDisable:
		err = c.hub.DisableDevice(ctx, scope, order.Hub, order.DeviceID, order.Generation)
	case HubRemove:
		err = c.hub.RemoveDevice(ctx, scope, order.Hub, order.DeviceID, order.Generation)
	default:
		return fmt.Errorf("an order of the outbox: %q is none", order.Order)
	}
	if err != nil {
		return &hubFailure{order.Hub, err}
	}
	return nil
}

// auditOrder tells, under the tracking id of the request that gave the order, what came of it.
func (c *Core) auditOrder(ctx context.Context, scope string, order DeviceOrder, outcome string) error {
	action := ActionHubDisable
	if order.Order == HubRemove {
		action = ActionHubRemove
	}
	told, err := json.Marshal(struct {
		Hub      string `json:"hub"`
		DeviceID string `json:"deviceId"`
		Outcome  string `json:"outcome"`
	}{order.Hub, order.DeviceID, outcome})
	if err != nil {
		return err
	}
	_, err = patiently(ctx, outboxTime, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.store.AppendAudit(ctx, scope, Audit{At: c.now(), Actor: ActorService, Action: action, Object: order.ID, Outcome: OutcomeOK,
			Reason: ReasonManaged, TrackingID: order.TrackingID, Detail: string(told)})
	})
	return err
}

// carryOutGroup orders for a page of the devices that a group has let in, and for the pages behind it.
func (c *Core) carryOutGroup(ctx context.Context, row OutboxRow, claim string) error {
	order, err := decodeOrder[GroupOrder](row.Outbox)
	if err != nil {
		return err
	}
	page, err := patiently(ctx, outboxTime, func(ctx context.Context) ([]Registration, error) {
		return c.store.Registrations(ctx, row.Scope, order.Group, order.After, orderPage)
	})
	if err != nil {
		return err
	}
	var next []Outbox
	for _, r := range page {
		next = append(next, OrdersFor(order.Order, r, order.Generation, order.TrackingID)...)
		order.After = dps.FoldID(r.ID)
	}
	if len(page) == orderPage {
		next = append(next, Outbox{Kind: OutboxGroupOrder, Object: encodeOrder(order)})
	}
	return c.passOn(ctx, row, claim, next)
}

// passOn puts work in the place of a row, at which somebody is to look at once.
func (c *Core) passOn(ctx context.Context, row OutboxRow, claim string, next []Outbox) error {
	_, err := patiently(ctx, outboxTime, func(ctx context.Context) (Verdict, error) {
		return c.store.PassOutbox(ctx, row.Scope, row.Outbox, claim, next)
	})
	if err != nil {
		return err
	}
	c.nudge()
	return errRowGone
}
