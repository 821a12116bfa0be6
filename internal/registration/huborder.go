package registration

import (
	"encoding/json"
	"fmt"
	"slices"

	"latchkey.example/latchkey/dps"
)

// HubOrder is what the operator wants of a device at its hub besides, when he shuts it out. The set is closed.
type HubOrder string

// The orders. The imitated service has none: there a hub's device is never touched.
const (
	NoHubOrder HubOrder = ""
	HubDisable HubOrder = "disable" // it stays, and nobody logs in with its credential
	HubRemove  HubOrder = "remove"  // it is gone, with its twin and its messages
)

// DeviceOrder is an order for one device at one hub: the Object, as JSON, of an outbox row. It carries all that is needed, as enrollment and registration
// may be gone when it is carried out.
type DeviceOrder struct {
	Order      HubOrder `json:"order"`
	Hub        string   `json:"hub"`
	DeviceID   string   `json:"deviceId"`
	Generation uint64   `json:"generation"` // up to which it counts: who proves himself later is not meant
	ID         string   `json:"id"`         // registration id
	Operation  string   `json:"operation,omitempty"`
	After      []string `json:"after,omitempty"` // operations before that, as plan.After
	TrackingID string   `json:"trackingId"`      // of the request that gave it
}

// operations are those for which somebody may be at the hub still.
func (o DeviceOrder) operations() []string {
	if o.Operation == "" {
		return o.After
	}
	return append(slices.Clone(o.After), o.Operation)
}

// GroupOrder is an order for all devices that a group has let in: the Object, as JSON, of an outbox row, which is worked off a page at a time.
type GroupOrder struct {
	Order      HubOrder `json:"order"`
	Group      string   `json:"group"`      // folded
	Generation uint64   `json:"generation"` // as DeviceOrder.Generation: the revision of the groups that the transition made
	TrackingID string   `json:"trackingId"`
	After      string   `json:"after,omitempty"` // folded id of the last device that was ordered for
}

// OrdersFor is the work that an order is for the device of a registration as it stands: one row for each hub where it may be. Stores write it in the
// transition that shuts the device out. A generation of 0 is the registration's own.
func OrdersFor(order HubOrder, r Registration, generation uint64, trackingID string) []Outbox {
	return ordersAfter(order, r, generation, trackingID, nil)
}

func ordersAfter(order HubOrder, r Registration, generation uint64, trackingID string, after []string) (rows []Outbox) {
	if order == NoHubOrder {
		return nil
	}
	if generation == 0 {
		generation = r.Revision
	}
	one := DeviceOrder{Order: order, DeviceID: r.DeviceID, Generation: generation, ID: dps.FoldID(r.ID), After: after, TrackingID: trackingID}
	if r.Status == Assigning { // somebody may be at a hub for it
		one.Operation = r.OperationID
	}
	for _, hub := range leavingFor(&r, "") {
		one.Hub = hub
		rows = append(rows, Outbox{Kind: OutboxDeviceOrder, Object: encodeOrder(one)})
	}
	return rows
}

// OrderForGroup is the work that an order is for a group's devices.
func OrderForGroup(order HubOrder, group string, generation uint64, trackingID string) []Outbox {
	if order == NoHubOrder {
		return nil
	}
	return []Outbox{{Kind: OutboxGroupOrder, Object: encodeOrder(GroupOrder{Order: order, Group: dps.FoldID(group), Generation: generation, TrackingID: trackingID})}}
}

func encodeOrder(order any) string {
	encoded, err := json.Marshal(order)
	if err != nil {
		panic(err) // texts and numbers
	}
	return string(encoded)
}

func decodeOrder[T any](work Outbox) (order T, err error) {
	if err = json.Unmarshal([]byte(work.Object), &order); err != nil {
		err = fmt.Errorf("an order of the outbox: %w", err)
	}
	return order, err
}
