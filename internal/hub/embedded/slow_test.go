package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Devices that are connected, listen to everything and read nothing, while all that a hub can send them is sent: what that costs has a bound for each,
// which does not depend on how much is sent, and after the time for one write it is over. A pipe holds nothing, so that the first byte waits already.
func TestDevicesThatReadNothingCostSoMuchAndNoMore(t *testing.T) {
	const devices = 16
	// A direct method's call holds its payload, ten of them wait; the sender of messages has read a batch of them; an answer and a change of the twin wait.
	const most = 10*(34<<10) + batch*(64<<10) + 3*(64<<10)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		key := newKey()
		for i := range devices {
			id := fmt.Sprintf("dev-%d", i)
			w.ensure(id, key, 1)
			r := w.login(w.greet(id, key), 0)
			r.subscribe(twinAnswers, desiredChanges, methodCalls, devicebound(id)+"#")
			r.SetDeadline(time.Time{})
			r.send(publish(0x30, "$iothub/twin/GET/?$rid=1", 0, " "))
		}
		synctest.Wait()
		before := footprint()
		push := pusher{w: w, body: []byte(strings.Repeat("m", 60<<10)), payload: json.RawMessage(`"` + strings.Repeat("p", 16<<10) + `"`)}
		push.round(t, devices)
		first := footprint()
		push.round(t, devices)
		push.round(t, devices)
		last := footprint()
		if each := (first - before) / devices; each > most || first < before {
			t.Errorf("%d bytes each, want at most %d", each, most)
		}
		if last > first+devices*(96<<10) { // the twin has grown meanwhile
			t.Errorf("%d bytes after the first round, %d after two more", first, last)
		}
		time.Sleep(w.config.Limits.WriteDeadline + time.Second)
		w.settled()
		push.calls.Wait()
		if n := w.endings(causeStalled); n != devices {
			t.Errorf("%d of %d devices were cut", n, devices)
		}
		if after := footprint(); after > before+devices*(96<<10) {
			t.Errorf("%d bytes before, %d when they are gone", before, after)
		}
		for i := range devices { // nothing that was to be kept is lost
			if n, err := w.store.CountMessages(t.Context(), testScope, testHub, fmt.Sprintf("dev-%d", i)); n != 50 || err != nil {
				t.Errorf("%d messages wait, %v", n, err)
			}
		}
		if push.full == 0 || push.busy.n == 0 {
			t.Error("nothing was refused: the rounds were too small")
		}
	})
}

// pusher sends devices all that it can.
type pusher struct {
	w       *world
	body    []byte
	payload json.RawMessage
	rounds  int
	full    int
	calls   sync.WaitGroup
	busy    struct {
		sync.Mutex
		n int
	}
}

func (p *pusher) round(t *testing.T, devices int) {
	t.Helper()
	p.rounds++
	for i := range devices {
		id := fmt.Sprintf("dev-%d", i)
		for range 50 {
			err := p.w.SendMessage(t.Context(), testScope, registration.HubMessage{Hub: testHub, DeviceID: id, Body: p.body})
			if errors.Is(err, registration.ErrFull) {
				p.full++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		wish := fmt.Sprintf(`{"round":%d,"a":%q,"b":%q,"c":%q,"d":%q}`, p.rounds, string(p.body[:4000]), string(p.body[:4000]), string(p.body[:4000]), string(p.body[:4000]))
		if _, err := p.w.ChangeTwin(t.Context(), testScope, testHub, id, registration.TwinChange{Desired: json.RawMessage(wish)}); err != nil {
			t.Fatal(err)
		}
		for range 12 {
			p.calls.Go(func() {
				_, _, err := p.w.InvokeMethod(p.w.base, testScope, testHub, id, "m", p.payload, 0, time.Minute)
				if errors.Is(err, registration.ErrBusy) {
					p.busy.Lock()
					p.busy.n++
					p.busy.Unlock()
				}
			})
		}
	}
	synctest.Wait()
}
