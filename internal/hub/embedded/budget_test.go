package embedded

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestADeviceThatAsksForItsTwinWithoutEndIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := listening(t, twinAnswers, nil)
		ask := func(n int) (refused int) {
			for i := range n {
				r.send(publish(0x30, fmt.Sprintf("$iothub/twin/PATCH/properties/reported/?$rid=%d", i), 0, `{"a":1}`))
				if _, topic, _, _ := r.receive(); strings.HasPrefix(topic, "$iothub/twin/res/429/?$rid=") {
					refused++
				}
			}
			return refused
		}
		if refused := ask(3 * budgetBurst); refused != 2*budgetBurst+1 { // the SUBSCRIBE was one
			t.Errorf("%d refused", refused)
		}
		time.Sleep(time.Second)
		if refused := ask(budgetSecond + 5); refused != 5 {
			t.Errorf("%d refused a second later", refused)
		}
		if n := metric(t, w.metrics.twinRequests.WithLabelValues("429")); n != 2*budgetBurst+6 {
			t.Errorf("%v counted", n)
		}
	})
}

func TestADeviceThatSubscribesWithoutEndIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := oneDevice(t, nil)
		for range budgetBurst / 2 {
			r.subscribe(twinAnswers)
			r.subscribe(twinAnswers) // nothing new, which costs nothing
			r.send(packet(0xa2, []byte{0, 5}, text(twinAnswers)))
			r.expect(0xb0, 2, 0, 5)
		}
		r.send(subscribe(7, twinAnswers))
		r.expectClosed()
		w.settled()
		if w.endings(causeFlood) != 1 {
			t.Errorf("log:\n%s", w.logs)
		}
	})
}

// What a SUBSCRIBE makes the hub read counts as what it makes it write: a session with the clean flag has no reads for nothing.
func TestSubscribingAnewMakesTheStoreDoNoMoreThanTheBudgetAllows(t *testing.T) {
	const messages = "devices/dev/messages/devicebound/#"
	for name, anew := range map[string][][]byte{
		"desired properties":    {packet(0xa2, []byte{0, 5}, text(desiredChanges)), subscribe(7, desiredChanges)},
		"messages":              {subscribe(7, messages)},
		"something else beside": {subscribe(7, methodCalls)},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			key := newKey()
			w.ensure("dev", key, 1)
			h := w.greet("dev", key)
			h.flags = 2 // clean
			r := w.login(h, 0)
			r.subscribe(desiredChanges, messages)
			rounds := 0
			for err := error(nil); err == nil && rounds <= 2*budgetBurst; rounds++ {
				for _, p := range anew {
					if _, err = r.Write(p); err == nil {
						answer := 5 // bytes of a SUBACK
						if p[0] == 0xa2 {
							answer = 4
						}
						_, err = io.ReadFull(r.r, make([]byte, answer))
					}
				}
			}
			if rounds > budgetBurst+1 || rounds < budgetBurst/2-1 {
				t.Errorf("%s: %d rounds", name, rounds)
			}
			w.shut()
			if w.endings(causeFlood) != 1 {
				t.Errorf("%s: log:\n%s", name, w.logs)
			}
		})
	}
}

// A client may subscribe once more to what it listens to already. What it is yet to be told it is told all the same.
func TestSubscribingOnceMoreLosesNoChangeOfDesiredProperties(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := listening(t, desiredChanges, nil)
		c := w.connection(deviceKey(testHub, "dev"))
		busy := func(is bool) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.sending = is
		}
		busy(true) // whoever sends the device what is new has not come to it yet
		w.changeTwin(desired(`{"a":1}`))
		r.subscribe(desiredChanges)
		busy(false)
		w.wake(c, newTwin)
		r.expectTold("$iothub/twin/PATCH/properties/desired/?$version=2", `{"$version":2,"a":1}`)
	})
}
