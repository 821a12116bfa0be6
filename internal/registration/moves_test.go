package registration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/farhub"
)

// Hubs over the network.
const (
	farA = "a.far.example"
	farB = "b.far.example"
)

// link links hubs over the network to the first scope.
func (w *world) link(names ...string) {
	w.Helper()
	for _, name := range names {
		w.hub.far.Add(name)
		w.setHub(registration.LinkedHub{Name: name, Kind: registration.HubAzure, Weight: 1, Allocate: true, Created: epoch, Updated: epoch}, nil)
	}
}

func (w *world) setHub(hub registration.LinkedHub, expect *uint64) {
	w.Helper()
	_, verdict, err := w.inner.PutHub(w.ctx, scopeOne, hub, expect, registration.Audit{At: epoch, Actor: registration.ActorLocal, Action: "hub.put", Object: hub.Name, Outcome: registration.OutcomeOK})
	w.must(err)
	if verdict != registration.Applied {
		w.Fatalf("hub %s: verdict %d", hub.Name, verdict)
	}
	w.must(w.core.ReloadScopes(w.ctx))
}

func (w *world) unlink(name string) {
	w.Helper()
	verdict, err := w.inner.DeleteHub(w.ctx, scopeOne, name, nil, registration.Audit{At: epoch, Actor: registration.ActorLocal, Action: "hub.delete", Object: name, Outcome: registration.OutcomeOK})
	w.must(err)
	if verdict != registration.Applied {
		w.Fatalf("hub %s: verdict %d", name, verdict)
	}
	w.hub.far.Trouble(name, registration.ErrUnlinked)
	w.must(w.core.ReloadScopes(w.ctx))
}

// oracle is an allocation webhook.
type oracle struct {
	status int
	answer string
	asked  []map[string]any
	keys   []string // ids of the questions
}

func (o *oracle) Post(_ context.Context, call registration.WebhookCall) (int, []byte, error) {
	var asked map[string]any
	if err := json.Unmarshal(call.Body, &asked); err != nil {
		return 0, nil, err
	}
	o.asked, o.keys = append(o.asked, asked), append(o.keys, call.ID)
	return o.status, []byte(o.answer), nil
}

const (
	startTwin   = `,"initialTwin":{"tags":{"line":4},"properties":{"desired":{"rate":1}}},"capabilities":{"iotEdge":true}`
	customEntry = `,"allocationPolicy":"custom","customAllocationDefinition":{"webhookUrl":"https://alloc.example/pick?code=secret","apiVersion":"2021-10-01"}`
)

// mover is a device that moves between hubs over the network.
type mover struct {
	*keyed
	policy  string // of reprovisioning, as JSON; empty: none
	custom  *oracle
	version string

	token, operation string
}

var reprovisioning = map[string]struct{ policy, version string }{
	"migrate":                  {`,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true}`, "2021-10-01"},
	"reset":                    {`,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":false}`, "2021-10-01"},
	"never":                    {`,"reprovisionPolicy":{"updateHubAssignment":false,"migrateDeviceData":false}`, "2021-10-01"},
	"none, an old api-version": {"", "2018-04-01"},
	"none, a new api-version":  {"", "2019-03-31"},
	"custom":                   {`,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true}` + customEntry, "2021-10-01"},
	"custom, never":            {`,"reprovisionPolicy":{"updateHubAssignment":false,"migrateDeviceData":true}` + customEntry, "2021-10-01"},
}

// newMover is a device that is at the hub a, and has worked there.
func newMover(t *testing.T, how string) *mover {
	t.Helper()
	w := newWorld(t)
	m := &mover{policy: reprovisioning[how].policy, version: reprovisioning[how].version, custom: &oracle{status: 200}}
	w.webhooks = m.custom
	w.core = w.newCore()
	w.link(farA, farB)
	m.keyed = w.keyed("press", firstKey)
	m.entry(farA)
	m.begin()
	m.assigning()
	m.delivered(w.core, m.rows(), 0)
	m.at(farA, "initialAssignment", `{"line":4}`, `{"rate":1}`, "{}")
	w.hub.far.Change(farA, "press", func(d *farhub.Device) {
		d.Data.Desired, d.Data.Reported = json.RawMessage(`{"rate":9}`), json.RawMessage(`{"fw":"2"}`)
	})
	w.clock.advance(time.Minute)
	return m
}

// rows is how many pieces of work a registration is: the webhook's answer and then the hubs, or the hubs alone.
func (m *mover) rows() int {
	if strings.Contains(m.policy, "custom") {
		return 2
	}
	return 1
}

// entry leads the device to a hub from its next registration on.
func (m *mover) entry(hub string) {
	m.Helper()
	m.custom.answer = `{"iotHubHostName":"` + hub + `","payload":{"for":"` + hub + `"}}`
	more, ifMatch := m.policy+startTwin, ""
	if !strings.Contains(m.policy, "custom") {
		more += `,"allocationPolicy":"static","iotHubs":["` + hub + `"]`
	}
	if m.snapshot("press").Enrollment != nil {
		ifMatch = "*"
	}
	_, err := m.put("press", keysBody(firstKey, secondKey, more), ifMatch)
	m.must(err)
}

func (m *mover) request(token string) registration.Request {
	r := m.keyed.request(token)
	r.APIVersion = m.version
	return r
}

// begin registers, as far as a request goes.
func (m *mover) begin() {
	m.Helper()
	m.token = m.keyed.token(time.Hour)
	answer, err := m.core.Register(m.ctx, m.request(m.token))
	m.must(err)
	m.operation = answer.Status.OperationID
}

func (m *mover) poll() *dps.OperationStatus {
	m.Helper()
	answer, err := m.core.Poll(m.ctx, m.request(m.token), m.operation)
	m.must(err)
	if (answer.Status.Status == dps.StatusAssigning) != (answer.RetryAfter > 0) {
		m.Errorf("status %s with the advice %s", answer.Status.Status, answer.RetryAfter)
	}
	return answer.Status
}

// assigning: everybody is told so, and nothing of a hub.
func (m *mover) assigning() {
	m.Helper()
	state := m.poll().RegistrationState
	seen, err := m.core.Registration(m.ctx, operator, "press")
	m.must(err)
	for who, s := range map[string]*dps.RegistrationState{"the device": state, "the operator": seen} {
		if s.Status != dps.StatusAssigning || s.AssignedHub != "" || s.DeviceID != "" {
			m.Fatalf("%s is told %+v", who, s)
		}
	}
}

// at: the device is told that it is at a hub, is there and nowhere else, and has this.
func (m *mover) at(hub, substatus, tags, desired, reported string) {
	m.Helper()
	state := m.poll().RegistrationState
	if state.Status != dps.StatusAssigned || state.AssignedHub != hub || state.Substatus != substatus || state.DeviceID != "press" {
		m.Fatalf("told %+v, want %s %s", state, hub, substatus)
	}
	if strings.Contains(m.policy, "custom") && string(state.Payload) != strings.TrimSuffix(m.custom.answer[strings.Index(m.custom.answer, `"payload":`)+10:], "}") {
		m.Errorf("it was handed %s", state.Payload)
	}
	m.is(hub, tags, desired, reported)
	if r := m.snapshot("press").Registration; len(r.Leaving) > 0 || len(r.Saved) > 0 {
		m.Errorf("it is at its hub and leaves %q, saved %q", r.Leaving, r.Saved)
	}
	m.waiting(0)
}

// is: the device is at a hub and nowhere else, and has this.
func (m *mover) is(hub, tags, desired, reported string) {
	m.Helper()
	if where := m.hub.far.Where("press"); len(where) != 1 || where[0] != hub {
		m.Fatalf("it is at %v, want %s", where, hub)
	}
	d, _ := m.hub.far.At(hub, "press")
	if got := fmt.Sprintf("%s %s %s %t", d.Data.Tags, d.Data.Desired, d.Data.Reported, d.Data.IoTEdge); got != tags+" "+desired+" "+reported+" true" {
		m.Errorf("it has %s, want %s %s %s", got, tags, desired, reported)
	}
}

// failed: the device is told why, and nothing was done.
func (m *mover) failed(code dps.Code, says string) {
	m.Helper()
	status := m.poll()
	state := status.RegistrationState
	if status.OperationID == "" || status.Status != dps.StatusFailed || state.Status != dps.StatusFailed || state.ErrorCode != code || !strings.Contains(state.ErrorMessage, says) || state.AssignedHub != "" {
		m.Fatalf("told %+v, want %d %q", state, code, says)
	}
	seen, err := m.core.Registration(m.ctx, operator, "press")
	m.must(err)
	if seen.Status != dps.StatusFailed || seen.ErrorCode != code || seen.AssignedHub != "" || seen.DeviceID != "" {
		m.Errorf("the operator is told %+v", seen)
	}
	m.waiting(0)
}

// What it has: as it was made, and as it is after it has worked.
var (
	made   = [3]string{`{"line":4}`, `{"rate":1}`, "{}"}
	worked = [3]string{`{"line":4}`, `{"rate":9}`, `{"fw":"2"}`}
)

func (m *mover) has(hub, substatus string, what [3]string) {
	m.Helper()
	m.at(hub, substatus, what[0], what[1], what[2])
}

func eachPolicy(t *testing.T, play func(t *testing.T, how string, m *mover)) {
	for how := range reprovisioning {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			play(t, how, newMover(t, how))
		})
	}
}

func stays(how string) bool { return strings.Contains(how, "never") || strings.Contains(how, "old") }

// move registers again after the entry leads elsewhere, and has the work done.
func (m *mover) move(hub string) {
	m.Helper()
	m.entry(hub)
	m.begin()
}

// moved is what becomes of a device whose entry leads from one hub to the other.
func (m *mover) moved(how string) {
	m.Helper()
	switch {
	case stays(how):
		m.has(farA, "initialAssignment", worked)
	case how == "reset":
		m.has(farB, "deviceDataReset", made)
	default:
		m.has(farB, "deviceDataMigrated", worked)
	}
}

func (m *mover) work() {
	m.Helper()
	_, err := m.core.Deliver(m.ctx)
	m.must(err)
}

// answers lets the webhook say what it may: a device that stays is offered its own hub alone.
func (m *mover) answers(how string) {
	if how == "custom, never" {
		m.custom.answer = `{"iotHubHostName":"` + farA + `","payload":{"for":"` + farA + `"}}`
	}
}

func TestADeviceRegistersAgainAtItsHub(t *testing.T) {
	t.Parallel()
	eachPolicy(t, func(t *testing.T, how string, m *mover) {
		m.begin()
		m.assigning()
		m.work()
		if how == "reset" {
			m.has(farA, "deviceDataReset", made)
		} else {
			m.has(farA, "initialAssignment", worked)
		}
		m.hub.far.Forget(farA, "press") // somebody removed it there
		m.clock.advance(time.Minute)
		m.begin()
		m.work()
		if is := m.snapshot("press").Registration.Substatus; how != "reset" && is != "initialAssignment" {
			t.Errorf("substatus %s", is)
		}
		m.is(farA, made[0], made[1], made[2])
	})
}

func TestADeviceMovesAsItsPolicySays(t *testing.T) {
	t.Parallel()
	eachPolicy(t, func(t *testing.T, how string, m *mover) {
		m.move(farB)
		m.answers(how)
		m.assigning()
		m.is(farA, worked[0], worked[1], worked[2]) // no request has called a hub
		m.work()
		m.moved(how)
	})
}

func TestTheHubThatADeviceLeavesIsLinkedNoMore(t *testing.T) {
	t.Parallel()
	eachPolicy(t, func(t *testing.T, how string, m *mover) {
		m.unlink(farA)
		m.move(farB)
		m.work()
		if stays(how) {
			says := "not linked any more"
			if how == "custom, never" {
				says = "is linked"
			}
			m.failed(dps.CodeNoHub, says)
			return
		}
		m.has(farB, "deviceDataReset", made)
		rows, err := m.inner.AuditByTrackingID(m.ctx, scopeOne, m.snapshot("press").Operation.TrackingID)
		m.must(err)
		if last := rows[len(rows)-1]; how != "reset" && !strings.Contains(last.Detail, `"lost":["`+farA+`"]`) {
			t.Errorf("the audit tells %s", last.Detail)
		}
	})
}

// The hub that a device goes to does not answer: it stays where it is, with all that it has, until that is well again.
func TestTheHubThatADeviceGoesToIsDown(t *testing.T) {
	t.Parallel()
	eachPolicy(t, func(t *testing.T, how string, m *mover) {
		m.hurry()
		m.hub.far.Trouble(farB, farhub.ErrDown)
		m.move(farB)
		m.answers(how)
		for range 3 {
			m.work()
			if stays(how) {
				break
			}
			m.assigning()
			m.is(farA, worked[0], worked[1], worked[2])
			m.clock.advance(2 * time.Minute)
		}
		m.hub.far.Trouble(farB, nil)
		m.work()
		m.moved(how)
	})
}

// The hub that a device leaves does not answer: it is not made at another one while it may still be there.
func TestTheHubThatADeviceLeavesIsDown(t *testing.T) {
	t.Parallel()
	eachPolicy(t, func(t *testing.T, how string, m *mover) {
		m.hurry()
		m.hub.far.Trouble(farA, farhub.ErrDown)
		m.move(farB)
		m.answers(how)
		for range 3 {
			m.work()
			m.assigning()
			m.is(farA, worked[0], worked[1], worked[2])
			m.clock.advance(2 * time.Minute)
		}
		m.hub.far.Trouble(farA, nil)
		m.work()
		m.moved(how)
	})
}
