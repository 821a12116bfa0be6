package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

const twinFilters = twinAnswers + "\x00" + desiredChanges

// listening is a device that has logged in and listens to the filters, which zero bytes part.
func listening(t *testing.T, filters string, change func(*Config)) (*world, *raw, []byte) {
	t.Helper()
	w, r, key := oneDevice(t, change)
	r.subscribe(strings.Split(filters, "\x00")...)
	return w, r, key
}

// subscribe subscribes with QoS 1 and expects that to be granted.
func (r *raw) subscribe(filters ...string) {
	r.t.Helper()
	r.send(subscribe(99, filters...))
	r.expect(append([]byte{0x90, byte(2 + len(filters)), 0, 99}, []byte(strings.Repeat("\x01", len(filters)))...)...)
}

// receive reads one PUBLISH: its first byte, topic, packet id (0 for QoS 0) and payload.
func (r *raw) receive() (head byte, topic string, id uint16, payload string) {
	r.t.Helper()
	head, err := r.r.ReadByte()
	if err != nil {
		r.t.Fatal(err)
	}
	length := 0
	for shift := 0; ; shift += 7 {
		b, err := r.r.ReadByte()
		if err != nil {
			r.t.Fatal(err)
		}
		if length |= int(b&0x7f) << shift; b < 0x80 {
			break
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r.r, body); err != nil || head>>4 != typePublish {
		r.t.Fatalf("read %#x % x, %v", head, body, err)
	}
	n := int(body[0])<<8 | int(body[1])
	topic, body = string(body[2:2+n]), body[2+n:]
	if head&6 != 0 {
		id, body = uint16(body[0])<<8|uint16(body[1]), body[2:]
	}
	return head, topic, id, string(body)
}

// expectTold expects a PUBLISH of QoS 0.
func (r *raw) expectTold(topic, payload string) {
	r.t.Helper()
	if head, gotTopic, _, got := r.receive(); head != 0x30 || gotTopic != topic || got != payload {
		r.t.Fatalf("got %#x %s %s, want %s %s", head, gotTopic, got, topic, payload)
	}
}

// expectNothing shows that the hub has nothing for the device before its answer to a ping.
func (r *raw) expectNothing() {
	r.t.Helper()
	r.send(packet(0xc0))
	r.expect(0xd0, 0)
}

func (w *world) changeTwin(change registration.TwinChange) registration.Twin {
	w.t.Helper()
	t, err := w.ChangeTwin(context.Background(), testScope, testHub, "dev", change)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func desired(patch string) registration.TwinChange {
	return registration.TwinChange{Desired: json.RawMessage(patch)}
}

func TestADeviceReadsAndReportsItsTwin(t *testing.T) {
	w, r, key := listening(t, twinFilters, nil)
	r.send(publish(0x30, "$iothub/twin/GET/?$rid=1", 0, " "))
	r.expectTold("$iothub/twin/res/200/?$rid=1", emptyTwin)
	r.send(publish(0x30, "$iothub/twin/PATCH/properties/reported/?$rid=2", 0, `{"fw":{"v":"1.0","old":true},"n":1}`))
	r.expectTold("$iothub/twin/res/204/?$rid=2&$version=2", "")
	r.send(publish(0x32, "$iothub/twin/PATCH/properties/reported/?$rid=ab-3", 5, `{"fw":{"old":null}}`))
	r.expectTold("$iothub/twin/res/204/?$rid=ab-3&$version=3", "")
	r.expect(0x40, 2, 0, 5)
	w.changeTwin(registration.TwinChange{Tags: json.RawMessage(`{"secret":"not for the device"}`), Desired: json.RawMessage(`{"interval":5}`)})
	r.expectTold("$iothub/twin/PATCH/properties/desired/?$version=2", `{"$version":2,"interval":5}`)

	again := w.login(w.greet("dev", key), 1)
	again.send(publish(0x30, "$iothub/twin/GET/?$rid=4", 0, ""))
	again.expectTold("$iothub/twin/res/200/?$rid=4", `{"desired":{"$version":2,"interval":5},"reported":{"$version":3,"fw":{"v":"1.0"},"n":1}}`)
	known, err := w.KnownTwin(t.Context(), testScope, testHub, "dev")
	if err != nil || string(known.Reported) != `{"fw":{"v":"1.0"},"n":1}` || known.ReportedVersion != 3 || known.Version != 4 || string(known.Tags) != `{"secret":"not for the device"}` {
		t.Errorf("%+v, %v", known, err)
	}
}

func TestAReportThatIsNoneIsRefusedAndChangesNothing(t *testing.T) {
	w, r, _ := listening(t, twinFilters, nil)
	r.send(publish(0x30, "$iothub/twin/PATCH/properties/reported/?$rid=0", 0, `{"kept":1}`))
	r.expectTold("$iothub/twin/res/204/?$rid=0&$version=2", "")
	deep := strings.Repeat(`{"a":`, 12) + "1" + strings.Repeat("}", 12)
	for payload, sentence := range map[string]string{
		``: "it is not JSON", ` `: "it is not JSON", `[1]`: "not a JSON object", `null`: "not a JSON object", `"x"`: "not a JSON object", `{"a":1`: "not JSON", "{\"a\":\"\xff\"}": "UTF-8",
		`{"a":1,"a":2}`: "twice", deep: "deeper than 10 levels", `{"n":99999999999999999999}`: "an integer", `{"n":1e999}`: "64-bit float", `{"a.b":1}`: "character",
		`{"s":"` + strings.Repeat("x", 4097) + `"}`: "more than 4096 bytes", `{"a":[` + strings.Repeat(`"xxxxxxxxxx",`, 3300) + `1]}`: "more than it may",
	} {
		r.send(publish(0x30, "$iothub/twin/PATCH/properties/reported/?$rid=9", 0, payload))
		_, topic, _, body := r.receive()
		var refusal struct {
			ErrorCode int
			Message   string
		}
		if err := json.Unmarshal([]byte(body), &refusal); err != nil || topic != "$iothub/twin/res/400/?$rid=9" || refusal.ErrorCode != 400004 || !strings.Contains(refusal.Message, sentence) {
			t.Errorf("%.60q: %s %s", payload, topic, body)
		}
	}
	if known, err := w.KnownTwin(t.Context(), testScope, testHub, "dev"); err != nil || string(known.Reported) != `{"kept":1}` || known.ReportedVersion != 2 {
		t.Errorf("%+v, %v", known, err)
	}
}

func TestAReportMayNameTheVersionItIsFor(t *testing.T) {
	_, r, _ := listening(t, twinFilters, nil)
	for _, step := range []struct{ version, status string }{{"1", "204"}, {"1", "412"}, {"2", "204"}, {"*", "204"}, {"0", "204"}, {"-1", "204"}, {"x", "400"}} {
		r.send(publish(0x30, "$iothub/twin/PATCH/properties/reported/?$rid=7&$version="+step.version, 0, `{"a":1}`))
		if _, topic, _, _ := r.receive(); !strings.HasPrefix(topic, "$iothub/twin/res/"+step.status+"/?$rid=7") {
			t.Errorf("version %s: %s, want %s", step.version, topic, step.status)
		}
	}
}

func TestADeviceThatListensToNoAnswersReportsAllTheSame(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	r.send(publish(0x32, "$iothub/twin/PATCH/properties/reported/?$rid=1", 7, `{"a":1}`))
	r.expect(0x40, 2, 0, 7)
	if known, err := w.KnownTwin(t.Context(), testScope, testHub, "dev"); err != nil || string(known.Reported) != `{"a":1}` {
		t.Errorf("%+v, %v", known, err)
	}
}

func TestTroubleWithTheStoreIsAnAnswerToo(t *testing.T) {
	w, r, _ := listening(t, twinFilters, nil)
	w.store.set(func() { w.store.failRead = errors.New("no store") })
	r.send(publish(0x30, "$iothub/twin/GET/?$rid=1", 0, " "))
	r.expectTold("$iothub/twin/res/503/?$rid=1", `{"errorCode":503001,"message":"try again later"}`)
	w.store.set(func() { w.store.failRead, w.store.failPut = nil, errors.New("no store") })
	r.send(publish(0x30, "$iothub/twin/PATCH/properties/reported/?$rid=2", 0, `{"a":1}`))
	r.expectTold("$iothub/twin/res/503/?$rid=2", `{"errorCode":503001,"message":"try again later"}`)
	w.store.set(func() { w.store.failPut = nil; w.store.rows = map[string]registration.Identity{} }) // the device was removed, its session is about to be cut
	r.send(publish(0x30, "$iothub/twin/PATCH/properties/reported/?$rid=3", 0, `{"a":1}`))
	r.expectTold("$iothub/twin/res/404/?$rid=3", `{"errorCode":404001,"message":"the device is not known any more"}`)
}

func TestATwinThatOthersKeepChangingIsGivenUp(t *testing.T) {
	w, r, _ := listening(t, twinFilters, nil)
	foreign := 0
	w.store.beforeTwin = func() { // another process is always faster
		w.store.set(func() {
			k := rowKey(testScope, testHub, "dev")
			t := w.store.twins[k]
			t.Hub, t.DeviceID = testHub, "dev"
			t.Version++
			w.store.twins[k] = t
			foreign++
		})
	}
	r.send(publish(0x30, "$iothub/twin/PATCH/properties/reported/?$rid=1", 0, `{"a":1}`))
	r.expectTold("$iothub/twin/res/429/?$rid=1", `{"errorCode":429001,"message":"the twin is being changed by too many at a time"}`)
	if foreign != twinTries {
		t.Errorf("%d tries", foreign)
	}
}

func TestNoReportIsLostThoughServicesWriteAtTheSameTime(t *testing.T) {
	w, r, _ := listening(t, twinAnswers, nil)
	const writes = 40
	var services sync.WaitGroup
	for s := range 4 {
		services.Go(func() {
			for i := range writes {
				w.changeTwin(desired(fmt.Sprintf(`{"s%d":%d}`, s, i)))
			}
		})
	}
	for i := range writes {
		r.send(publish(0x30, fmt.Sprintf("$iothub/twin/PATCH/properties/reported/?$rid=%d", i), 0, fmt.Sprintf(`{"r%d":%d}`, i%10, i)))
		r.expectTold(fmt.Sprintf("$iothub/twin/res/204/?$rid=%d&$version=%d", i, i+2), "")
	}
	services.Wait()
	known, err := w.KnownTwin(t.Context(), testScope, testHub, "dev")
	if err != nil || known.DesiredVersion != 1+4*writes || known.ReportedVersion != 1+writes || string(known.Desired) != `{"s0":39,"s1":39,"s2":39,"s3":39}` {
		t.Errorf("%+v, %v", known, err)
	}
}

// A device may be told several changes at once, but what it has after each notification is what the twin was at that version, and versions rise.
func TestADeviceFollowsAllChangesInOrder(t *testing.T) {
	w, r, _ := listening(t, twinFilters, nil)
	const changes = 200
	history := map[uint64]string{}
	go func() {
		for i := range changes {
			change := desired(fmt.Sprintf(`{"n":%d,"k%d":{"x":%d},"k%d":null}`, i, i%7, i, (i+3)%7))
			change.Replace = i%50 == 49
			twin, err := w.ChangeTwin(context.Background(), testScope, testHub, "dev", change)
			if err != nil {
				t.Error(err)
				return
			}
			w.sink.mu.Lock()
			history[twin.DesiredVersion] = string(twin.Desired)
			w.sink.mu.Unlock()
		}
	}()
	device, last := iothub.Part{Version: 1}, uint64(1)
	for last < changes+1 {
		_, topic, _, body := r.receive()
		var told struct {
			Version uint64 `json:"$version"`
		}
		if err := json.Unmarshal([]byte(body), &told); err != nil || topic != fmt.Sprintf("$iothub/twin/PATCH/properties/desired/?$version=%d", told.Version) || told.Version <= last {
			t.Fatalf("%s %s after version %d", topic, body, last)
		}
		last = told.Version
		var err error
		if device, err = device.Patch(iothub.Desired, []byte(body), time.Now()); err != nil {
			t.Fatal(err)
		}
		soon(t, "the change to be noted", func() bool {
			w.sink.mu.Lock()
			defer w.sink.mu.Unlock()
			return history[last] != ""
		})
		w.sink.mu.Lock()
		want := history[last]
		w.sink.mu.Unlock()
		if string(device.Values) != want {
			t.Fatalf("the device has %s at version %d, the twin had %s", device.Values, last, want)
		}
	}
}

// soon polls for what another goroutine is about to do.
func soon(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestReplacedDesiredPropertiesAreToldWithWhatIsGone(t *testing.T) {
	w, r, _ := listening(t, twinFilters, nil)
	w.changeTwin(desired(`{"a":1,"b":{"c":2}}`))
	r.expectTold("$iothub/twin/PATCH/properties/desired/?$version=2", `{"$version":2,"a":1,"b":{"c":2}}`)
	w.changeTwin(registration.TwinChange{Desired: json.RawMessage(`{"b":{"d":3}}`), Replace: true})
	r.expectTold("$iothub/twin/PATCH/properties/desired/?$version=3", `{"$version":3,"a":null,"b":{"c":null,"d":3}}`)
	w.changeTwin(registration.TwinChange{Tags: json.RawMessage(`{"x":1}`)}) // not the device's business
	r.expectNothing()
}

func TestWhatADeviceMissedItFetches(t *testing.T) {
	w, r, key := listening(t, twinFilters, nil)
	r.Close()
	w.settled()
	w.changeTwin(desired(`{"a":1}`))
	again := w.login(w.greet("dev", key), 1)
	again.expectNothing()
	again.send(publish(0x30, "$iothub/twin/GET/?$rid=1", 0, " "))
	again.expectTold("$iothub/twin/res/200/?$rid=1", `{"desired":{"$version":2,"a":1},"reported":{"$version":1}}`)
	w.changeTwin(desired(`{"b":2}`))
	again.expectTold("$iothub/twin/PATCH/properties/desired/?$version=3", `{"$version":3,"b":2}`)
	again.send(packet(0xa2, []byte{0, 5}, text(desiredChanges)))
	again.expect(0xb0, 2, 0, 5)
	w.changeTwin(desired(`{"c":3}`))
	again.expectNothing()
}

func TestAChangeMayNameTheVersionThatWasRead(t *testing.T) {
	w, _, _ := oneDevice(t, nil)
	read, err := w.KnownTwin(t.Context(), testScope, testHub, "dev")
	if err != nil || read.Version != 1 {
		t.Fatalf("%+v, %v", read, err)
	}
	change := desired(`{"a":1}`)
	change.Was = read.Version
	if written := w.changeTwin(change); written.Version != 2 || written.DesiredVersion != 2 {
		t.Errorf("%+v", written)
	}
	if _, err := w.ChangeTwin(t.Context(), testScope, testHub, "dev", change); !errors.Is(err, registration.ErrChanged) {
		t.Errorf("with the version of before: %v", err)
	}
	var refused *iothub.TwinError
	if _, err := w.ChangeTwin(t.Context(), testScope, testHub, "dev", desired(`[]`)); !errors.As(err, &refused) {
		t.Errorf("no object: %v", err)
	}
	for _, call := range []func() error{
		func() error { _, err := w.KnownTwin(t.Context(), testScope, testHub, "nobody"); return err },
		func() error {
			_, err := w.ChangeTwin(t.Context(), testScope, testHub, "nobody", desired(`{"a":1}`))
			return err
		},
	} {
		if err := call(); !errors.Is(err, registration.ErrNotFound) {
			t.Errorf("of a device that there is not: %v", err)
		}
	}
}

// A device that reads nothing while its twin changes costs one write that waits, and is cut off when that has waited for too long.
func TestADeviceThatReadsNothingIsCutOffAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := listening(t, twinFilters+"\x00"+methodCalls+"\x00"+messageFilter, nil)
		start := time.Now()
		for i := range 1000 {
			w.changeTwin(desired(fmt.Sprintf(`{"n":%d}`, i)))
			if i < 20 {
				if err := w.SendMessage(t.Context(), testScope, registration.HubMessage{Hub: testHub, DeviceID: "dev", Body: []byte("x")}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 5 { // it goes on sending, which puts nothing off
			r.send(publish(0x30, devTopic, 0, "1"))
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("the changes took %v", took)
		}
		synctest.Wait()
		_, _, err := w.InvokeMethod(t.Context(), testScope, testHub, "dev", "m", nil, 0, 30*time.Second)
		if !errors.Is(err, registration.ErrOffline) {
			t.Errorf("a method meanwhile: %v", err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("cut off after %v", took)
		}
		w.settled()
		if w.endings(causeStalled) != 1 {
			t.Errorf("log:\n%s", w.logs)
		}
	})
}
