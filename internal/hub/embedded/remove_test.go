package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// within calls the hub and does not wait for ever.
func within(t *testing.T, call func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return call(ctx)
}

func (w *world) removeBy(t *testing.T, deviceID string, generation uint64) error {
	t.Helper()
	return within(t, func(ctx context.Context) error { return w.RemoveDevice(ctx, testScope, testHub, deviceID, generation) })
}

func (w *world) disableBy(t *testing.T, deviceID string, generation uint64) error {
	t.Helper()
	return within(t, func(ctx context.Context) error { return w.DisableDevice(ctx, testScope, testHub, deviceID, generation) })
}

func (w *world) ensureWith(t *testing.T, key []byte, generation uint64, data *registration.DeviceData) {
	t.Helper()
	d := registration.HubDevice{DeviceID: "dev", Credential: registration.Credential{Primary: key}, Generation: generation, Data: data}
	if err := within(t, func(ctx context.Context) error { return w.EnsureDevice(ctx, testScope, testHub, d) }); err != nil {
		t.Fatal(err)
	}
}

func (m *memory) row(deviceID string) (registration.Identity, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, ok := m.rows[rowKey(testScope, testHub, deviceID)]
	return id, ok
}

func (w *world) nothingLeft(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.devices) != 0 || w.server.Clients.Len() != 0 {
		t.Errorf("left over: %v, %d clients", w.devices, w.server.Clients.Len())
	}
}

func TestADisabledDeviceIsCutOffAndLetInByNothing(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	w.store.beforePut = func() {
		r.send(packet(0xc0)) // until it is durable, the session runs
		r.expect(0xd0, 0)
	}
	if err := w.disableBy(t, "dev", 4); err != nil {
		t.Fatal(err)
	}
	w.store.beforePut = nil
	r.expectClosed()
	w.settled()
	w.nothingLeft(t)
	opens := w.sealer.opens
	w.refusedWith(w.greet("dev", key), 5)
	disabled := w.sealer.opens - opens
	opens = w.sealer.opens
	w.refusedWith(w.greet("dev", newKey()), 5)
	if wrong := w.sealer.opens - opens; wrong != disabled {
		t.Errorf("a disabled device costs %d openings, a wrong key %d", disabled, wrong)
	}
	w.settled()
	if w.endings(causeDisabled) != 2 { // the session, and the login after it
		t.Errorf("%d connections ended for it", w.endings(causeDisabled))
	}
	if row, _ := w.store.row("dev"); !row.Disabled || row.Generation != 4 || row.StatusUpdated.IsZero() {
		t.Errorf("row %+v", row)
	}
	if err := w.tryEnsure("dev", key, 3); !errors.Is(err, registration.ErrStale) {
		t.Errorf("a proof from before it was disabled: %v", err)
	}
	w.ensure("dev", key, 4)
	w.login(w.greet("dev", key), 0)
}

func TestADeviceThatDoesNotExistIsKeptOutAllTheSame(t *testing.T) {
	for name, act := range map[string]func(*world, *testing.T, string, uint64) error{"disabled": (*world).disableBy, "removed": (*world).removeBy} {
		w := newWorld(t, nil)
		for range 2 {
			if err := act(w, t, "dev", 5); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := w.tryEnsure("dev", newKey(), 4); !errors.Is(err, registration.ErrStale) {
			t.Errorf("%s: a call that came late: %v", name, err)
		}
		if err := act(w, t, "dev", 4); !errors.Is(err, registration.ErrStale) {
			t.Errorf("%s by an older proof: %v", name, err)
		}
		w.ensure("dev", newKey(), 5)
	}
}

func TestARemovedDeviceLeavesNothingButItsGeneration(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	r.send(subscribe(1, "devices/dev/messages/devicebound/#"))
	r.expect(0x90, 3, 0, 1, 1)
	k := rowKey(testScope, testHub, "dev")
	w.store.set(func() {
		w.store.twins[k] = registration.Twin{Version: 3}
		w.store.messages[k] = []registration.HubMessage{{Seq: 1}}
	})
	if err := w.removeBy(t, "dev", 7); err != nil {
		t.Fatal(err)
	}
	r.expectClosed()
	w.settled()
	w.nothingLeft(t)
	if w.endings(causeRemoved) != 1 {
		t.Error("not counted")
	}
	if _, there := w.store.row("dev"); there || len(w.store.twins) != 0 || len(w.store.messages) != 0 || w.store.left[k] != 7 {
		t.Errorf("left: %+v", w.store)
	}
	w.refusedWith(w.greet("dev", key), 5)
	if err := w.tryEnsure("dev", key, 6); !errors.Is(err, registration.ErrStale) {
		t.Errorf("a call that came late: %v", err)
	}
	w.ensure("dev", key, 7)
	w.login(w.greet("dev", key), 0)
	if n := len(w.sink.records(t)); n != 0 {
		t.Errorf("%d records", n)
	}
}

func TestAnOlderProofRemovesAndDisablesNothing(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	w.ensure("dev", key, 5)
	for name, err := range map[string]error{"remove": w.removeBy(t, "dev", 4), "disable": w.disableBy(t, "dev", 4)} {
		if !errors.Is(err, registration.ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.send(packet(0xc0))
	r.expect(0xd0, 0)
}

func TestAHubOfAnotherScopeIsUnlinked(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	for name, call := range map[string]func(ctx context.Context) error{
		"remove":  func(ctx context.Context) error { return w.RemoveDevice(ctx, "another", testHub, "dev", 9) },
		"disable": func(ctx context.Context) error { return w.DisableDevice(ctx, testScope, "nowhere.example", "dev", 9) },
		"ensure": func(ctx context.Context) error {
			return w.EnsureDevice(ctx, "another", testHub, registration.HubDevice{DeviceID: "dev", Credential: registration.Credential{Primary: newKey()}, Generation: 9})
		},
		"data": func(ctx context.Context) error { _, err := w.DeviceData(ctx, "another", testHub, "dev"); return err },
	} {
		if err := within(t, call); !errors.Is(err, registration.ErrUnlinked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.send(packet(0xc0))
	r.expect(0xd0, 0)
}

// Each write of a removal fails in both forms, and a call after it ends what it began: no session of the device is ever left when a call has
// said that all is done.
func TestARemovalThatFailedHalfwayIsFinishedByTheNext(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for nth := range 2 { // the write that shuts it, and the one that removes it
			t.Run(fmt.Sprintf("write %d, lost %v", nth, lost), func(t *testing.T) {
				w, r, key := oneDevice(t, nil)
				writes := 0
				w.store.beforePut = func() {
					w.store.set(func() {
						w.store.failPut, w.store.losePut = nil, nil
						if broken := errors.New("broken"); writes == nth && lost {
							w.store.losePut = broken
						} else if writes == nth {
							w.store.failPut = broken
						}
						writes++
					})
				}
				if err := w.removeBy(t, "dev", 4); err == nil {
					t.Fatal("no error")
				}
				w.store.set(func() { w.store.beforePut, w.store.failPut, w.store.losePut = nil, nil, nil })
				if err := w.removeBy(t, "dev", 4); err != nil {
					t.Fatal(err)
				}
				r.expectClosed()
				w.settled()
				w.nothingLeft(t)
				if _, there := w.store.row("dev"); there {
					t.Error("it is still there")
				}
				w.refusedWith(w.greet("dev", key), 5)
			})
		}
	}
}

// The caller gives up before the commit is seen, and until then the device logs in anew. The next call finds the device disabled and must not take that for
// the end.
func TestALoginBeforeALateCommitIsSeenDoesNotOutliveTheDisabling(t *testing.T) {
	w, _, key := oneDevice(t, nil)
	var commit func()
	w.store.set(func() { w.store.latePut = func(effect func()) { commit = effect } })
	if err := w.disableBy(t, "dev", 2); err == nil {
		t.Fatal("no error")
	}
	w.store.set(func() { w.store.latePut = nil })
	r := w.login(w.greet("dev", key), 1)
	commit()
	if err := w.disableBy(t, "dev", 2); err != nil {
		t.Fatal(err)
	}
	r.expectClosed()
}

func TestOnlyTheProcessWithTheSessionsShutsADeviceOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, _ := s.hub(t, "alpha", true)
		node, _ := s.hub(t, "beta", false)
		key := newKey()
		owner.ensure("dev", key, 1)
		r := owner.login(owner.greet("dev", key), 0)
		for name, err := range map[string]error{"disable": node.disableBy(t, "dev", 2), "remove": node.removeBy(t, "dev", 2)} {
			if !errors.Is(err, registration.ErrElsewhere) {
				t.Errorf("%s by another process: %v", name, err)
			}
		}
		r.send(packet(0xc0))
		r.expect(0xd0, 0)

		// Half done: durable, and the session not cut yet.
		s.store.set(func() { s.store.losePut = errors.New("connection lost") })
		if err := owner.removeBy(t, "dev", 2); err == nil {
			t.Fatal("no error")
		}
		s.store.set(func() { s.store.losePut = nil })
		for name, err := range map[string]error{"disable": node.disableBy(t, "dev", 2), "remove": node.removeBy(t, "dev", 2), "enable": node.tryEnsure("dev", key, 3)} {
			if !errors.Is(err, registration.ErrElsewhere) {
				t.Errorf("%s by another process, half done: %v", name, err)
			}
		}
		if err := owner.disableBy(t, "dev", 2); err != nil {
			t.Fatal(err)
		}
		r.expectClosed()
		if row := s.row("dev"); row.Cutting || !row.Disabled {
			t.Errorf("row %+v", row)
		}
		if err := node.removeBy(t, "dev", 2); err != nil { // no session can hang on it any more
			t.Fatal(err)
		}
		node.ensure("dev", key, 3)
		owner.login(owner.greet("dev", key), 0)
	})
}

func TestEnablingWithTheSameKeyNeedsNoSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, _ := s.hub(t, "alpha", true)
		node, _ := s.hub(t, "beta", false)
		key := newKey()
		owner.ensure("dev", key, 1)
		if err := owner.disableBy(t, "dev", 1); err != nil {
			t.Fatal(err)
		}
		node.ensure("dev", key, 1)
		owner.login(owner.greet("dev", key), 0)
	})
}

func object(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return m
}

func TestANewDeviceHasTheDataThatItIsGiven(t *testing.T) {
	w := newWorld(t, nil)
	data := registration.DeviceData{Tags: json.RawMessage(`{"site":"north"}`), Desired: json.RawMessage(`{"rate":5}`), Reported: json.RawMessage(`{"is":4}`), IoTEdge: true}
	key := newKey()
	w.ensureWith(t, key, 1, &data)
	is := func() registration.DeviceData {
		t.Helper()
		got, err := w.DeviceData(t.Context(), testScope, testHub, "dev")
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := is(); string(got.Tags) != string(data.Tags) || string(got.Desired) != string(data.Desired) || string(got.Reported) != string(data.Reported) || !got.IoTEdge {
		t.Errorf("%s %s %s %v", got.Tags, got.Desired, got.Reported, got.IoTEdge)
	}
	other := registration.DeviceData{Desired: json.RawMessage(`{"rate":9}`)}
	w.ensureWith(t, key, 2, &other) // it is there: what it has stays
	if got := is(); string(got.Desired) != `{"rate":5}` || !got.IoTEdge {
		t.Errorf("%s %v", got.Desired, got.IoTEdge)
	}
	before := w.store.twins[rowKey(testScope, testHub, "dev")]
	other.Replace = true
	w.ensureWith(t, key, 3, &other)
	got := is()
	after := w.store.twins[rowKey(testScope, testHub, "dev")]
	if string(got.Desired) != `{"rate":9}` || string(got.Reported) != `{}` || string(got.Tags) != `{}` || got.IoTEdge || after.DesiredVersion <= before.DesiredVersion || after.ReportedVersion <= before.ReportedVersion {
		t.Errorf("%s %s %s %v, %+v", got.Desired, got.Reported, got.Tags, got.IoTEdge, after)
	}
	w.store.set(func() {
		twin := w.store.twins[rowKey(testScope, testHub, "dev")]
		twin.Reported = []byte(`{"since":1}`)
		w.store.twins[rowKey(testScope, testHub, "dev")] = twin
	})
	w.ensureWith(t, key, 3, &other) // a repeated call puts nothing back
	if err := w.disableBy(t, "dev", 3); err != nil {
		t.Fatal(err)
	}
	w.ensureWith(t, key, 3, &other)
	if got := is(); string(got.Reported) != `{"since":1}` {
		t.Errorf("%s", got.Reported)
	}
	if object(t, []byte(w.store.audits[0].Detail))["twin"] != true {
		t.Errorf("%s", w.store.audits[0].Detail)
	}
}

// A device that stays connected under the same key hears what it is to be from now on.
func TestADeviceWhoseDataIsReplacedIsTold(t *testing.T) {
	w, r, key := listening(t, desiredChanges, nil)
	w.ensureWith(t, key, 2, &registration.DeviceData{Desired: json.RawMessage(`{"rate":9}`), Replace: true})
	_, topic, _, patch := r.receive()
	if topic != "$iothub/twin/PATCH/properties/desired/?$version=2" || object(t, []byte(patch))["rate"] != 9.0 {
		t.Errorf("%s %s", topic, patch)
	}
}

func TestDataThatNoTwinCanHoldIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	deep := json.RawMessage(strings.Repeat(`{"a":`, 30) + "1" + strings.Repeat("}", 30))
	d := registration.HubDevice{DeviceID: "dev", Credential: registration.Credential{Primary: newKey()}, Generation: 1, Data: &registration.DeviceData{Desired: deep}}
	var refused *registration.RefusedError
	err := within(t, func(ctx context.Context) error { return w.EnsureDevice(ctx, testScope, testHub, d) })
	if !errors.As(err, &refused) || !strings.Contains(refused.Message, "deeper") {
		t.Errorf("%v", err)
	}
	if _, there := w.store.row("dev"); there {
		t.Error("it was written")
	}
}

func TestAWrittenIdentityKeepsWhatIsNotWritten(t *testing.T) {
	w, _, key := oneDevice(t, nil)
	k := rowKey(testScope, testHub, "dev")
	w.store.set(func() {
		row := w.store.rows[k]
		row.IoTEdge, row.StatusReason = true, "because"
		w.store.rows[k] = row
	})
	before, _ := w.store.row("dev")
	w.ensure("dev", key, 2)
	w.ensure("dev", newKey(), 3)
	if row, _ := w.store.row("dev"); !row.IoTEdge || row.StatusReason != "because" || row.Created != before.Created || row.Created.IsZero() {
		t.Errorf("row %+v", row)
	}
}

// Many at once remove, disable and enable the device by proofs that rise: the last one decides, whatever order they come in.
func TestTheNewestProofDecidesWhatADeviceIs(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	done := make(chan error)
	for generation := uint64(1); generation <= 30; generation++ {
		go func() {
			var err error
			switch generation % 3 {
			case 0:
				err = w.tryEnsure("dev", key, generation)
			case 1:
				err = w.removeBy(t, "dev", generation)
			case 2:
				err = w.disableBy(t, "dev", generation)
			}
			done <- err
		}()
	}
	var failed []error
	for range 30 {
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, registration.ErrStale) {
				failed = append(failed, err)
			}
		case <-time.After(patience):
			t.Fatal("hangs")
		}
	}
	row, there := w.store.row("dev")
	if !there || row.Disabled || row.Generation != 30 || len(failed) > 0 {
		t.Errorf("row %+v, failed: %v", row, slices.Compact(failed))
	}
	w.login(w.greet("dev", key), 0)
}

func TestADeviceThatWentElsewhereIsNotThereWhenItsHubIsLinkedAgain(t *testing.T) {
	linked := atomic.Bool{}
	linked.Store(true)
	w, r, key := oneDevice(t, func(c *Config) {
		c.Names = func(hub string) (string, bool) {
			scope, ok := scopeOf(hub)
			return scope, ok && linked.Load()
		}
	})
	forget := func(deviceID string, generation uint64) error {
		return within(t, func(ctx context.Context) error { return w.Forget(ctx, testScope, testHub, deviceID, generation) })
	}
	if err := forget("dev", 5); err == nil {
		t.Error("a device was forgotten at a hub that is linked")
	}
	linked.Store(false)
	if err := within(t, func(ctx context.Context) error { return w.Drop(ctx, testScope, testHub) }); err != nil {
		t.Fatal(err)
	}
	r.expectClosed()
	// Who proved himself later is not touched; the proof of now is.
	w.store.set(func() {
		at := rowKey(testScope, testHub, "dev")
		id := w.store.rows[at]
		id.Generation = 9
		w.store.rows[at] = id
	})
	if err := forget("dev", 5); !errors.Is(err, registration.ErrStale) {
		t.Errorf("a call that came late ended with %v", err)
	}
	for range 2 {
		if err := forget("dev", 9); err != nil {
			t.Error(err)
		}
	}
	if err := forget("nobody", 1); err != nil {
		t.Error(err)
	}
	linked.Store(true)
	w.settled()
	w.refusedWith(w.greet("dev", key), 5)
	if _, there := w.store.row("dev"); there {
		t.Error("the identity is still there")
	}
}
