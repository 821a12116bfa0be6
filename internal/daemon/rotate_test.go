package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/keyring"
)

// ringFile is a key ring file as a person edits it.
type ringFile struct {
	Primary string           `json:"primary"`
	Keys    []map[string]any `json:"keys"`
}

// dropKey takes a key out of the ring file; if it was the only one, another takes its place.
func dropKey(t *testing.T, h house, id string) {
	t.Helper()
	path := filepath.Join(h.dir, "master.key")
	ring, err := keyring.Open(path)
	must(t, err)
	if len(ring.Keys()) == 1 {
		_, err = ring.Add(time.Now())
		must(t, err)
		_, err = ring.Rotate()
		must(t, err)
	}
	text, err := os.ReadFile(path)
	must(t, err)
	var file ringFile
	must(t, json.Unmarshal(text, &file))
	file.Keys = slices.DeleteFunc(file.Keys, func(k map[string]any) bool { return k["id"] == id })
	text, err = json.Marshal(file)
	must(t, err)
	must(t, os.WriteFile(path, text, 0o600))
}

// traffic is devices that register one after the other until it is stopped.
type traffic struct {
	t          *testing.T
	registered chan *chip
	quit       chan struct{}
	group      sync.WaitGroup
	mu         sync.Mutex
	failed     error
}

func (r *running) traffic(from int) *traffic {
	f := &traffic{t: r.t, registered: make(chan *chip), quit: make(chan struct{})}
	f.group.Go(func() {
		for number := from; ; number++ {
			c := r.device(number)
			if err := c.whole(); err != nil {
				f.fail(fmt.Errorf("device %d: %w", number, err))
				return
			}
			select {
			case f.registered <- c:
			case <-f.quit:
				return
			}
		}
	})
	return f
}

// whole is a device's life: enrolled, registered, a message sent.
func (c *chip) whole() error {
	if err := c.enroll(); err != nil {
		return err
	}
	if err := c.register(); err != nil {
		return err
	}
	return c.send("hello")
}

func (f *traffic) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = err
}

// some waits until n more devices have begun and ended.
func (f *traffic) some(n int) (devices []*chip) {
	f.t.Helper()
	limit := time.After(patience)
	for range n {
		select {
		case c := <-f.registered:
			devices = append(devices, c)
		case <-limit:
			f.mu.Lock()
			defer f.mu.Unlock()
			f.t.Fatalf("no device registered: %v", f.failed)
		}
	}
	return devices
}

func (f *traffic) stop() {
	f.t.Helper()
	close(f.quit)
	f.group.Wait()
	if f.failed != nil {
		f.t.Fatal(f.failed)
	}
}

// The operator's order — add, SIGHUP, rotate, SIGHUP, rotate again — while devices register all the time.
func TestTheMasterKeyIsRotatedUnderTheRunningService(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	cfg, err := h.load(nil)
	must(t, err)
	f := r.traffic(0)
	early := f.some(2)

	ring, err := keyring.Open(cfg.MasterKey) // the operator's process
	must(t, err)
	_, err = ring.Add(time.Now())
	must(t, err)
	r.reloaded()
	early = append(early, f.some(2)...)

	id, err := ring.Rotate()
	must(t, err)
	resealed, err := Reseal(t.Context(), cfg, ring)
	must(t, err)
	if counts, err := CountSealed(t.Context(), cfg); err != nil || counts[id] < resealed || resealed < 3+2*4 {
		t.Fatalf("%d sealed again; counts %v, error %v", resealed, counts, err)
	}
	between := f.some(2) // the service seals under the old key until it is told
	r.reloaded()
	late := f.some(2)
	f.stop()
	_, err = Reseal(t.Context(), cfg, ring)
	must(t, err)
	if again, err := Reseal(t.Context(), cfg, ring); err != nil || again != 0 {
		t.Errorf("a further run sealed %d values again, error %v", again, err)
	}
	if counts, err := CountSealed(t.Context(), cfg); err != nil || counts["k1"] != 0 || len(counts) != 1 {
		t.Errorf("the old key still seals: %v, error %v", counts, err)
	}
	r.stop()

	dropKey(t, h, "k1")
	everythingIsReadable(t, h.run(t), slices.Concat(early, between, late))
}

// everythingIsReadable: hub keys, challenge keys and identities of devices that registered before.
func everythingIsReadable(t *testing.T, r *running, devices []*chip) {
	t.Helper()
	for _, before := range devices {
		c := before.moved(r)
		must(t, c.send("with the hub key from before"))
		must(t, c.poll())
		if string(c.hubKey) != string(before.hubKey) {
			t.Error("the hub key changed")
		}
		must(t, c.register())
		if string(c.hubKey) != string(before.hubKey) {
			t.Error("the hub key changed for the same owner")
		}
	}
}

// Without the first SIGHUP the service cannot read what was sealed anew; it must say so and go on, and be well after it.
func TestAServiceThatMissedTheNewKeyRecovers(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	cfg, err := h.load(nil)
	must(t, err)
	c := r.device(0)
	must(t, c.whole())
	ring, err := keyring.Open(cfg.MasterKey)
	must(t, err)
	_, err = ring.Add(time.Now())
	must(t, err)
	_, err = ring.Rotate()
	must(t, err)
	_, err = Reseal(t.Context(), cfg, ring)
	must(t, err)
	if c.poll() == nil || c.send("x") == nil {
		t.Error("the old key still opens: the test proves nothing")
	}
	r.reloaded()
	must(t, c.poll())
	must(t, c.send("well again"))
}
