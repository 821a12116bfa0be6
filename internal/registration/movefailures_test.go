package registration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/farhub"
)

// drain sets hubs over the network to take nobody new, or again.
func (w *world) drain(draining bool, names ...string) {
	w.Helper()
	any := registration.AnyRevision
	for _, name := range names {
		w.setHub(registration.LinkedHub{Name: name, Kind: registration.HubAzure, Weight: 1, Allocate: true, Draining: draining, Created: epoch, Updated: epoch}, pointer(uint64(any)))
	}
}

// Without a hub the registration has failed, at once and in words; the device stays where it was, and finds its way when there is one.
func TestThereIsNoHubForADevice(t *testing.T) {
	t.Parallel()
	m := newMover(t, "migrate")
	m.entry(farB)
	m.unlink(farB)
	m.begin()
	m.failed(dps.CodeNoHub, "none of the hubs that the entry names is linked")
	m.is(farA, worked[0], worked[1], worked[2])
	if r := m.snapshot("press").Registration; r.Hub != farA {
		t.Errorf("of its last hub it knows %q", r.Hub)
	}
	m.hub.far.Trouble(farB, nil)
	m.setHub(registration.LinkedHub{Name: farB, Kind: registration.HubAzure, Weight: 1, Allocate: true, Created: epoch, Updated: epoch}, nil)
	m.clock.advance(time.Minute)
	m.begin()
	m.work()
	m.has(farB, "deviceDataMigrated", worked)
}

// Nobody is at the hub any more, but what a device takes along is there, and so is its key.
func TestAHubIsNotUnlinkedUnderDevicesThatAreLeavingIt(t *testing.T) {
	t.Parallel()
	m := newMover(t, "migrate")
	m.hurry()
	m.hub.far.Trouble(farB, farhub.ErrDown)
	m.move(farB)
	m.work()
	m.is(farA, worked[0], worked[1], worked[2])
	m.wantFault(m.core.UnlinkHub(m.ctx, operator, farA, "", false), dps.CodeConflict, registration.ReasonHubInUse)
	m.hub.far.Trouble(farB, nil)
	m.clock.advance(2 * time.Minute)
	m.work()
	m.has(farB, "deviceDataMigrated", worked)
	m.must(m.core.UnlinkHub(m.ctx, operator, farA, "", false))
}

// A call for an operation whose place another one took can come late. What it has made is removed, though the operator has shut the device out meanwhile.
func TestWhatALateCallHasMadeIsRemovedOfADisabledEntryToo(t *testing.T) {
	t.Parallel()
	m := newMover(t, "migrate")
	m.hurry()
	m.hub.far.Trouble(farB, farhub.ErrDown)
	m.move(farB)
	m.work()
	late := registration.HubDevice{DeviceID: "press", Credential: registration.Credential{Primary: []byte(firstKey)}, Generation: m.snapshot("press").Operation.Revision}
	m.hub.far.Trouble(farB, nil)
	m.clock.advance(time.Minute)
	m.move(farA)
	for m.snapshot("press").Registration.Status == registration.Assigning {
		m.work()
		m.clock.advance(2 * time.Second)
	}
	m.hub.far.Judge = nil // for a moment it is at two hubs
	m.must(m.hub.far.EnsureDevice(m.ctx, scopeOne, farB, late))
	_, err := m.put("press", keysBody(firstKey, secondKey, `,"provisioningStatus":"disabled"`), "*")
	m.must(err)
	for range 3 {
		m.clock.advance(2 * time.Minute)
		m.work()
	}
	if where := m.hub.far.Where("press"); len(where) != 1 || where[0] != farA {
		t.Errorf("it is at %v", where)
	}
}

// The first registration, too; two such devices are not in each other's way though both are to have one device id.
func TestDevicesWithoutAHubAreNotInEachOthersWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link(farA, farB)
	w.hub.far.Judge = nil // two devices of one name are at two hubs
	for id, hub := range map[string]string{"one": farA, "two": farB} {
		_, err := w.put(id, keysBody(firstKey, secondKey, `,"deviceId":"pump","allocationPolicy":"static","iotHubs":["`+hub+`"]`), "")
		w.must(err)
	}
	w.drain(true, farA, farB)
	for _, id := range []string{"one", "two"} {
		k := w.keyed(id, firstKey)
		answer, err := k.register(k.token(time.Hour))
		w.must(err)
		answer, err = w.core.Poll(w.ctx, k.request(k.token(time.Hour)), answer.Status.OperationID)
		w.must(err)
		if s := answer.Status.RegistrationState; s.Status != dps.StatusFailed || s.ErrorCode != dps.CodeNoHub || !strings.Contains(s.ErrorMessage, "drained") {
			t.Errorf("%s is told %+v", id, s)
		}
	}
	w.drain(false, farA, farB)
	w.clock.advance(time.Minute)
	for id, hub := range map[string]string{"one": farA, "two": farB} {
		k := w.keyed(id, firstKey)
		w.must(second(k.register(k.token(time.Hour))))
		_, err := w.core.Deliver(w.ctx)
		w.must(err)
		if r := w.snapshot(id).Registration; r.Status != registration.Assigned || r.Hub != hub || r.DeviceID != "pump" {
			t.Errorf("%s is %s at %s %s", id, r.Status, r.Hub, r.DeviceID)
		}
	}
}

// Whoever is at a hub that drains leaves it when he registers again, if his policy lets him and there is another.
func TestAHubIsDrained(t *testing.T) {
	t.Parallel()
	for how, moves := range map[string]bool{"migrate": true, "reset": true, "none, a new api-version": true, "never": false, "none, an old api-version": false} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			m := newMover(t, how)
			_, err := m.put("press", keysBody(firstKey, secondKey, m.policy+startTwin+`,"allocationPolicy":"hashed","iotHubs":["`+farA+`","`+farB+`"]`), "*")
			m.must(err)
			m.drain(true, farA)
			m.begin()
			m.work()
			if moves != (m.snapshot("press").Registration.Hub == farB) {
				t.Errorf("it is at %s", m.snapshot("press").Registration.Hub)
			}
			m.moved(how)
		})
	}
}

// A hub that refuses for good ends the registration, with its words; nothing was done that the next one does not find.
func TestAHubRefusesADevice(t *testing.T) {
	t.Parallel()
	m := newMover(t, "migrate")
	refusal := &registration.RefusedError{Message: `{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized"}`, Err: errors.New("401")}
	m.hub.far.Trouble(farB, refusal)
	m.move(farB)
	m.work()
	m.failed(dps.CodeHubRefused, "IotHubUnauthorizedAccess")
	m.is(farA, worked[0], worked[1], worked[2])

	m.hub.far.Trouble(farB, nil) // it lets us look, and takes nobody
	m.hub.failWith("EnsureDevice "+farB, refusal)
	m.clock.advance(time.Minute)
	m.begin()
	m.work()
	m.failed(dps.CodeHubRefused, "IotHubUnauthorizedAccess")
	if where := m.hub.far.Where("press"); len(where) > 0 {
		t.Errorf("it is at %v", where)
	}
	m.hub.heal()
	m.clock.advance(time.Minute)
	m.begin()
	m.work()
	m.has(farB, "deviceDataMigrated", worked)
}

// It comes back before it was anywhere else: it has what it had.
func TestADeviceTurnsBack(t *testing.T) {
	t.Parallel()
	m := newMover(t, "migrate")
	m.hub.failWith("EnsureDevice "+farB, &registration.RefusedError{Message: "full", Err: errors.New("full")})
	m.move(farB)
	m.work()
	m.failed(dps.CodeHubRefused, "full")
	m.clock.advance(time.Minute)
	m.move(farA)
	m.work()
	m.has(farA, "initialAssignment", worked)
}

// What a webhook may answer, and what its device is told.
func TestAWebhookChoosesAndSaysSomething(t *testing.T) {
	t.Parallel()
	m := newMover(t, "custom")
	asked := len(m.custom.asked)
	m.custom.answer = `{"iotHubHostName":"B.far.example","payload":{"a":[1,2]},"initialTwin":{"tags":{"line":7},"properties":{"desired":{}}}}`
	r := m.request(m.keyed.token(2 * time.Hour))
	r.Body.Payload = json.RawMessage(`{"model":"P7"}`)
	answer, err := m.core.Register(m.ctx, r)
	m.must(err)
	m.token, m.operation = r.Authorization, answer.Status.OperationID
	m.work()
	if state := m.poll().RegistrationState; state.AssignedHub != farB || string(state.Payload) != `{"a":[1,2]}` {
		t.Fatalf("told %+v", state)
	}
	m.is(farB, worked[0], worked[1], worked[2]) // its twin came along: the webhook's is for first assignments and resets
	question := m.custom.asked[asked]["deviceRuntimeContext"].(map[string]any)
	if fmt.Sprint(question["payload"]) != "map[model:P7]" || question["currentIotHubHostName"] != farA || question["currentDeviceId"] != "press" {
		t.Errorf("it was asked %v", question)
	}
	for what, seen := range map[string]func() (*dps.RegistrationState, error){
		"the record": func() (*dps.RegistrationState, error) { return m.core.Registration(m.ctx, operator, "press") },
		"the device's lookup": func() (*dps.RegistrationState, error) {
			answer, err := m.core.Lookup(m.ctx, m.request(m.keyed.token(3*time.Hour)))
			return answer.Status.RegistrationState, err
		},
	} {
		state, err := seen()
		m.must(err)
		if string(state.Payload) != `{"a":[1,2]}` {
			t.Errorf("%s has %s", what, state.Payload)
		}
	}
	for status, says := range map[int]string{400: "status code: 400", 404: "status code: 404", 500: "status code: 500"} {
		m.custom.status = status
		m.clock.advance(time.Minute)
		m.begin()
		m.work()
		m.failed(dps.CodeAllocationFailed, says)
		m.is(farB, worked[0], worked[1], worked[2])
	}
	m.custom.status, m.custom.answer = 200, `{"iotHubHostName":"elsewhere.example"}`
	m.clock.advance(time.Minute)
	m.begin()
	m.work()
	m.failed(dps.CodeAllocationFailed, "was not offered")
}

// failWith fails every call of a name, before it has any effect, with an error of the hub's.
func (h *judgingHub) failWith(call string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuses = map[string]error{call: err}
}

// A hub that hangs holds up no other: its work is sixteen calls at a time, that of others goes on.
func TestAHubThatHangsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link(farA, farB)
	const devices = 40
	register := func(hub string) {
		for i := range devices {
			id := fmt.Sprintf("%c-%02d", hub[0], i)
			_, err := w.put(id, keysBody(firstKey, secondKey, `,"allocationPolicy":"static","iotHubs":["`+hub+`"]`), "")
			w.must(err)
			k := w.keyed(id, firstKey)
			w.must(second(k.register(k.token(time.Hour))))
		}
	}
	register(farA)
	register(farB)
	var mu sync.Mutex
	hanging, most := 0, 0
	release := make(chan struct{})
	w.hub.hangAt = func(ctx context.Context, hub string) {
		if hub != farA {
			return
		}
		mu.Lock()
		hanging++
		most = max(most, hanging)
		mu.Unlock()
		select {
		case <-release:
		case <-ctx.Done():
		}
		mu.Lock()
		hanging--
		mu.Unlock()
	}
	ctx, cancel := context.WithCancel(w.ctx)
	var working sync.WaitGroup
	working.Go(func() { w.core.Work(ctx, func(registration.Delivery, error) {}) })
	for deadline := time.Now().Add(20 * time.Second); ; {
		assigned := 0
		for i := range devices {
			if w.snapshot(fmt.Sprintf("b-%02d", i)).Registration.Status == registration.Assigned {
				assigned++
			}
		}
		if assigned == devices {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of the devices of a hub that is well are assigned", assigned)
		}
	}
	mu.Lock()
	if hanging == 0 || most > 16 {
		t.Errorf("%d calls hang at the other hub, %d at most", hanging, most)
	}
	mu.Unlock()
	close(release)
	cancel()
	working.Wait()
}

// A hub that throttles is left alone for as long as it says, by all of its work.
func TestAHubSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	m := newMover(t, "migrate")
	s := m.hurry()
	m.hub.far.Trouble(farB, &registration.RetryError{After: 40 * time.Second, Err: farhub.ErrDown})
	m.move(farB)
	m.work()
	if wait := s.waits[len(s.waits)-1]; wait < 40*time.Second || wait > time.Minute {
		t.Errorf("it is tried again in %s", wait)
	}
	m.hub.take()
	m.hub.far.Trouble(farB, nil)
	for range 3 {
		m.work() // its time has not come
		m.clock.advance(10 * time.Second)
	}
	if calls := m.hub.take(); len(calls) > 0 {
		t.Errorf("it was called: %v", calls)
	}
	m.clock.advance(11 * time.Second)
	m.work()
	m.has(farB, "deviceDataMigrated", worked)
}

// What a request has ordered is begun at once: here nobody looks for work by himself.
func TestWorkThatWasOrderedIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link(farA)
	registration.WorkEvery(w.core, time.Hour)
	_, err := w.put("press", keysBody(firstKey, secondKey, `,"allocationPolicy":"static","iotHubs":["`+farA+`"]`), "")
	w.must(err)
	reached := make(chan struct{})
	w.hub.hangAt = func(context.Context, string) { close(reached) }
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	var working sync.WaitGroup
	working.Go(func() { w.core.Work(ctx, func(registration.Delivery, error) {}) })
	k := w.keyed("press", firstKey)
	w.must(second(k.register(k.token(time.Hour))))
	select {
	case <-reached:
	case <-ctx.Done():
		t.Error("the hub was not called")
	}
	cancel()
	working.Wait()
}
