package embedded

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// application is the audit row of what an access policy does to a device.
func application(action, deviceID string) registration.Audit {
	return registration.Audit{At: time.Now(), Actor: "policy:application", Action: action, Object: deviceID, Outcome: registration.OutcomeOK, Detail: "{}"}
}

func (w *world) tryWrite(d registration.DeviceWrite) (registration.KnownDevice, error) {
	return w.WriteDevice(w.t.Context(), testScope, testHub, d, application(registration.ActionDevicePut, d.DeviceID))
}

func (w *world) writeDevice(d registration.DeviceWrite) registration.KnownDevice {
	w.t.Helper()
	known, err := w.tryWrite(d)
	if err != nil {
		w.t.Fatal(err)
	}
	return known
}

func (w *world) knownDevice(deviceID string) registration.KnownDevice {
	w.t.Helper()
	known, err := w.KnownDevice(w.t.Context(), testScope, testHub, deviceID)
	if err != nil {
		w.t.Fatal(err)
	}
	return known
}

func (w *world) tryRemove(deviceID string, was uint64) error {
	return w.RemoveKnown(w.t.Context(), testScope, testHub, deviceID, was, application(registration.ActionDeviceDelete, deviceID))
}

func twoKeys() registration.Credential {
	return registration.Credential{Primary: newKey(), Secondary: newKey()}
}

func TestAnApplicationsDeviceLogsInWithEitherOfItsKeys(t *testing.T) {
	w := newWorld(t, nil)
	c := twoKeys()
	made := w.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: c, StatusReason: "line 4", IoTEdge: true})
	if made.Version != 1 || made.Created.IsZero() || made.SealedKey != nil || !made.Credential.Equal(c) || !made.IoTEdge || made.StatusReason != "line 4" || made.Connected {
		t.Errorf("made %+v", made)
	}
	w.login(w.greet("dev", c.Primary), 0)
	w.login(w.greet("dev", c.Secondary), 0)
	if now := w.knownDevice("dev"); !now.Connected || now.ConnectionChanged.IsZero() || now.LastActivity.IsZero() {
		t.Errorf("of a connected device: %+v", now)
	}
	for _, was := range []uint64{0, 2} {
		if _, err := w.tryWrite(registration.DeviceWrite{DeviceID: "dev", Credential: twoKeys(), Was: was}); !errors.Is(err, registration.ErrChanged) {
			t.Errorf("writing over version 1 as %d: %v", was, err)
		}
	}
	if _, err := w.tryWrite(registration.DeviceWrite{DeviceID: "nobody", Credential: c, Was: 1}); !errors.Is(err, registration.ErrChanged) {
		t.Errorf("changing a device that is not there: %v", err)
	}
	if _, err := w.KnownDevice(t.Context(), testScope, testHub, "nobody"); !errors.Is(err, registration.ErrNotFound) {
		t.Errorf("reading it: %v", err)
	}
}

func TestAnApplicationsNewKeyEndsTheOldSessionBeforeTheAnswer(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	before := w.knownDevice("dev")
	w.store.beforePut = func() {
		r.send(packet(0xc0)) // until the new key is durable, the old session runs
		r.expect(0xd0, 0)
	}
	c := twoKeys()
	after := w.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: c, Was: before.Version})
	w.store.beforePut = nil
	r.expectClosed()
	w.settled()
	if w.endings(causeRekeyed) != 1 || after.Generation != before.Generation || after.Version <= before.Version || after.Connected {
		t.Errorf("after %+v", after)
	}
	w.refusedWith(w.greet("dev", key), 5)
	w.login(w.greet("dev", c.Secondary), 0)
}

func TestADisabledDeviceIsCutOffAndComesBackWhenItIsEnabled(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	before := w.knownDevice("dev")
	off := w.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: before.Credential, Disabled: true, StatusReason: "stolen", Was: before.Version})
	r.expectClosed()
	w.settled()
	if w.endings(causeDisabled) != 1 || !off.Disabled || off.StatusUpdated.IsZero() {
		t.Errorf("off %+v", off)
	}
	w.refusedWith(w.greet("dev", key), 5)
	on := w.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: before.Credential, Was: off.Version})
	if on.Disabled || on.StatusReason != "" {
		t.Errorf("on %+v", on)
	}
	w.login(w.greet("dev", key), 0)
}

func TestWhatAnApplicationLeavesAsItIsTouchesNoSession(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	before := w.knownDevice("dev")
	w.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: before.Credential, StatusReason: "seen", Was: before.Version})
	r.send(packet(0xc0))
	r.expect(0xd0, 0)
}

func TestARemovedDeviceIsGoneWithItsSession(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	before := w.knownDevice("dev")
	if err := w.tryRemove("dev", before.Version+1); !errors.Is(err, registration.ErrChanged) {
		t.Errorf("removing another version: %v", err)
	}
	r.send(packet(0xc0))
	r.expect(0xd0, 0)
	if err := w.tryRemove("dev", before.Version); err != nil {
		t.Fatal(err)
	}
	r.expectClosed()
	w.settled()
	if w.endings(causeRemoved) != 1 {
		t.Error("not counted")
	}
	w.refusedWith(w.greet("dev", key), 5)
	if err := w.tryRemove("dev", 0); !errors.Is(err, registration.ErrNotFound) {
		t.Errorf("removing it again: %v", err)
	}
	again := w.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: twoKeys()})
	if again.Generation < before.Generation || again.Version <= before.Version {
		t.Errorf("made anew %+v after %+v", again, before)
	}
}

// A device that an application has disabled or given other keys is what it was to be again once it has proved itself again.
func TestAProofHasTheLastWord(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 7)
	before := w.knownDevice("dev")
	c := twoKeys()
	w.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: c, Was: before.Version})
	if err := w.tryEnsure("dev", key, 6); !errors.Is(err, registration.ErrStale) {
		t.Errorf("an older proof: %v", err)
	}
	w.login(w.greet("dev", c.Primary), 0)
	w.ensure("dev", key, 8)
	w.refusedWith(w.greet("dev", c.Primary), 5)
	w.login(w.greet("dev", key), 0)
}

func TestANodeWithoutTheHubChangesOnlyWhatEndsNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, _ := s.hub(t, "alpha", true)
		node, _ := s.hub(t, "beta", false)
		c := twoKeys()
		made := node.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: c})
		r := owner.login(owner.greet("dev", c.Primary), 0)
		seen := node.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: c, StatusReason: "seen", Was: made.Version})
		for what, d := range map[string]registration.DeviceWrite{
			"other keys": {DeviceID: "dev", Credential: twoKeys(), Was: seen.Version},
			"disabled":   {DeviceID: "dev", Credential: c, Disabled: true, Was: seen.Version},
		} {
			if _, err := node.tryWrite(d); !errors.Is(err, registration.ErrElsewhere) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := node.tryRemove("dev", 0); !errors.Is(err, registration.ErrElsewhere) {
			t.Errorf("removed: %v", err)
		}
		r.send(packet(0xc0))
		r.expect(0xd0, 0)
		off := owner.writeDevice(registration.DeviceWrite{DeviceID: "dev", Credential: c, Disabled: true, Was: seen.Version})
		r.expectClosed()
		if off.Cutting || s.row("dev").Cutting {
			t.Error("what was cut is marked as still to be cut")
		}
	})
}

// A write of which nobody heard may take effect later. Whoever is connected by then is judged by it all the same.
func TestAWriteWhoseAnswerWasLostEndsTheSessionInTheEnd(t *testing.T) {
	for name, write := range map[string]func(*world, registration.KnownDevice) error{
		"other keys": func(w *world, d registration.KnownDevice) error {
			_, err := w.tryWrite(registration.DeviceWrite{DeviceID: "dev", Credential: twoKeys(), Was: d.Version})
			return err
		},
		"disabled": func(w *world, d registration.KnownDevice) error {
			_, err := w.tryWrite(registration.DeviceWrite{DeviceID: "dev", Credential: d.Credential, Disabled: true, Was: d.Version})
			return err
		},
		"removed": func(w *world, d registration.KnownDevice) error { return w.tryRemove("dev", d.Version) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w, r, key := oneDevice(t, nil)
			var late func()
			w.store.latePut = func(effect func()) { late = effect }
			if err := write(w, w.knownDevice("dev")); err == nil || errors.Is(err, registration.ErrChanged) {
				t.Fatalf("%s: %v", name, err)
			}
			w.store.latePut = nil
			r.expectClosed()
			again := w.login(w.greet("dev", key), 0) // before the write is seen
			time.Sleep(2 * time.Second)
			again.send(packet(0xc0)) // it was judged, and is let in
			again.expect(0xd0, 0)
			late()
			time.Sleep(5 * time.Second)
			again.expectClosed()
			w.refusedWith(w.greet("dev", key), 5)
			w.shut()
		})
	}
}
