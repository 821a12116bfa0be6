package embedded

import (
	"fmt"
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
