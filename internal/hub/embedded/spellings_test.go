package embedded

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// spelling is how a device SDK speaks to its hub, as read in its sources: MqttTransportHandler.cs of C#, iothubtransport_mqtt_common.c of C,
// mqtt_topic_iothub.py of Python, Mqtt.java, MqttTwin.java and MqttMessaging.java of Java, mqtt_twin_client.ts of Node, az_iot_hub_client of embedded C.
type spelling struct {
	id         string
	user       string // after hub name and device id
	resource   string // of the SAS token
	keepAlive  uint16
	flags      byte
	qos        byte // of its requests and subscriptions
	inbox      string
	events     string
	properties map[string]any
	system     map[string]any
	rid        string
	get        string // what follows the path
	report     string
	reportRest string // of the answer's topic
}

func spellings() map[string]spelling {
	const uuid = "0b3d1d6c-6f3a-4d1b-9a3c-0e5a0f3a2c11"
	return map[string]spelling{
		"C": {id: "dev", user: "/?api-version=2020-09-30&DeviceClientType=iothubclient%2F1.13.0", resource: testHub + "/devices/dev", keepAlive: 240,
			inbox: "devices/dev/messages/devicebound/#", events: "devices/dev/messages/events/property_key=property value&%24.mid=1&%24.cid=2&%24.ct=application%2fjson&%24.ce=utf-8",
			properties: map[string]any{"property_key": "property value"},
			system:     map[string]any{"messageId": "1", "correlationId": "2", "contentType": "application/json", "contentEncoding": "utf-8"},
			rid:        "7", get: "?$rid=7", report: "?$rid=8", reportRest: "8&$version=2"},
		"C#": {id: "dev:1", user: "/?api-version=2021-04-12&DeviceClientType=.NET%2F2.0.0%20%28.NET%206%29&auth-chain=dev%3A1", resource: testHub + "%2Fdevices%2Fdev%253A1", keepAlive: 300,
			qos: 1, inbox: "devices/dev:1/messages/devicebound/#", events: "devices/dev:1/messages/events/%24.mid=a%20b&%24.ct=text%2Fplain&na%26me=v%3D1/",
			properties: map[string]any{"na&me": "v=1"}, system: map[string]any{"messageId": "a b", "contentType": "text/plain"},
			rid: uuid, get: "?$rid=" + uuid, report: "?$rid=" + uuid, reportRest: uuid + "&$version=2"},
		"Java": {id: "dev", user: "/?api-version=2020-09-30&DeviceClientType=com.microsoft.azure.sdk.iot.iot-device-client%2F2.5.0", resource: testHub + "%2Fdevices%2Fdev", keepAlive: 230,
			qos: 1, inbox: "devices/dev/messages/devicebound/#", events: "devices/dev/messages/events/%24.mid=m&%24.ctime=2026-11-24T12%3A00%3A00.000Z&%24.ce=UTF-8&a%20b=c%20d",
			properties: map[string]any{"a b": "c d"}, system: map[string]any{"messageId": "m", "creationTimeUtc": "2026-11-24T12:00:00.000Z", "contentEncoding": "UTF-8"},
			rid: uuid, get: "?$rid=" + uuid, report: "?$rid=" + uuid + "&$version=0", reportRest: uuid + "&$version=2"},
		"Python": {id: "dev:1(x)", user: "/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.12.0", resource: testHub + "%2Fdevices%2Fdev%3A1%28x%29", keepAlive: 60,
			qos: 1, inbox: "devices/dev%3A1%28x%29/messages/devicebound/#", events: "devices/dev%3A1%28x%29/messages/events/%24.mid=m&%24.exp=2026-11-24T12%3A00%3A00&k=v%2Fw",
			properties: map[string]any{"k": "v/w"}, system: map[string]any{"messageId": "m", "expiryTimeUtc": "2026-11-24T12:00:00"},
			rid: uuid, get: "?$rid=" + uuid, report: "?$rid=" + uuid, reportRest: uuid + "&$version=2"},
		"Node": {id: "dev", user: "/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4", resource: testHub + "%2Fdevices%2Fdev", keepAlive: 180,
			inbox: "devices/dev/messages/devicebound/#", events: "devices/dev/messages/events/%24.mid=m&made-by=node%20%26%20sdk",
			properties: map[string]any{"made-by": "node & sdk"}, system: map[string]any{"messageId": "m"},
			rid: uuid, get: "?$rid=" + uuid, report: "?$rid=" + uuid, reportRest: uuid + "&$version=2"},
		"embedded C": {id: "dev", user: "/?api-version=2020-09-30&DeviceClientType=azsdk-c%2F1.5.0", resource: testHub + "%2Fdevices%2Fdev", keepAlive: 400, flags: 2,
			inbox: "devices/dev/messages/devicebound/#", events: "devices/dev/messages/events/",
			properties: map[string]any{}, system: map[string]any{},
			rid: "get_twin", get: "?$rid=get_twin", report: "?$rid=reported_prop", reportRest: "reported_prop&$version=2"},
	}
}

// TestEveryDeviceSDKIsUnderstood: the same day in the words of each SDK.
func TestEveryDeviceSDKIsUnderstood(t *testing.T) {
	for name, s := range spellings() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			key := newKey()
			w.ensure(s.id, key, 1)
			password := signed(key, s.resource, time.Now().Add(time.Hour))
			r := w.login(hello{clientID: s.id, user: testHub + "/" + s.id + s.user, password: password, keepAlive: s.keepAlive, flags: s.flags}, 0)
			for i, filter := range []string{s.inbox, twinAnswers, desiredChanges, methodCalls} {
				r.send(packet(0x82, []byte{0, byte(i + 1)}, text(filter), []byte{s.qos}))
				r.expect(0x90, 3, 0, byte(i+1), s.qos)
			}

			r.send(publish(0x32, s.events, 21, `{}`))
			r.expect(0x40, 2, 0, 21)
			record := w.sink.records(t)[0]
			if diff := cmp.Diff([]any{s.id, s.properties, s.system}, []any{record["deviceId"], record["properties"], record["systemProperties"]}); diff != "" {
				t.Error(diff)
			}

			r.request(s.qos, "$iothub/twin/GET/"+s.get, " ")
			r.expectTold("$iothub/twin/res/200/?$rid="+s.rid, emptyTwin)
			r.acknowledged(s.qos)
			r.request(s.qos, "$iothub/twin/PATCH/properties/reported/"+s.report, `{"a":1}`)
			r.expectTold("$iothub/twin/res/204/?$rid="+s.reportRest, "")
			r.acknowledged(s.qos)
			if _, err := w.ChangeTwin(t.Context(), testScope, testHub, s.id, desired(`{"d":1}`)); err != nil {
				t.Fatal(err)
			}
			r.expectTold("$iothub/twin/PATCH/properties/desired/?$version=2", `{"$version":2,"d":1}`)

			w.sendTo(s.id, "hello")
			_, topic, id, body := r.receive()
			prefix, _ := strings.CutSuffix(s.inbox, "#")
			if !strings.HasPrefix(topic, prefix+"%24.mid=hello&%24.to=") || body != "hello" || (id != 0) != (s.qos == 1) {
				t.Errorf("message %d on %s: %s", id, topic, body)
			}
			if id != 0 {
				r.puback(id)
			}

			done := make(chan outcome, 1)
			go func() {
				status, answer, err := w.InvokeMethod(t.Context(), testScope, testHub, s.id, "m", nil, 0, patience)
				done <- outcome{status, string(answer), err}
			}()
			rid := r.expectCall("m", "")
			r.request(s.qos, "$iothub/methods/res/200/?$rid="+rid, `{"ok":true}`)
			wantOutcome(t, <-done, outcome{200, `{"ok":true}`, nil})
			r.acknowledged(s.qos)
		})
	}
}

func (r *raw) request(qos byte, topic, payload string) {
	r.send(publish(0x30|qos<<1, topic, 33, payload))
}

func (r *raw) acknowledged(qos byte) {
	r.t.Helper()
	if qos == 1 {
		r.expect(0x40, 2, 0, 33)
	}
}

func TestADeviceIdHasTwoSpellingsAndNoOther(t *testing.T) {
	for topic, want := range map[string]bool{
		"devices/a:b/messages/events/": true, "devices/a%3Ab/messages/events/x=1": true, "devices/a%3ab/messages/events/": false, "devices/%61:b/messages/events/": false,
		"devices/a%253Ab/messages/events/": false, "devices/a%3Ab%2Fmessages/events/": false, "devices/a:bc/messages/events/": false, "devices/a%3A/messages/events/": false,
	} {
		if isEvents(topic, "a:b") != want {
			t.Errorf("%s: %v", topic, !want)
		}
	}
	if isEvents("devices/a:b/messages/events/", "a%3Ab") || !isEvents("devices/a%3Ab/messages/events/", "a%3Ab") {
		t.Error("a device whose id looks like another's encoded is taken for it, or not for itself")
	}
}
