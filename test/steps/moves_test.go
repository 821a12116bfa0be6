package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/farhub"
)

// Hubs over the network.
const (
	farA = "a.far.example"
	farB = "b.far.example"
	farC = "c.far.example"
)

// split is the embedded hub and those over the network.
type split struct {
	registration.Hub
	far *farhub.Hubs
}

func (h *split) of(hub string) registration.Hub {
	if h.far.Has(hub) {
		return h.far
	}
	return h.Hub
}

func (h *split) EnsureDevice(ctx context.Context, scope, hub string, d registration.HubDevice) error {
	err := h.of(hub).EnsureDevice(ctx, scope, hub, d)
	if at := h.far.Where(d.DeviceID); len(at) > 1 {
		h.far.Judge("device %s is at %v", d.DeviceID, at)
	}
	return err
}

func (h *split) RemoveDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	return h.of(hub).RemoveDevice(ctx, scope, hub, deviceID, generation)
}

func (h *split) DisableDevice(ctx context.Context, scope, hub, deviceID string, generation uint64) error {
	return h.of(hub).DisableDevice(ctx, scope, hub, deviceID, generation)
}

func (h *split) DeviceData(ctx context.Context, scope, hub, deviceID string) (registration.DeviceData, error) {
	return h.of(hub).DeviceData(ctx, scope, hub, deviceID)
}

func (h *split) Reach(scope, hub string) registration.Reach { return h.of(hub).Reach(scope, hub) }

// oracle is a webhook that leads each device where it is told to.
type oracle struct {
	mu  sync.Mutex
	hub map[string]string // by registration id
}

func (o *oracle) lead(id, hub string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hub[id] = hub
}

func (o *oracle) Post(_ context.Context, call registration.WebhookCall) (int, []byte, error) {
	var asked struct {
		DeviceRuntimeContext struct{ RegistrationID string }
		LinkedHubs           []string
	}
	if err := json.Unmarshal(call.Body, &asked); err != nil {
		return 0, nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	hub := o.hub[asked.DeviceRuntimeContext.RegistrationID]
	if !slices.Contains(asked.LinkedHubs, hub) {
		hub = asked.LinkedHubs[0] // it must stay
	}
	return 200, []byte(`{"iotHubHostName":"` + hub + `"}`), nil
}

// withFarHubs gives a stage hubs over the network.
func (s *stage) withFarHubs() {
	s.Helper()
	s.far, s.oracle = farhub.New(farA, farB, farC), &oracle{hub: map[string]string{}}
	s.far.Judge = s.Errorf
	s.far.Local = func(deviceID string) []string {
		_, err := s.store.Identity(context.Background(), s.scope, host, deviceID)
		if errors.Is(err, registration.ErrNotFound) {
			return nil
		}
		return []string{host}
	}
	for _, name := range []string{farA, farB, farC} {
		_, verdict, err := s.store.PutHub(s.ctx, s.scope, registration.LinkedHub{Name: name, Kind: registration.HubAzure, Weight: 1, Allocate: true, Created: s.clock.Now(), Updated: s.clock.Now()},
			nil, registration.Audit{At: s.clock.Now(), Actor: registration.ActorLocal, Action: "hub.put", Object: name, Outcome: registration.OutcomeOK})
		must(s.T, err)
		if verdict != registration.Applied {
			s.Fatalf("hub %s: verdict %d", name, verdict)
		}
	}
}

// policies of reprovisioning, with the api-version of their devices.
var policies = []struct{ name, entry, version string }{
	{"migrate", `,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true}`, "2021-10-01"},
	{"reset", `,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":false}`, "2021-10-01"},
	{"never", `,"reprovisionPolicy":{"updateHubAssignment":false,"migrateDeviceData":false}`, "2021-10-01"},
	{"none, old", "", "2018-04-01"},
	{"none, new", "", "2019-03-31"},
	{"custom", `,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true},"allocationPolicy":"custom"` +
		`,"customAllocationDefinition":{"webhookUrl":"https://alloc.example/pick","apiVersion":"2021-10-01"}`, "2021-10-01"},
}

// journey is where a device was, and where its entry leads it by now.
type journey struct{ from, to string }

var journeys = []journey{{farA, farB}, {host, farB}, {farA, host}, {farA, farA}}

func (j journey) String() string {
	return strings.NewReplacer(".far.example", "", ".example.net", "").Replace(j.from + " to " + j.to)
}

const (
	startTwin = `,"initialTwin":{"tags":{"line":4},"properties":{"desired":{"rate":1}}}`
	madeTwin  = `{"line":4} {"rate":1} {}`
	workTwin  = `{"line":4} {"rate":9} {"fw":"2"}`
)

// traveller is a device on a journey.
type traveller struct {
	*device
	policy int
}

func (t *traveller) lead(n *node, hub string) {
	t.Helper()
	more := policies[t.policy].entry + startTwin
	if policies[t.policy].name == "custom" {
		n.oracle.(*oracle).lead(t.id, hub)
	} else {
		more += `,"allocationPolicy":"static","iotHubs":["` + hub + `"]`
	}
	n.enroll(t.id, keysBody(firstKey, secondKey, more))
}

// travel is a device that is at one hub, has worked there, and is to go to the other.
func (n *node) travel(policy int, j journey) *traveller {
	n.Helper()
	t := &traveller{device: &device{stage: n.stage, id: n.name("traveller"), key: firstKey, held: registration.Credential{Primary: firstKey, Secondary: secondKey},
		version: policies[policy].version}, policy: policy}
	t.lead(n, j.from)
	must(n.T, t.play(n))
	t.arrived(n, j.from, madeTwin)
	t.worked(j.from)
	n.clock.advance(time.Minute)
	t.lead(n, j.to)
	return t
}

// worked is what application and device do to its twin.
func (t *traveller) worked(hub string) {
	t.Helper()
	desired, reported := []byte(`{"rate":9}`), []byte(`{"fw":"2"}`)
	if hub != host {
		t.far.Change(hub, t.id, func(d *farhub.Device) { d.Data.Desired, d.Data.Reported = desired, reported })
		return
	}
	twin, err := t.store.Twin(t.ctx, t.scope, host, t.id)
	must(t.T, err)
	was := twin.Version
	twin.Desired, twin.Reported = desired, reported
	verdict, err := t.store.PutTwin(t.ctx, t.scope, registration.TwinPut{Twin: twin, Was: was})
	must(t.T, err)
	if verdict != registration.Applied {
		t.Fatalf("twin: verdict %d", verdict)
	}
}

// play registers and has the work done, as far as it goes.
func (t *traveller) play(n *node) error {
	t.Helper()
	if refused := t.authorize(n); refused != nil {
		return fmt.Errorf("refused: %+v", refused)
	}
	t.operation = ""
	answer, err := n.core.Register(t.ctx, t.request(n, t.token))
	if err == nil {
		t.operation = answer.Status.OperationID
	}
	_, delivered := n.core.Deliver(t.ctx)
	return errors.Join(err, delivered)
}

// ends has everything done that is left, by a service that was just started. A device whose request was lost sends it again.
func (t *traveller) ends(n *node) *registration.Registration {
	t.Helper()
	for range 8 {
		must(t.T, n.core.Maintain(t.ctx))
		must(t.T, second(n.core.Deliver(t.ctx)))
		is, err := t.store.Device(t.ctx, t.scope, t.id)
		must(t.T, err)
		if r := is.Registration; r == nil || r.Status != registration.Assigning && r.OperationID == t.operation {
			return r
		} else if r.OperationID != t.operation {
			_ = t.play(n)
		}
		t.clock.advance(20 * time.Second)
	}
	is, err := t.store.Device(t.ctx, t.scope, t.id)
	must(t.T, err)
	for _, kind := range []registration.OutboxKind{registration.OutboxAdvance, registration.OutboxAdvanceRemote} {
		rows, err := t.store.ClaimOutbox(t.ctx, registration.OutboxClaim{ID: "look", Kind: kind, Limit: 10})
		t.Logf("%s: %+v, %v", kind, rows, err)
	}
	t.Fatalf("%s does not arrive: %s", t.id, shown(is.Registration))
	return nil
}

func second[T any](_ T, err error) error { return err }

// arrived: it is assigned to a hub, is there and nowhere else, and has this.
func (t *traveller) arrived(n *node, hub, twin string) {
	t.Helper()
	is, err := t.store.Device(t.ctx, t.scope, t.id)
	must(t.T, err)
	if r := is.Registration; r == nil || r.Status != registration.Assigned || r.Hub != hub || len(r.Leaving) > 0 || len(r.Saved) > 0 {
		t.Fatalf("%s is %s, want it at %s", t.id, shown(r), hub)
	}
	t.there(hub, twin)
	answer, refused := t.poll(n)
	if refused != nil || answer.Status.RegistrationState.AssignedHub != hub {
		t.Errorf("%s is told %+v, %+v", t.id, answer.Status, refused)
		return
	}
	t.hear(answer)
}

func shown(r *registration.Registration) string {
	if r == nil {
		return "not registered"
	}
	return fmt.Sprintf("%s at %q, leaves %q, saved %q, %d %s", r.Status, r.Hub, r.Leaving, r.Saved, r.ErrorCode, r.ErrorMessage)
}

func (t *traveller) there(hub, twin string) {
	t.Helper()
	if at := t.far.Where(t.id); !slices.Equal(at, []string{hub}) {
		t.Errorf("%s is at %v, want %s", t.id, at, hub)
		return
	}
	var got string
	if hub == host {
		is, err := t.store.Twin(t.ctx, t.scope, host, t.id)
		must(t.T, err)
		got = fmt.Sprintf("%s %s %s", orEmpty(is.Tags), orEmpty(is.Desired), orEmpty(is.Reported))
	} else {
		d, _ := t.far.At(hub, t.id)
		got = fmt.Sprintf("%s %s %s", d.Data.Tags, d.Data.Desired, d.Data.Reported)
	}
	if got != twin {
		t.Errorf("%s has %s at %s, want %s", t.id, got, hub, twin)
	}
}

func orEmpty(part []byte) string {
	if len(part) == 0 {
		return "{}"
	}
	return string(part)
}

// destination is where a journey ends, and with what.
func destination(policy int, j journey) (hub, twin string) {
	switch name := policies[policy].name; {
	case name == "never", name == "none, old":
		return j.from, workTwin
	case name == "reset":
		return j.to, madeTwin
	}
	return j.to, workTwin
}

// The process dies at any call of any journey, on either side of its effect. Whoever goes on finishes the journey: the device is at one hub, with what
// it had, and never was at two.
func TestAMoveIsCutOffAtAnyCall(t *testing.T) {
	t.Parallel()
	onBoth(t, 5, 8, func(s *stage) {
		s.withFarHubs()
		s.noLease, s.noRest = true, true
		n := s.start()
		for policy := range policies {
			for _, j := range journeys {
				if !s.chosen() { // of what is played a sample of the calls
					continue
				}
				s.Run(policies[policy].name+", "+j.String(), func(t *testing.T) {
					there := n.at(s.in(t))
					defer func() { s.told, s.made = there.told, there.made }()
					there.far.Judge = there.Errorf
					calls := there.callsOfMove(policy, j)
					for nth := range calls {
						for _, dies := range []trouble{diesBefore, diesAfter} {
							if there.chosen() {
								there.start().cutOff(policy, j, nth, calls, dies)
							}
						}
					}
				})
			}
		}
	})
}

func (n *node) callsOfMove(policy int, j journey) []string {
	n.Helper()
	n.tap.open()
	t := n.travel(policy, j)
	n.tap.open()
	must(n.T, t.play(n))
	calls, _ := n.tap.recorded()
	hub, twin := destination(policy, j)
	t.arrived(n, hub, twin)
	return slices.Clone(calls)
}

func (n *node) cutOff(policy int, j journey, nth int, calls []string, dies trouble) {
	n.Helper()
	n.tap.open()
	t := n.travel(policy, j)
	n.tap.armAt(calls, nth, dies, nil)
	_ = t.play(n)
	_, met := n.tap.recorded()
	n.tap.open()
	failed := n.Failed()
	if !met {
		n.Errorf("%s: call %d, %s, was not made", t.id, nth, calls[nth])
	}
	fresh := n.start()
	t.ends(fresh)
	hub, twin := destination(policy, j)
	t.arrived(fresh, hub, twin)
	if n.Failed() && !failed {
		n.Errorf("failed: %s: call %d, %s, %s", t.id, nth, calls[nth], dies)
	}
}

// comes is what somebody does while a device moves from A to B.
type comes struct {
	name string
	act  func(t *traveller, other *node)
	end  func(t *traveller, fresh *node)
}

// moves again is what the device does, at another node, after its entry leads elsewhere.
func movesAgain(hub string) func(t *traveller, other *node) {
	return func(t *traveller, other *node) {
		t.lead(other, hub)
		t.clock.advance(time.Second) // another token
		again := *t.device
		must(t.T, (&traveller{device: &again, policy: t.policy}).play(other))
		t.token, t.operation = again.token, again.operation
	}
}

func isAt(hub string) func(t *traveller, fresh *node) {
	return func(t *traveller, fresh *node) {
		t.ends(fresh)
		t.arrived(fresh, hub, workTwin)
	}
}

var comings = []comes{
	{"it registers again", movesAgain(farB), isAt(farB)},
	{"it turns back", movesAgain(farA), isAt(farA)},
	{"it goes elsewhere", movesAgain(farC), isAt(farC)},
	{"it goes to the embedded hub", movesAgain(host), isAt(host)},
	{"the entry changes", func(t *traveller, other *node) { t.lead(other, farC) }, isAt(farB)},
	{"another node delivers", func(t *traveller, other *node) { must(t.T, second(other.core.Deliver(t.ctx))) }, isAt(farB)},
	{"the enrollment is disabled", func(t *traveller, other *node) { other.enroll(t.id, keysBody(firstKey, secondKey, disabled)) }, func(t *traveller, fresh *node) {
		_, _ = fresh.core.Deliver(t.ctx)
		if at := t.far.Where(t.id); len(at) > 1 {
			t.Errorf("%s is at %v", t.id, at)
		}
		t.lead(fresh, farB) // it is let in again, and goes on or begins anew
		t.clock.advance(time.Second)
		_ = t.play(fresh)
		isAt(farB)(t, fresh)
	}},
	{"the enrollment is deleted", func(t *traveller, other *node) {
		must(t.T, other.core.DeleteEnrollment(t.ctx, other.operator(), t.id, ""))
	}, func(t *traveller, fresh *node) { t.nowhereMore(fresh, 1) }},
	{"the enrollment is deleted, and the device at its hub", func(t *traveller, other *node) {
		by := other.operator()
		by.HubOrder = registration.HubRemove
		must(t.T, other.core.DeleteEnrollment(t.ctx, by, t.id, ""))
	}, func(t *traveller, fresh *node) { t.nowhereMore(fresh, 0) }},
	{"its registration is deleted", func(t *traveller, other *node) {
		must(t.T, other.core.DeleteRegistration(t.ctx, other.operator(), t.id, ""))
	}, func(t *traveller, fresh *node) { t.nowhereMore(fresh, 1) }},
}

// nowhereMore: it is registered no more, and at so many hubs at most.
func (t *traveller) nowhereMore(fresh *node, most int) {
	t.Helper()
	for range 3 {
		must(t.T, fresh.core.Maintain(t.ctx))
		_, _ = fresh.core.Deliver(t.ctx)
		t.clock.advance(2 * time.Minute)
	}
	is, err := t.store.Device(t.ctx, t.scope, t.id)
	must(t.T, err)
	if at := t.far.Where(t.id); is.Registration != nil || len(at) > most {
		t.Errorf("%s is %s, at %v", t.id, shown(is.Registration), at)
	}
	t.forget(t.id)
}

// Whatever comes between two calls of a move, it is never at two hubs, and ends at the one where the last of its registrations leads.
func TestWhateverComesDuringAMove(t *testing.T) {
	t.Parallel()
	onBoth(t, 4, 6, func(s *stage) {
		s.withFarHubs()
		s.noRest = true
		n, other := s.start(), s.start()
		for _, c := range comings {
			if !s.chosen() {
				continue
			}
			s.Run(c.name, func(t *testing.T) {
				there := s.in(t)
				defer func() { s.told, s.made = there.told, there.made }()
				there.far.Judge = there.Errorf
				n, other := n.at(there), other.at(there)
				calls := n.callsOfMove(0, journeys[0])
				for nth := slices.Index(calls, "Redeem") + 1; nth < len(calls); nth++ {
					if there.chosen() {
						n.meetComing(c, other, nth, calls)
					}
				}
			})
		}
	})
}

func (n *node) meetComing(c comes, other *node, nth int, calls []string) {
	n.Helper()
	n.tap.open()
	t := n.travel(0, journeys[0])
	failed := n.Failed()
	n.tap.armAt(calls, nth, 0, func() { c.act(t, other) })
	_ = t.play(n)
	if _, met := n.tap.recorded(); !met { // it was over before
		n.tap.open()
		c.act(t, other)
	}
	n.tap.open()
	c.end(t, n.start())
	if n.Failed() && !failed {
		n.Errorf("failed: %s: %s, in front of call %d, %s", t.id, c.name, nth, calls[nth])
	}
}
