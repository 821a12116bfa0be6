package embedded

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"latchkey.example/latchkey/internal/registration"
)

// FuzzConnection feeds a connection with hostile bytes, before login or after it. The connection must end, no panic may be
// needed to end it, and the device can log in again.
func FuzzConnection(f *testing.F) {
	w := newWorld(f, func(c *Config) { c.Logger, c.Telemetry = nil, io.Discard })
	h, key := w.Hub, newKey()
	w.ensure("dev", key, 1)
	good := w.greet("dev", key)
	good.password = token(f, key, testHub+"/devices/dev", time.Now().Add(23*time.Hour))
	for _, b := range [][]byte{
		good.packet(), packet(0xc0), packet(0xe0), publish(0x32, devTopic+"a=b", 1, "{}"), publish(0x31, "devices/dev/messages/events", 0, ""),
		subscribe(1, twinAnswers, "#"), packet(0xa2, []byte{0, 1}, text(twinAnswers)), packet(0x40, []byte{0, 1}),
		publish(0x30, "$iothub/twin/GET/?$rid=1", 0, " "), publish(0x32, "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=1", 2, `{"a":{"b":null}}`),
		publish(0x30, "$iothub/methods/res/200/?$rid=1", 0, `{}`), slices.Concat(subscribe(1, messageFilter, twinAnswers, desiredChanges, methodCalls),
			packet(0x40, []byte{0, 1}), publish(0x30, "$iothub/twin/PATCH/properties/reported/?$rid=2", 0, `{"a":1,"a":2}`), packet(0x40, []byte{0, 2})), publish(0x34, devTopic, 1, ""), packet(0xf0, []byte{0, 2, 0x15, 0}),
		packet(0x10, text("MQTT"), []byte{5, 2, 0, 60, 0}, text("dev")), {0x10, 0xff, 0xff, 0xff, 0x7f}, {0x30, 0x80, 0x80, 0x80, 0x80},
	} {
		f.Add(false, b)
		f.Add(true, b)
	}
	f.Fuzz(func(t *testing.T, loggedIn bool, b []byte) {
		panics := metric(t, h.metrics.panics)
		message := registration.HubMessage{Hub: testHub, DeviceID: "dev", Body: b[:min(len(b), 100)]}
		if err := w.SendMessage(t.Context(), testScope, message); err != nil && !errors.Is(err, registration.ErrFull) {
			t.Fatal(err)
		}
		feed(h, t, loggedIn, good, b)
		h.waitIdle()
		if n := metric(t, h.metrics.panics); n != panics {
			t.Error("it took a panic to end the connection")
		}
		feed(h, t, true, good, packet(0xe0))
	})
}

// feed plays a device that logs in, if told so, sends b, and hangs up when the hub has read it all or hung up itself.
func feed(h *Hub, t *testing.T, loggedIn bool, good hello, b []byte) {
	ours, theirs := net.Pipe()
	ours.SetDeadline(time.Now().Add(patience))
	h.accept(theirs)
	if loggedIn {
		answer := make([]byte, 4)
		ours.Write(good.packet())
		if _, err := io.ReadFull(ours, answer); err != nil || answer[3] != 0 {
			t.Fatalf("login: % x, %v", answer, err)
		}
	}
	read := make(chan struct{})
	go func() { defer close(read); io.Copy(io.Discard, ours) }()
	ours.Write(b)
	ours.Close()
	<-read
}

// FuzzFrames compares the frame follower with the same follower fed byte by byte: how the bytes arrive must not matter.
func FuzzFrames(f *testing.F) {
	f.Add(append(publish(0x32, devTopic, 1, "1"), publish(0x34, devTopic, 1, "1")...), uint8(3))
	f.Add(append(packet(0xc0), 0x30, 0xff, 0xff, 0xff, 0xff), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		whole, pieces := frames{maxPublish: 1000}, frames{maxPublish: 1000}
		good := whole.check(b)
		for rest := b; len(rest) > 0 && pieces.broken == ""; {
			n := min(len(rest), int(step)+1)
			pieces.check(rest[:n])
			rest = rest[n:]
		}
		if whole.broken != pieces.broken {
			t.Errorf("in one: %q, in pieces of %d: %q", whole.broken, int(step)+1, pieces.broken)
		}
		again := frames{maxPublish: 1000}
		if again.check(b[:good]); again.broken != "" {
			t.Errorf("the good part holds a bad packet: %s", again.broken)
		}
	})
}

// FuzzProperties checks that whatever a topic says becomes a record, or is refused.
func FuzzProperties(f *testing.F) {
	f.Add("a=b&c=%26", []byte("{}"))
	f.Add("?%24.mid=1&%ff=1&=", []byte("\xff"))
	f.Add("0", []byte("1E1000")) // JSON, though no float64 holds it
	f.Fuzz(func(t *testing.T, bag string, payload []byte) {
		p, ok := eventProperties(devTopic+bag, "dev")
		if !ok {
			return
		}
		for _, m := range []map[string]string{p.application, p.system} {
			for k, v := range m {
				if !utf8.ValidString(k) || !utf8.ValidString(v) || k == "" {
					t.Errorf("%q=%q", k, v)
				}
			}
		}
		line, err := encodeRecord(&login{deviceID: "dev"}, p, event{payload: payload}, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
			t.Fatalf("not one line: %q", line)
		}
		in := json.NewDecoder(bytes.NewReader(line))
		in.UseNumber() // a payload's number may be beyond a float64
		var record map[string]any
		if err := in.Decode(&record); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Token(); err != io.EOF {
			t.Errorf("more than one object: %q", line)
		}
	})
}
