// Package farhub is hubs over the network, for tests: they keep devices in memory, can be down, unlinked or unwilling, and hold whoever calls them to
// his side of registration.Hub.
//
// Such a hub is as forgetful as an IoT Hub: with a device that is removed the generation is gone that it was removed by, so that a call that comes
// late makes it again.
package farhub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"latchkey.example/latchkey/internal/registration"
)

// ErrDown is what hubs say that are down.
var ErrDown = errors.New("the hub does not answer")

// Device is a device as a hub has it.
type Device struct {
	Credential registration.Credential
	Generation uint64
	Disabled   bool
	Data       registration.DeviceData
	Made       int // how often it was made
}

// Hubs are the hubs of one scope.
type Hubs struct {
	// Judge is told what a caller did wrong.
	Judge func(format string, args ...any)
	// Local are the hubs, by name, whose devices are found elsewhere: at the embedded hub. It is asked after each call that made a device.
	Local func(deviceID string) (hubs []string)

	mu   sync.Mutex
	hubs map[string]*hub
}

type hub struct {
	trouble error // nil: it is well
	devices map[string]*Device
}

// New makes hubs of these names.
func New(names ...string) *Hubs {
	h := &Hubs{hubs: map[string]*hub{}}
	for _, name := range names {
		h.hubs[name] = &hub{devices: map[string]*Device{}}
	}
	return h
}

// Add adds a hub.
func (h *Hubs) Add(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hubs[name] = &hub{devices: map[string]*Device{}}
}

// Has says whether a name is one of the hubs'.
func (h *Hubs) Has(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hubs[name] != nil
}

// Trouble makes every call of a hub fail with an error, before it has any effect; nil: no more.
func (h *Hubs) Trouble(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hubs[name].trouble = err
}

// At gives a device as a hub has it.
func (h *Hubs) At(name, deviceID string) (Device, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.hubs[name].devices[deviceID]
	if d == nil {
		return Device{}, false
	}
	return *d, true
}

// Change changes a device behind everybody's back, as an application does.
func (h *Hubs) Change(name, deviceID string, change func(d *Device)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h.hubs[name].devices[deviceID])
}

// Forget removes a device behind everybody's back.
func (h *Hubs) Forget(name, deviceID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.hubs[name].devices, deviceID)
}

// Where lists the hubs that have a device, the local ones too. Those that are unlinked are out of everybody's reach, and do not count.
func (h *Hubs) Where(deviceID string) (names []string) {
	if h.Local != nil {
		names = h.Local(deviceID)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, hub := range h.hubs {
		if hub.devices[deviceID] != nil && !errors.Is(hub.trouble, registration.ErrUnlinked) {
			names = append(names, name)
		}
	}
	return names
}

// call does what one call does, under the lock.
func (h *Hubs) call(ctx context.Context, name string, do func(hub *hub) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	hub := h.hubs[name]
	switch {
	case hub == nil:
		return fmt.Errorf("hub %s: %w", name, registration.ErrUnlinked)
	case hub.trouble != nil:
		return hub.trouble
	}
	return do(hub)
}

// EnsureDevice is that of registration.Hub.
func (h *Hubs) EnsureDevice(ctx context.Context, scope, name string, d registration.HubDevice) error {
	err := h.call(ctx, name, func(hub *hub) error {
		known := hub.devices[d.DeviceID]
		fresh := known == nil
		if fresh {
			known = &Device{Made: 1}
		}
		switch {
		case d.Generation == 0 || !d.Credential.Valid():
			h.judge("hub %s: generation %d and a credential of %d bytes", name, d.Generation, len(d.Credential.Primary))
		case d.Generation < known.Generation:
			return registration.ErrStale
		case d.Generation == known.Generation && !known.Credential.Equal(d.Credential):
			h.judge("hub %s: generation %d of %s came with two credentials", name, d.Generation, d.DeviceID)
		}
		if d.Data != nil && (fresh || d.Data.Replace && d.Generation > known.Generation) {
			known.Data = compact(*d.Data)
		}
		known.Credential, known.Generation, known.Disabled = d.Credential, d.Generation, false
		hub.devices[d.DeviceID] = known
		return nil
	})
	if at := h.Where(d.DeviceID); len(at) > 1 {
		h.judge("device %s is at %v", d.DeviceID, at)
	}
	return err
}

// RemoveDevice is that of registration.Mover.
func (h *Hubs) RemoveDevice(ctx context.Context, scope, name, deviceID string, generation uint64) error {
	return h.fenced(ctx, name, deviceID, generation, func(hub *hub, _ *Device) { delete(hub.devices, deviceID) })
}

// DisableDevice is that of registration.Mover.
func (h *Hubs) DisableDevice(ctx context.Context, scope, name, deviceID string, generation uint64) error {
	return h.fenced(ctx, name, deviceID, generation, func(_ *hub, d *Device) { d.Disabled, d.Generation = true, generation })
}

func (h *Hubs) fenced(ctx context.Context, name, deviceID string, generation uint64, do func(hub *hub, d *Device)) error {
	return h.call(ctx, name, func(hub *hub) error {
		known := hub.devices[deviceID]
		switch {
		case generation == 0:
			h.judge("hub %s: a call for %s without a generation", name, deviceID)
		case known == nil:
			return nil
		case generation < known.Generation:
			return registration.ErrStale
		}
		do(hub, known)
		return nil
	})
}

// DeviceData is that of registration.Mover.
func (h *Hubs) DeviceData(ctx context.Context, scope, name, deviceID string) (data registration.DeviceData, err error) {
	err = h.call(ctx, name, func(hub *hub) error {
		known := hub.devices[deviceID]
		if known == nil {
			return registration.ErrNotFound
		}
		data = known.Data
		return nil
	})
	return data, err
}

// Drop is that of registration.Hub.
func (h *Hubs) Drop(context.Context, string, string) error { return nil }

// Reach is that of registration.Hub.
func (h *Hubs) Reach(string, string) registration.Reach { return registration.Remote }

func (h *Hubs) judge(format string, args ...any) {
	if h.Judge != nil {
		h.Judge(format, args...)
	}
}

// compact is the data as a hub gives it back: without white space, and what is empty is an empty object.
func compact(d registration.DeviceData) registration.DeviceData {
	short := func(part json.RawMessage) json.RawMessage {
		var b bytes.Buffer
		if len(part) == 0 || json.Compact(&b, part) != nil {
			return json.RawMessage("{}")
		}
		return b.Bytes()
	}
	return registration.DeviceData{Tags: short(d.Tags), Desired: short(d.Desired), Reported: short(d.Reported), IoTEdge: d.IoTEdge}
}
