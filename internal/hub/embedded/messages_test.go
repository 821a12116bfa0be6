package embedded

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

const messageFilter = "devices/dev/messages/devicebound/#"

func (w *world) sendTo(deviceID, body string) {
	w.t.Helper()
	err := w.SendMessage(context.Background(), testScope, registration.HubMessage{Hub: testHub, DeviceID: deviceID, ID: body, Body: []byte(body)})
	if err != nil {
		w.t.Fatal(err)
	}
}

// expectMessage expects a message by its body, sent with QoS 1, and returns its packet id.
func (r *raw) expectMessage(again bool, body string) uint16 {
	r.t.Helper()
	head, topic, id, got := r.receive()
	want := byte(0x32)
	if again {
		want = 0x3a
	}
	if head != want || id == 0 || got != body || !strings.HasPrefix(topic, "devices/dev/messages/devicebound/%24.mid="+body+"&") {
		r.t.Fatalf("got %#x %s %d %q, want %#x %q", head, topic, id, got, want, body)
	}
	return id
}

func (r *raw) puback(id uint16) { r.send(packet(0x40, []byte{byte(id >> 8), byte(id)})) }

func (w *world) waiting(want int) {
	w.t.Helper()
	if n, err := w.config.Identities.CountMessages(context.Background(), testScope, testHub, "dev"); err != nil || n != want {
		w.t.Errorf("%d messages wait, want %d (%v)", n, want, err)
	}
}

func TestAMessageIsSentUntilItIsAcknowledged(t *testing.T) {
	w, r, key := listening(t, messageFilter, nil)
	w.sendTo("dev", "one")
	w.sendTo("dev", "two")
	one, two := r.expectMessage(false, "one"), r.expectMessage(false, "two")
	r.puback(two)
	r.expectNothing()
	w.waiting(1)
	r.puback(two) // again, and for what was never sent
	r.puback(999)
	again := w.login(w.greet("dev", key), 1) // the SAS token is renewed on a live connection
	r.expectClosed()
	if id := again.expectMessage(true, "one"); id != one {
		t.Errorf("packet id %d, was %d", id, one)
	}
	w.sendTo("dev", "three")
	three := again.expectMessage(false, "three")
	again.puback(one)
	again.puback(three)
	again.expectNothing()
	w.waiting(0)
	if n := metric(t, w.metrics.messagesTo.WithLabelValues("completed")); n != 3 {
		t.Errorf("%v completed", n)
	}
}

func TestMessagesWaitForADeviceThatIsAway(t *testing.T) {
	w, r, key := listening(t, messageFilter, nil)
	r.Close()
	w.settled()
	for i := range 3 {
		w.sendTo("dev", fmt.Sprint("m", i))
	}
	again := w.login(w.greet("dev", key), 1)
	for i := range 3 {
		again.puback(again.expectMessage(false, fmt.Sprint("m", i)))
	}
	again.expectNothing()
	w.waiting(0)
}

func TestADeviceThatDoesNotListenIsSentNothing(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	w.sendTo("dev", "one")
	r.expectNothing()
	r.send(subscribe(1, messageFilter))
	r.expect(0x90, 3, 0, 1, 1) // first the SUBACK
	r.puback(r.expectMessage(false, "one"))
	r.send(packet(0xa2, []byte{0, 5}, text(messageFilter)))
	r.expect(0xb0, 2, 0, 5)
	w.sendTo("dev", "two")
	r.expectNothing()
	w.waiting(1)
	r.subscribe(messageFilter)
	r.puback(r.expectMessage(false, "two"))
}

func TestACleanSessionStartsAnewWithWhatWaits(t *testing.T) {
	w, r, key := listening(t, messageFilter, nil)
	w.sendTo("dev", "one")
	r.expectMessage(false, "one")
	h := w.greet("dev", key)
	h.flags = 2
	clean := w.login(h, 0)
	clean.expectNothing()
	clean.subscribe(messageFilter)
	clean.puback(clean.expectMessage(false, "one"))
	clean.expectNothing()
	w.waiting(0)
}

func TestWithQoS0SentIsDone(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	r.send(packet(0x82, []byte{0, 1}, text(messageFilter), []byte{0}))
	r.expect(0x90, 3, 0, 1, 0)
	w.sendTo("dev", "one")
	if head, _, _, body := r.receive(); head != 0x30 || body != "one" {
		t.Errorf("%#x %q", head, body)
	}
	soon(t, "the message to be removed", func() bool {
		n, _ := w.config.Identities.CountMessages(t.Context(), testScope, testHub, "dev")
		return n == 0
	})
	r.send(packet(0x82, []byte{0, 2}, text(messageFilter), []byte{2})) // QoS 2 is granted as 1
	r.expect(0x90, 3, 0, 2, 1)
	w.sendTo("dev", "two")
	r.expectMessage(false, "two")
	w.waiting(1)
}

// The window is full of messages that the device does not acknowledge; the others wait, and come in order as it does.
func TestOnlySoManyMessagesAreUnderWay(t *testing.T) {
	w, r, _ := listening(t, messageFilter, nil)
	for i := range iothub.MaxWaitingMessages {
		w.sendTo("dev", fmt.Sprint("m", i))
	}
	err := w.SendMessage(t.Context(), testScope, registration.HubMessage{Hub: testHub, DeviceID: "dev"})
	if !errors.Is(err, registration.ErrFull) {
		t.Errorf("one more: %v", err)
	}
	var ids []uint16
	for i := range window {
		ids = append(ids, r.expectMessage(false, fmt.Sprint("m", i)))
	}
	r.expectNothing()
	for i := window; i < iothub.MaxWaitingMessages; i++ {
		r.puback(ids[i-window])
		ids = append(ids, r.expectMessage(false, fmt.Sprint("m", i)))
	}
	for _, id := range ids[len(ids)-window:] {
		r.puback(id)
	}
	r.expectNothing()
	w.waiting(0)
}

func TestAMessageThatIsNeverAcknowledgedIsGivenUp(t *testing.T) {
	w, r, key := listening(t, messageFilter, nil)
	w.sendTo("dev", "poison")
	w.sendTo("dev", "next")
	for i := range iothub.MaxDeliveries {
		r.expectMessage(i > 0, "poison")
		next := r.expectMessage(i > 0, "next")
		if i == 3 {
			r.puback(next)
			w.sendTo("dev", "next")
			r.expectMessage(false, "next")
		}
		r = w.login(w.greet("dev", key), 1)
	}
	r.puback(r.expectMessage(true, "next")) // sent for the eighth time
	r.expectNothing()
	w.waiting(0)
	if n := metric(t, w.metrics.messagesTo.WithLabelValues("dead-lettered")); n != 1 {
		t.Errorf("%v given up", n)
	}
	mustContain(t, w.logs.String(), `"how":"dead-lettered","seq":1,"messageId":"poison"`)
}

func TestMessagesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, key := listening(t, messageFilter, nil)
		r.SetDeadline(time.Time{})
		w.sendTo("dev", "underway")
		r.expectMessage(false, "underway")
		r.Close()
		w.settled()
		short := registration.HubMessage{Hub: testHub, DeviceID: "dev", ID: "short", Ack: "negative", Expires: time.Now().Add(time.Minute)}
		if err := w.SendMessage(t.Context(), testScope, short); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute + time.Second)
		late := w.login(w.greet("dev", key), 1)
		late.expectMessage(true, "underway")
		late.expectNothing() // what has expired is not sent, whether it was removed already or not
		late.Close()
		w.settled()
		time.Sleep(time.Hour)
		w.waiting(0)
		again := w.login(w.greet("dev", key), 1)
		again.SetDeadline(time.Time{})
		again.expectNothing()
		if n := metric(t, w.metrics.messagesTo.WithLabelValues("expired")); n != 2 {
			t.Errorf("%v expired", n)
		}
		mustContain(t, w.logs.String(), `"how":"expired","seq":2,"messageId":"short","ack":"negative"`)
	})
}

func TestAMessageGoesOutAsTheImitatedHubSendsIt(t *testing.T) {
	moment := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	w, r, _ := listening(t, messageFilter, func(c *Config) { c.Now = func() time.Time { return moment } })
	properties := iothub.MessageProperties{ContentType: "application/json", ContentEncoding: "utf-8", Application: map[string]string{"a b": "c&d=é", "z": ""}}
	m := registration.HubMessage{Hub: strings.ToUpper(testHub), DeviceID: "dev", ID: "m/1", CorrelationID: "c 1", UserID: "me", Ack: "full",
		Properties: properties.Encode(), Body: []byte("\x00\xff"), Expires: moment.Add(90 * time.Minute)}
	if err := w.SendMessage(t.Context(), testScope, m); err != nil {
		t.Fatal(err)
	}
	_, topic, _, body := r.receive()
	want := "devices/dev/messages/devicebound/%24.mid=m%2F1&%24.cid=c%201&%24.uid=me&%24.to=%2Fdevices%2Fdev%2Fmessages%2Fdevicebound" +
		"&%24.exp=2026-11-24T13%3A30%3A00Z&iothub-ack=full&%24.ct=application%2Fjson&%24.ce=utf-8&a%20b=c%26d%3D%C3%A9&z="
	if topic != want || body != "\x00\xff" {
		t.Errorf("%s %q, want %s", topic, body, want)
	}
	if err := w.SendMessage(t.Context(), testScope, registration.HubMessage{Hub: testHub, DeviceID: "dev"}); err != nil {
		t.Fatal(err)
	}
	if _, topic, _, _ := r.receive(); topic != "devices/dev/messages/devicebound/%24.to=%2Fdevices%2Fdev%2Fmessages%2Fdevicebound&%24.exp=2026-11-24T13%3A00%3A00Z" {
		t.Errorf("a message without anything: %s", topic)
	}
}

func TestAMessageThatNoDeviceCouldBeSentIsRefused(t *testing.T) {
	w, r, _ := listening(t, messageFilter, nil)
	for name, change := range map[string]func(*registration.HubMessage){
		"body too large":             func(m *registration.HubMessage) { m.Body = make([]byte, iothub.MaxMessage+1) },
		"properties too large":       func(m *registration.HubMessage) { m.Properties = []byte(strings.Repeat("a", 17<<10)) },
		"a wildcard as a property":   func(m *registration.HubMessage) { m.Properties = []byte("a=#") },
		"a broken escape":            func(m *registration.HubMessage) { m.Properties = []byte("a=%f") },
		"a property not UTF-8":       func(m *registration.HubMessage) { m.Properties = []byte("a=%ff") },
		"an id too long":             func(m *registration.HubMessage) { m.ID = strings.Repeat("a", 129) },
		"another kind of feedback":   func(m *registration.HubMessage) { m.Ack = "all" },
		"expired":                    func(m *registration.HubMessage) { m.Expires = time.Now().Add(-time.Second) },
		"an expiry beyond two days":  func(m *registration.HubMessage) { m.Expires = time.Now().Add(49 * time.Hour) },
		"a correlation id not UTF-8": func(m *registration.HubMessage) { m.CorrelationID = "\xff" },
	} {
		m := registration.HubMessage{Hub: testHub, DeviceID: "dev"}
		change(&m)
		var refused *iothub.MessageError
		if err := w.SendMessage(t.Context(), testScope, m); !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.SendMessage(t.Context(), testScope, registration.HubMessage{Hub: testHub, DeviceID: "nobody"}); !errors.Is(err, registration.ErrNotFound) {
		t.Errorf("to a device that there is not: %v", err)
	}
	r.expectNothing()
	w.waiting(0)
}

func TestAQueueIsPurged(t *testing.T) {
	w, r, key := listening(t, messageFilter, nil)
	w.sendTo("dev", "underway")
	r.expectMessage(false, "underway")
	r.Close()
	w.settled()
	for i := range 9 {
		w.sendTo("dev", fmt.Sprint("m", i))
	}
	if n, err := w.PurgeMessages(t.Context(), testScope, testHub, "dev"); n != 10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := w.PurgeMessages(t.Context(), testScope, testHub, "nobody"); !errors.Is(err, registration.ErrNotFound) {
		t.Error(err)
	}
	w.login(w.greet("dev", key), 1).expectNothing()
}

// What was for the previous owner never reaches the new one, whatever state it was in; and a certificate or key that stays keeps the queue.
func TestWhatWaitsForADeviceIsGoneWithItsOwner(t *testing.T) {
	w, r, key := listening(t, messageFilter, nil)
	w.sendTo("dev", "underway")
	r.expectMessage(false, "underway")
	w.sendTo("dev", "waits")
	w.ensure("dev", key, 2) // the same owner has proved itself again
	w.waiting(2)
	newKey := newKey()
	w.ensure("dev", newKey, 3)
	w.waiting(0)
	r.expectClosed()
	fresh := w.login(w.greet("dev", newKey), 0)
	fresh.subscribe(messageFilter)
	w.sendTo("dev", "for the new owner")
	fresh.expectNothingBut("for the new owner")
}

func (r *raw) expectNothingBut(body string) {
	r.t.Helper()
	if _, _, _, got := r.receive(); got != body {
		r.t.Fatalf("got %q", got)
	}
	r.expectNothing()
}

func TestAMessageThatCannotBeRemovedComesAgain(t *testing.T) {
	w, r, key := listening(t, messageFilter, nil)
	w.sendTo("dev", "one")
	id := r.expectMessage(false, "one")
	w.store.set(func() { w.store.failPut = errors.New("no store") })
	r.puback(id)
	r.expectClosed()
	w.store.set(func() { w.store.failPut = nil })
	again := w.login(w.greet("dev", key), 1)
	again.puback(again.expectMessage(true, "one"))
	again.expectNothing()
	w.waiting(0)
}

func TestADeviceWhoseMessagesCannotBeReadIsCutOff(t *testing.T) {
	w, r, _ := listening(t, messageFilter, nil)
	w.store.set(func() { w.store.failRead = errors.New("no store") })
	w.wakeDevice(deviceKey(testHub, "dev"), newMessages)
	r.expectClosed()
	w.settled()
	if w.endings(causeUnavailable) != 1 {
		t.Errorf("log:\n%s", w.logs)
	}
}

func TestADeviceHearsOfWhatAnotherNodeHasForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t)
		owner, _ := s.hub(t, "alpha", true)
		node, _ := s.hub(t, "beta", false)
		key := newKey()
		owner.ensure("dev", key, 1)
		r := owner.login(owner.greet("dev", key), 0)
		r.subscribe(desiredChanges, messageFilter, methodCalls)
		start := time.Now()
		node.changeTwin(desired(`{"a":1}`))
		r.expectTold("$iothub/twin/PATCH/properties/desired/?$version=2", `{"$version":2,"a":1}`)
		if took := time.Since(start); took > newsEvery {
			t.Errorf("it took %v", took)
		}
		start = time.Now()
		node.sendTo("dev", "one")
		r.puback(r.expectMessage(false, "one"))
		if took := time.Since(start); took > newsEvery {
			t.Errorf("it took %v", took)
		}
		if _, _, err := node.InvokeMethod(t.Context(), testScope, testHub, "dev", "m", nil, 0, time.Second); !errors.Is(err, registration.ErrElsewhere) {
			t.Errorf("a method by way of the other node: %v", err)
		}
		time.Sleep(2 * newsEvery) // the row of the message may still be there
		owner.changeTwin(desired(`{"b":1}`))
		r.expectTold("$iothub/twin/PATCH/properties/desired/?$version=3", `{"$version":3,"b":1}`)
		s.store.set(func() {
			if len(s.store.news) != 0 {
				t.Errorf("rows for this node itself: %v", s.store.news)
			}
		})
	})
}

// devicebound is the topic of messages to a device, without their properties.
func devicebound(deviceID string) string { return "devices/" + deviceID + "/messages/devicebound/" }
