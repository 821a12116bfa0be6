package azure_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// between runs the call, and before its nth request something else.
func between(t *testing.T, f *fakeHub, n int, something func(), call func(h *azure.Hub) error) error {
	t.Helper()
	f.between = func(at int) {
		if at == n {
			f.between = nil
			something()
		}
	}
	defer func() { f.between = nil }()
	return call(f.open(nil))
}

var thirdKey = registration.Credential{Primary: bytes.Repeat([]byte{9}, 32)}

// lateProof runs a call for generation 2, and between any two of its requests another process's for generation 3. It returns what is wrong.
func lateProof(t *testing.T, blind bool, before func(*fakeHub)) (wrong []string) {
	for n := 1; n <= 5; n++ {
		f := newFake(t)
		f.blind = blind
		before(f)
		came := false
		err := between(t, f, n, func() {
			came = true
			if err := f.open(nil).EnsureDevice(t.Context(), scope, name, wanted(thirdKey, 3, data(`{"third":1}`, ``, ``))); err != nil {
				wrong = append(wrong, fmt.Sprintf("before request %d: %v", n, err))
			}
		}, func(h *azure.Hub) error {
			return h.EnsureDevice(t.Context(), scope, name, wanted(newKey, 2, data(`{"second":1}`, ``, ``)))
		})
		d := f.device(device)
		switch {
		case !came:
			if err != nil {
				wrong = append(wrong, err.Error())
			}
		case err != nil && !errors.Is(err, registration.ErrStale):
			wrong = append(wrong, fmt.Sprintf("before request %d: the older proof ends in %v", n, err))
		case d.StatusReason != "latchkey generation 3" || d.Status != iothub.Enabled || !bytes.Equal(d.Authentication.PrimaryKey, thirdKey.Primary):
			wrong = append(wrong, fmt.Sprintf("before request %d: the device is %s, %q", n, d.Status, d.StatusReason))
		}
	}
	return wrong
}

func TestALaterProofBetweenAnyTwoRequestsWins(t *testing.T) {
	for name, before := range map[string]func(*fakeHub){"a new device": nothing, "a device that is there": existing} {
		for _, wrong := range lateProof(t, false, before) {
			t.Errorf("%s: %s", name, wrong)
		}
		if len(lateProof(t, true, before)) == 0 {
			t.Errorf("%s: the control: at a hub that looks at no condition nothing goes wrong either", name)
		}
	}
}

func TestWhateverComesBetweenTwoRequestsOfARemoval(t *testing.T) {
	f := newFake(t)
	existing(f)
	err := between(t, f, 2, func() {
		if err := f.open(nil).EnsureDevice(t.Context(), scope, name, wanted(thirdKey, 3, nil)); err != nil {
			t.Error(err)
		}
	}, func(h *azure.Hub) error { return h.RemoveDevice(t.Context(), scope, name, device, 2) })
	if !errors.Is(err, registration.ErrStale) || f.device(device) == nil {
		t.Errorf("a device that has proved itself since was removed: %v", err)
	}

	f = newFake(t)
	existing(f)
	err = between(t, f, 2, func() { // an operator's edit does not save it
		f.mu.Lock()
		f.devices[device].ETag = "edited"
		f.mu.Unlock()
	}, func(h *azure.Hub) error { return h.RemoveDevice(t.Context(), scope, name, device, 2) })
	if err != nil || f.device(device) != nil {
		t.Errorf("it was not removed: %v", err)
	}
}

func TestADeviceThatIsRemovedMeanwhileIsMadeAnew(t *testing.T) {
	for n := 2; n <= 4; n++ {
		f := newFake(t)
		existing(f)
		err := between(t, f, n, func() {
			f.mu.Lock()
			delete(f.devices, device)
			f.mu.Unlock()
		}, func(h *azure.Hub) error {
			return h.EnsureDevice(t.Context(), scope, name, wanted(newKey, 2, data(`{"x":1,"y":2}`, `{"z":3}`, ``)))
		})
		if wrong := holdsNow(f, 2, 0); err != nil || wrong != "" {
			t.Errorf("removed before request %d: %v, %s", n, err, wrong)
		}
	}
}

// TestManyProofsAtOnce: whoever writes, in whichever order, the device is the last proof's in the end, with nothing left to do.
func TestManyProofsAtOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	f := newFake(t)
	existing(f)
	var callers sync.WaitGroup
	order := rand.New(rand.NewPCG(seed, 1)).Perm(12)
	for _, n := range order {
		callers.Go(func() {
			h := f.open(nil)
			want := wanted(registration.Credential{Primary: bytes.Repeat([]byte{byte(n)}, 32)}, uint64(n+2), data(fmt.Sprintf(`{"by":%d}`, n), ``, ``))
			for { // as the outbox does
				err := h.EnsureDevice(t.Context(), scope, name, want)
				if err == nil || errors.Is(err, registration.ErrStale) {
					return
				}
				if outcomeOf(err) == refused {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	d := f.device(device)
	if d.StatusReason != "latchkey generation 13" || d.Status != iothub.Enabled || d.Authentication.PrimaryKey[0] != 11 || d.CloudToDeviceMessageCount != 0 {
		t.Errorf("the device is %+v", d.Device)
	}
}
