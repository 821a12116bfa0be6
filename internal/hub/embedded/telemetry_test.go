package embedded

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const emptyTwin = `{"desired":{"$version":1},"reported":{"$version":1}}`

const devTopic = "devices/dev/messages/events/"

// device makes a world with one device that has logged in.
func oneDevice(t *testing.T, change func(*Config)) (*world, *raw, []byte) {
	t.Helper()
	w := newWorld(t, change)
	key := newKey()
	w.ensure("dev", key, 1)
	return w, w.login(w.greet("dev", key), 0), key
}

func TestTelemetryIsWrittenAsItCame(t *testing.T) {
	for name, c := range map[string]struct {
		topic, payload string
		want           map[string]any
	}{
		"JSON":                  {devTopic, `{"t":21.50,"u":"<°C>"}`, map[string]any{"body": map[string]any{"t": 21.5, "u": "<°C>"}}},
		"JSON on several lines": {devTopic, "{\r\n\"t\":\n[1]}\n", map[string]any{"body": map[string]any{"t": []any{1.0}}}},
		"a bare number":         {devTopic, `7`, map[string]any{"body": 7.0}},
		"text":                  {devTopic, "hello", map[string]any{"bodyBase64": base64.StdEncoding.EncodeToString([]byte("hello"))}},
		"bytes":                 {devTopic, "\x00\xff", map[string]any{"bodyBase64": "AP8="}},
		"JSON but not UTF-8":    {devTopic, "\"\xff\"", map[string]any{"bodyBase64": "Iv8i"}},
		"nothing":               {devTopic, "", map[string]any{"bodyBase64": ""}},
		"no slash at the end":   {"devices/dev/messages/events", "1", map[string]any{"body": 1.0}},
		"properties": {devTopic + "alert=a%26b&p%2Bq=%2B&empty=&bare&%24.mid=m1&%24.cid=c&$.ct=application%2Fjson&%24.ce=utf-8&%24.new=x/", "1", map[string]any{
			"body":             1.0,
			"properties":       map[string]any{"alert": "a&b", "p+q": "+", "empty": "", "bare": ""},
			"systemProperties": map[string]any{"messageId": "m1", "correlationId": "c", "contentType": "application/json", "contentEncoding": "utf-8", "$.new": "x"},
		}},
		"question mark before properties": {devTopic + "?a=1&a=2", "1", map[string]any{"body": 1.0, "properties": map[string]any{"a": "2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			moment := time.Date(2026, 11, 24, 6, 0, 0, 123e6, time.UTC)
			w, r, _ := oneDevice(t, func(c *Config) { c.Now = func() time.Time { return moment } })
			r.send(publish(0x32, c.topic, 7, c.payload))
			r.expect(0x40, 2, 0, 7)
			want := map[string]any{
				"time": "2026-11-24T06:00:00.123Z", "scope": testScope, "hub": testHub, "deviceId": "dev",
				"properties": map[string]any{}, "systemProperties": map[string]any{},
			}
			for k, v := range c.want {
				want[k] = v
			}
			got := w.sink.records(t)
			if id, _ := got[0]["id"].(string); len(id) != 26 {
				t.Errorf("id %q", id)
			}
			delete(got[0], "id")
			if diff := cmp.Diff([]map[string]any{want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestQoS0AndTheRetainFlagAreTakenButNothingIsRetained(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	r.send(publish(0x31, devTopic, 0, "1"), publish(0x33, devTopic, 5, "2"))
	r.expect(0x40, 2, 0, 5)
	records := w.sink.records(t)
	if len(records) != 2 {
		t.Fatalf("%d records", len(records))
	}
	for _, r := range records {
		if diff := cmp.Diff(map[string]any{"mqtt-retain": "true"}, r["properties"]); diff != "" {
			t.Error(diff)
		}
	}
	if n := len(w.server.Topics.Messages(devTopic)); n != 0 {
		t.Errorf("%d messages retained", n)
	}
	_ = key
}

func TestAMessageIsAcknowledgedOnlyWhenItsRecordIsWritten(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	w.sink.fail = func() error { return errors.New("no space left on device") }
	r.send(publish(0x32, devTopic, 9, `{"n":1}`))
	r.expectClosed() // and no PUBACK before
	if n := metric(t, w.metrics.sinkErrors); n != 1 {
		t.Errorf("%v failures counted", n)
	}

	w.sink.mu.Lock()
	w.sink.fail = nil
	w.sink.mu.Unlock()
	again := w.login(w.greet("dev", key), 1)
	again.send(publish(0x3a, devTopic, 9, `{"n":1}`)) // the same packet, DUP set
	again.expect(0x40, 2, 0, 9)
	if n := len(w.sink.records(t)); n != 1 {
		t.Errorf("%d records", n)
	}
}

func TestTheRecordIsThereBeforeTheAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := oneDevice(t, nil)
		writing, goOn := make(chan struct{}), make(chan struct{})
		w.sink.fail = func() error { close(writing); <-goOn; return nil }
		r.send(publish(0x32, devTopic, 9, `1`))
		<-writing
		r.SetReadDeadline(time.Now().Add(time.Second))
		if b, err := r.r.ReadByte(); err == nil {
			t.Fatalf("read %#x while the record was being written", b)
		}
		r.SetReadDeadline(time.Now().Add(patience))
		close(goOn)
		r.expect(0x40, 2, 0, 9)
	})
}

func TestADeviceThatOverstepsIsCutOff(t *testing.T) {
	long := strings.Repeat("a", maxTopic)
	for name, c := range map[string]struct {
		packet []byte
		why    cause
	}{
		"topic of another device":        {publish(0x30, "devices/other/messages/events/", 0, "1"), causeTopic},
		"topic that begins like it":      {publish(0x32, "devices/dev/messages/eventsx", 1, "1"), causeTopic},
		"id in another case":             {publish(0x32, "devices/DEV/messages/events/", 1, "1"), causeTopic},
		"its own commands":               {publish(0x32, "devices/dev/messages/devicebound/", 1, "1"), causeTopic},
		"free topic":                     {publish(0x30, "home/lamp", 0, "on"), causeTopic},
		"system topic":                   {publish(0x30, "$SYS/broker/uptime", 0, "1"), causeTopic},
		"method answer without a status": {publish(0x30, "$iothub/methods/res/ok/?$rid=1", 0, "{}"), causeMethod},
		"status beyond 32 bits":          {publish(0x30, "$iothub/methods/res/4294967296/?$rid=1", 0, "{}"), causeMethod},
		"method answer to nothing":       {publish(0x30, "$iothub/methods/res/200/", 0, "{}"), causeMethod},
		"method answer too large":        {publish(0x30, "$iothub/methods/res/200/?$rid=1", 0, `"`+strings.Repeat("x", 128<<10)+`"`), causeMethod},
		"a method of its own":            {publish(0x30, "$iothub/methods/POST/reboot/?$rid=1", 0, "{}"), causeTopic},
		"desired properties of its own":  {publish(0x30, "$iothub/twin/PATCH/properties/desired/?$rid=1", 0, "{}"), causeTopic},
		"answers to itself":              {publish(0x30, "$iothub/twin/res/200/?$rid=1", 0, "{}"), causeTopic},
		"a twin below the twin":          {publish(0x30, "$iothub/twin/GET/other/?$rid=1", 0, " "), causeTopic},
		"wildcard":                       {publish(0x30, "devices/+/messages/events/", 0, "1"), causeTopic},
		"wildcard in its properties":     {publish(0x30, devTopic+"#", 0, "1"), causeMalformed},
		"no topic":                       {publish(0x30, "", 0, "1"), causeTopic},
		"topic too long":                 {publish(0x32, devTopic+long, 1, "1"), causeTooLarge},
		"broken escape":                  {publish(0x32, devTopic+"a=%2", 1, "1"), causeProps},
		"escape that is not UTF-8":       {publish(0x32, devTopic+"a=%ff", 1, "1"), causeProps},
		"property without a name":        {publish(0x32, devTopic+"=1", 1, "1"), causeProps},
		"too many properties":            {publish(0x32, devTopic+strings.Repeat("a&", 300)+"a", 1, "1"), causeProps},
		"QoS 2":                          {publish(0x34, devTopic, 1, "1"), causeQoS2},
		"QoS 3":                          {publish(0x36, devTopic, 1, "1"), causeMalformed},
		"PUBREL":                         {packet(0x62, []byte{0, 1}), causeMalformed},
		"twin request without an id":     {publish(0x30, "$iothub/twin/GET/?rid=1", 0, " "), causeTwin},
		"twin request with a path as id": {publish(0x30, "$iothub/twin/GET/?$rid=1/2", 0, " "), causeTwin},
		"twin request with a long id":    {publish(0x30, "$iothub/twin/GET/?$rid="+long[:129], 0, " "), causeTwin},
		"CONNECT again":                  {packet(0x10, text("MQTT"), []byte{4, 2, 0, 60}, text("dev")), causeMalformed},
		"AUTH of MQTT 5":                 {packet(0xf0, []byte{0, 2, 0x15, 0}), causeMalformed},
		"packet type 0":                  {packet(0x00), causeMalformed},
		"PINGREQ with a body":            {packet(0xc0, []byte("x")), causeMalformed},
		"PUBACK too short":               {packet(0x40, []byte{1}), causeMalformed},
		"SUBSCRIBE with wrong flags":     {packet(0x80, []byte{0, 1, 0, 1, 'a', 0}), causeMalformed},
		"SUBSCRIBE for nothing":          {packet(0x82, []byte{0, 1}), causeMalformed},
		"SUBSCRIBE too long":             {subscribe(1, strings.Repeat("a", maxSubscribe)), causeTooLarge},
		"endless length":                 {[]byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x80}, causeMalformed},
		"PUBLISH of a gigabyte":          {[]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, causeTooLarge},
		"PUBLISH cut short":              {packet(0x32, []byte{0, 9, 'd'}), causeMalformed},
		"QoS 1 without packet id":        {publish(0x32, devTopic, 0, "1"), causeMalformed},
		"topic not UTF-8":                {publish(0x30, devTopic+"\xff", 0, "1"), causeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			w, r, _ := oneDevice(t, nil)
			r.send(publish(0x32, devTopic, 3, "0")) // what went before counts
			r.expect(0x40, 2, 0, 3)
			go r.Write(c.packet) // the hub need not take all of it
			r.expectClosed()
			w.settled()
			if w.endings(c.why) != 1 {
				t.Errorf("not counted as %s; log:\n%s", c.why, w.logs)
			}
			if n := len(w.sink.records(t)); n != 1 {
				t.Errorf("%d records", n)
			}
		})
	}
}

func TestWhatWasSentInOneBreathBeforeABadPacketIsServed(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	go r.Write(append(publish(0x32, devTopic, 1, "1"), publish(0x34, devTopic, 2, "2")...)) // the pipe takes no more once it is closed
	r.expect(0x40, 2, 0, 1)
	r.expectClosed()
	w.settled()
	if n := len(w.sink.records(t)); n != 1 || w.endings(causeQoS2) != 1 {
		t.Errorf("%d records", n)
	}
}

func TestTheLargestMessageIsTakenAndOneByteMoreIsNot(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	payload := strings.Repeat("x", 256<<10)
	r.send(publish(0x32, devTopic, 1, payload))
	r.expect(0x40, 2, 0, 1)
	if got := w.sink.records(t)[0]["bodyBase64"]; got != base64.StdEncoding.EncodeToString([]byte(payload)) {
		t.Errorf("the record holds another payload")
	}
	r.send(publish(0x32, devTopic, 2, payload+"x"))
	r.expectClosed()
	w.login(w.greet("dev", key), 1)
}

func TestADeviceSubscribesToItsOwnFourFiltersOnly(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	r.send(subscribe(1, "devices/dev/messages/devicebound/#", "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#"))
	r.expect(0x90, 6, 0, 1, 1, 1, 1, 1)
	foreign := []string{
		"#", "+/+/messages/devicebound/#", "devices/#", "devices/+/messages/devicebound/#", "devices/other/messages/devicebound/#",
		"devices/DEV/messages/devicebound/#", "devices/dev/messages/events/#", "$iothub/#", "$SYS/#", "$share/g/devices/dev/messages/devicebound/#",
	}
	for i, filter := range foreign {
		r.send(subscribe(uint16(2+i), filter))
		r.expect(0x90, 3, 0, byte(2+i), 0x80)
	}
	if n := metric(t, w.metrics.refusedFilters); int(n) != len(foreign) {
		t.Errorf("%v filters counted", n)
	}
	if n := strings.Count(w.logs.String(), "refused a topic filter"); n != 1 {
		t.Errorf("%d lines about it", n)
	}
	r.send(publish(0x32, devTopic, 77, "1"))
	r.expect(0x40, 2, 0, 77) // and nothing is sent to those who subscribed
}

func TestOneDeviceHearsNothingOfAnother(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	otherKey := newKey()
	w.ensure("other", otherKey, 1)
	other := w.login(w.greet("other", otherKey), 0)
	for _, x := range []*raw{r, other} {
		x.send(subscribe(1, twinAnswers))
		x.expect(0x90, 3, 0, 1, 1)
	}
	r.send(publish(0x30, "$iothub/twin/GET/?$rid=1", 0, " "))
	r.expect(publish(0x30, "$iothub/twin/res/200/?$rid=1", 0, emptyTwin)...)
	other.send(packet(0xc0))
	other.expect(0xd0, 0)
}

func TestAWillBecomesTelemetry(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	h := w.greet("dev", key)
	h.flags, h.will = 0x04|0x20|0x08, [2]string{devTopic + "a=1", "gone"}
	w.login(h, 0).Close()
	w.settled()
	records := w.sink.records(t)
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	want := map[string]any{"a": "1", "iothub-MessageType": "Will", "mqtt-retain": "true"}
	if diff := cmp.Diff(want, records[0]["properties"]); diff != "" {
		t.Error(diff)
	}
	if n := len(w.server.Topics.Messages("devices/#")); n != 0 {
		t.Errorf("%d messages retained", n)
	}

	r := w.login(h, 1)
	r.send(packet(0xe0))
	r.expectClosed()
	w.settled()
	if n := len(w.sink.records(t)); n != 1 {
		t.Error("a device that said good-bye left its will")
	}
}

func TestAWillForAnotherTopicIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	for name, c := range map[string]struct {
		topic string
		flags byte
	}{
		"another device": {"devices/other/messages/events/", 0x04},
		"twin":           {"$iothub/twin/GET/?$rid=1", 0x04},
		"bad properties": {devTopic + "a=%", 0x04},
		"QoS 2":          {devTopic, 0x04 | 0x10},
	} {
		t.Run(name, func(t *testing.T) {
			h := w.greet("dev", key)
			h.flags, h.will = c.flags, [2]string{c.topic, "x"}
			w.refusedWith(h, 5)
		})
	}
	w.settled()
	if n := w.endings(causeWill); n != 4 {
		t.Errorf("%d counted", n)
	}
}

func TestNoSecretIsLogged(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	good := w.greet("dev", key)
	bad := good
	bad.password = token(t, newKey(), testHub+"/devices/dev", time.Now().Add(time.Hour))
	w.refusedWith(bad, 5)
	garbled := good
	garbled.password = "canary-password"
	w.refusedWith(garbled, 5)
	r.send(publish(0x32, devTopic+"p=canary-property", 1, "canary-payload"))
	r.expect(0x40, 2, 0, 1)
	r.send(publish(0x32, "devices/x", 2, "canary-foreign"))
	r.expectClosed()
	w.settled()
	logs := w.logs.String()
	_, sig, _ := strings.Cut(good.password, "&sig=")
	sig, _, _ = strings.Cut(sig, "&")
	for _, canary := range []string{"canary", sig, "SharedAccessSignature", base64.StdEncoding.EncodeToString(key), hex.EncodeToString(key)} {
		if strings.Contains(logs, canary) {
			t.Errorf("%q is in the log:\n%s", canary, logs)
		}
	}
	mustContain(t, logs, `"msg":"telemetry","scope":"0ne00000001","hub":"hub.latchkey.test","device":"dev","bytes":14`)
	mustContain(t, logs, `"cause":"foreign-topic"`)
	mustContain(t, logs, `"msg":"hub: refused","cause":"credentials"`)
}
