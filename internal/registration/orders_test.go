package registration_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/farhub"
)

// ordering is the operator with an order for devices at their hubs.
func ordering(order registration.HubOrder, trackingID string) registration.Caller {
	by := operator
	by.HubOrder, by.TrackingID = order, trackingID
	return by
}

// told wants an audit row of an action under a tracking id that says something.
func (w *world) told(trackingID, action, says string) {
	w.Helper()
	rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, trackingID)
	w.must(err)
	for _, row := range rows {
		if row.Action == action && strings.Contains(row.Detail, says) {
			return
		}
	}
	w.Errorf("no row of %s tells %q: %+v", action, says, rows)
}

func (m *mover) disable(order registration.HubOrder, trackingID string) {
	m.Helper()
	wire, err := dps.DecodeEnrollment("press", []byte(keysBody(firstKey, secondKey, m.policy+startTwin+`,"provisioningStatus":"disabled"`)))
	m.must(err)
	_, err = m.core.PutEnrollment(m.ctx, ordering(order, trackingID), wire, "*")
	m.must(err)
}

// Disabling and deleting touch nothing at the hub unless the operator orders it; then it is done, though the hub is down for a while.
func TestTheOperatorMayShutADeviceOutAtItsHubToo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act            func(m *mover)
		left, disabled bool // at the hub
		action         string
	}{
		"disabled":         {func(m *mover) { m.disable("", "plain") }, true, false, ""},
		"disabled at both": {func(m *mover) { m.disable(registration.HubDisable, "order") }, true, true, registration.ActionHubDisable},
		"deleted":          {func(m *mover) { m.must(m.core.DeleteEnrollment(m.ctx, ordering("", "plain"), "press", "")) }, true, false, ""},
		"deleted, disabled there": {func(m *mover) {
			m.must(m.core.DeleteEnrollment(m.ctx, ordering(registration.HubDisable, "order"), "PRESS", ""))
		}, true, true, registration.ActionHubDisable},
		"deleted, removed there": {func(m *mover) {
			m.must(m.core.DeleteEnrollment(m.ctx, ordering(registration.HubRemove, "order"), "press", ""))
		}, false, false, registration.ActionHubRemove},
		"its record deleted, removed there": {func(m *mover) {
			m.must(m.core.DeleteRegistration(m.ctx, ordering(registration.HubRemove, "order"), "press", ""))
		}, false, false, registration.ActionHubRemove},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMover(t, "migrate")
			m.hurry()
			m.hub.far.Trouble(farA, farhub.ErrDown)
			c.act(m)
			for range 3 {
				m.work()
				if d, there := m.hub.far.At(farA, "press"); !there || d.Disabled {
					t.Fatal("the hub was reached: the test proves nothing")
				}
				m.clock.advance(2 * time.Minute)
			}
			m.hub.far.Trouble(farA, nil)
			m.work()
			d, there := m.hub.far.At(farA, "press")
			if there != c.left || d.Disabled != c.disabled {
				t.Errorf("at the hub: %t, disabled: %t", there, d.Disabled)
			}
			if c.action != "" {
				m.told("order", c.action, `"outcome":"done"`)
			}
			m.waiting(0)
		})
	}
}

// A device that has proved itself again before the order was carried out is not meant by it.
func TestAnOrderDoesNotReachWhoRegistersAfterIt(t *testing.T) {
	t.Parallel()
	m := newMover(t, "migrate")
	m.hurry()
	m.hub.far.Trouble(farA, farhub.ErrDown)
	m.disable(registration.HubRemove, "order")
	m.work()
	m.clock.advance(2 * time.Minute)
	m.entry(farA) // enabled again
	m.begin()
	m.hub.far.Trouble(farA, nil)
	m.hub.plan("RemoveDevice "+farA, 0, 1000, before) // the registration comes through first
	for m.snapshot("press").Registration.Status == registration.Assigning {
		m.work()
		m.clock.advance(2 * time.Minute)
	}
	m.hub.heal()
	m.work()
	if r := m.snapshot("press").Registration; r.Status != registration.Assigned || r.Hub != farA {
		t.Errorf("it is %s at %s", r.Status, r.Hub)
	}
	m.is(farA, worked[0], worked[1], worked[2])
	m.waiting(0)
	m.told("order", registration.ActionHubRemove, "registered again since")
}

// The same where the hub is another process's: the order goes on to that.
func TestAnOrderForTheEmbeddedHubIsItsProcesss(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.put("valve", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	w.keyed("valve", firstKey).assigned()
	here, there := w.core, w.newCore()
	w.hub.move(registration.Elsewhere)
	w.must(here.DeleteEnrollment(w.ctx, ordering(registration.HubDisable, "order"), "valve", ""))
	w.delivered(here, 1, 0) // it is passed on
	w.waiting(1)
	w.delivered(here, 0, 0)
	w.hub.move(registration.Here) // as the other process sees it
	w.delivered(there, 1, 0)
	if !w.hub.device("valve").disabled {
		t.Error("the device is not disabled")
	}
	w.told("order", registration.ActionHubDisable, "done")
	w.waiting(0)
}

// All devices that a group has let in, and nobody else.
func TestAnOrderForAGroupIsForAllItsDevices(t *testing.T) {
	t.Parallel()
	for _, order := range []registration.HubOrder{registration.HubDisable, registration.HubRemove} {
		t.Run(string(order), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			const devices = 230 // more than two pages
			_, err := w.putGroup("line", keysBody(firstKey, secondKey, ""), "")
			w.must(err)
			var ids []string
			for i := range devices {
				id := fmt.Sprintf("dev-%03d", i)
				w.keyed(id, dps.DeriveKey(firstKey, id)).assigned()
				ids = append(ids, id)
			}
			_, err = w.put("own", keysBody(firstKey, secondKey, ""), "")
			w.must(err)
			w.keyed("own", firstKey).assigned()
			if order == registration.HubRemove {
				w.must(w.core.DeleteGroup(w.ctx, ordering(order, "order"), "LINE", ""))
			} else {
				wire, err := dps.DecodeGroup("line", []byte(keysBody(firstKey, secondKey, `,"provisioningStatus":"disabled"`)))
				w.must(err)
				_, err = w.core.PutGroup(w.ctx, ordering(order, "order"), wire, "*")
				w.must(err)
			}
			w.delivered(w.core, devices+3, 0)
			for _, id := range ids {
				if d := w.hub.device(id); d.disabled != (order == registration.HubDisable) || d.removed != (order == registration.HubRemove) {
					t.Fatalf("%s: disabled %t, removed %t", id, d.disabled, d.removed)
				}
			}
			if d := w.hub.device("own"); d.disabled || d.removed {
				t.Error("a device of its own enrollment was shut out")
			}
			w.waiting(0)
		})
	}
}

func TestAnOrderForADeviceThatIsLetInIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wire, err := dps.DecodeEnrollment("valve", []byte(keysBody(firstKey, secondKey, "")))
	w.must(err)
	_, err = w.core.PutEnrollment(w.ctx, ordering(registration.HubDisable, "order"), wire, "")
	if fault := w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadEnrollment); !strings.Contains(fault.Detail, "provisioningStatus disabled") {
		t.Errorf("it says %q", fault.Detail)
	}
	group, err := dps.DecodeGroup("line", []byte(keysBody(firstKey, secondKey, "")))
	w.must(err)
	_, err = w.core.PutGroup(w.ctx, ordering(registration.HubDisable, "order"), group, "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadGroup)
	if d := w.snapshot("valve"); d.Enrollment != nil {
		t.Error("it was written")
	}
}
