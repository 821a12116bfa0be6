package hubapi_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/hubapi"
	"latchkey.example/latchkey/internal/registration"
)

// unhurried is a hub that takes its time to read through the devices of one scope.
type unhurried struct {
	hubapi.Hub
	begun, release chan struct{}
}

func (s unhurried) CountDevices(ctx context.Context, of, hub string) (registration.DeviceCount, error) {
	if of == scope {
		select {
		case s.begun <- struct{}{}:
			<-s.release
		case <-ctx.Done(): // one too many was let in
			return registration.DeviceCount{}, ctx.Err()
		}
	}
	return s.Hub.CountDevices(ctx, of, hub)
}

// What reads through all devices holds a place at the gate that all tenants share, for seconds.
func TestOneScopesReadingThroughItsDevicesLeavesRoomForOthers(t *testing.T) {
	s := unhurried{begun: make(chan struct{}), release: make(chan struct{})}
	h := newHouseWith(t, func(hub hubapi.Hub) hubapi.Hub { s.Hub = hub; return s })
	mine := as(t, owner)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if a, err := h.try("GET", "/statistics/devices"+version, "", mine); err != nil || a.status != 200 {
				t.Errorf("status %d %s, %v", a.status, a.body, err)
			}
		})
		<-s.begun
	}
	for _, o := range []operation{{method: "GET", path: "/statistics/devices"}, {method: "GET", path: "/statistics/service"}, {method: "GET", path: "/devices"},
		{method: "POST", path: "/devices/query", body: `{"query":"SELECT * FROM devices"}`}} {
		if a := h.ask(o.method, o.path+version, o.body, mine); a.status != 429 || a.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %s", o.method, o.path, a.status, a.body)
		}
	}
	if a := h.ask("PUT", "/devices/d"+version, `{"deviceId":"d"}`, mine); a.status != 200 {
		t.Errorf("one device: %d %s", a.status, a.body)
	}
	others := token(t, key(otherScope, owner, "primary"), otherHost, owner, time.Now().Add(time.Hour))
	if a := h.ask("GET", "/statistics/devices"+version, "", others, "Host", otherHost); a.status != 200 {
		t.Errorf("another scope: %d %s", a.status, a.body)
	}
	close(s.release)
	all.Wait()
	go func() { <-s.begun }()
	if a := h.ask("GET", "/statistics/devices"+version, "", mine); a.status != 200 {
		t.Errorf("after them: %d %s", a.status, a.body)
	}
}
