package registration

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
)

// plan is what advancing an operation needs besides its row: how the device comes to its hub, and what the webhook is to be told if that is yet to
// choose it. It is written with the operation, so that whoever advances it, whenever, does the same.
type plan struct {
	Keep    bool     `json:"keep,omitempty"`    // the device stays at the hub it has
	Reset   bool     `json:"reset,omitempty"`   // it begins anew with Start, whatever it had
	Start   starting `json:"start,omitzero"`    // what it has where it did not exist before
	Leaving []string `json:"leaving,omitempty"` // as Registration.Leaving: the hub it was assigned to last first
	// After names operations whose place this one took, and for which somebody may still be at a hub: the device leaves none before that is over.
	After []string `json:"after,omitempty"`
	// Awaits says that a key of before may be alive: nothing is done before Closure says that it is not.
	Awaits bool `json:"awaits,omitempty"`
	// Custom says that the webhook of the entry chooses the hub. The members behind it are for that alone.
	Custom      bool            `json:"custom,omitempty"`
	Payload     json.RawMessage `json:"payload,omitempty"` // what the device sent for it
	Address     string          `json:"address,omitempty"` // of the device
	Certificate []byte          `json:"certificate,omitempty"`
	// Returned is what the webhook has for the device.
	Returned json.RawMessage `json:"returned,omitempty"`
}

// starting is DeviceData in a plan.
type starting struct {
	Tags    json.RawMessage `json:"tags,omitempty"`
	Desired json.RawMessage `json:"desired,omitempty"`
	IoTEdge bool            `json:"iotEdge,omitempty"`
}

// IsZero leaves it out of the JSON.
func (s starting) IsZero() bool { return len(s.Tags) == 0 && len(s.Desired) == 0 && !s.IoTEdge }

func (s starting) data(replace bool) *DeviceData {
	return &DeviceData{Tags: s.Tags, Desired: s.Desired, IoTEdge: s.IoTEdge, Replace: replace}
}

// encode gives nothing for the plan of most devices: go to a hub, with nothing.
func (p plan) encode() []byte {
	if reflect.DeepEqual(p, plan{}) {
		return nil
	}
	encoded, err := json.Marshal(p)
	if err != nil {
		panic(err) // its raw members were read as JSON
	}
	return encoded
}

func decodePlan(encoded []byte) (p plan, err error) {
	if len(encoded) == 0 {
		return plan{}, nil
	}
	if err = json.Unmarshal(encoded, &p); err != nil {
		err = fmt.Errorf("the operation's plan: %w", err)
	}
	return p, err
}

// saved is Registration.Saved: what a device had at the hub that it leaves.
type saved struct {
	From string `json:"from"`
	starting
	Reported json.RawMessage `json:"reported,omitempty"`
}

func savedFrom(hub string, d DeviceData) ([]byte, error) {
	encoded, err := json.Marshal(saved{From: hub, starting: starting{Tags: d.Tags, Desired: d.Desired, IoTEdge: d.IoTEdge}, Reported: d.Reported})
	if err != nil {
		return nil, fmt.Errorf("what hub %s says of the device: %w", hub, err)
	}
	return encoded, nil
}

func decodeSaved(encoded []byte) (s saved, err error) {
	if err = json.Unmarshal(encoded, &s); err != nil {
		err = fmt.Errorf("what was saved of the device: %w", err)
	}
	return s, err
}

func (s saved) data(replace bool) *DeviceData {
	d := s.starting.data(replace)
	d.Reported = s.Reported
	return d
}

// mostAfter bounds plan.After: each holds its claim for a minute at most, and those before are long over.
const mostAfter = 16

// afterFor lists the operations that the next one of a device follows on.
func afterFor(d Device) []string {
	if d.Registration == nil || d.Registration.Status != Assigning || d.Operation == nil {
		return nil
	}
	before, _ := decodePlan(d.Operation.Plan)
	after := append(before.After, d.Operation.ID)
	return after[max(0, len(after)-mostAfter):]
}

// leavingFor lists the hubs that a device leaves for another: where it may be, the hub it was assigned to last first, but for the one it goes to.
func leavingFor(r *Registration, hub string) (leaving []string) {
	if r == nil {
		return nil
	}
	for _, name := range append(slices.Clone(r.Leaving), r.Hub) {
		if name != "" && name != hub && !slices.Contains(leaving, name) {
			leaving = append(leaving, name)
		}
	}
	return leaving
}
