package sdk

import (
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

// TestNodeSDKWorksAtItsHubDayByDay: all that the vendor's device SDK does over MQTT, against what an application does with the device. The SDK itself
// says that it cannot reject and abandon messages over MQTT, nor send a batch.
func TestNodeSDKWorksAtItsHubDayByDay(t *testing.T) {
	for _, transport := range []string{"mqtt", "ws"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			service := rig.New(t, rig.Config{})
			n := newNode(t, service)
			tpm := simtpm.NewSwtpmTCP(t).Spec()
			identity := runJSON[struct{ RegistrationID, EndorsementKey string }](t, n, "identity.js", tpm)
			n.run(t, "service.js", "enroll", identity.RegistrationID, identity.EndorsementKey)
			saw := runJSON[map[string]any](t, n, "daily.js", tpm, service.Host, service.IDScope, transport)
			if diff := cmp.Diff(day, saw); diff != "" {
				t.Error(diff)
			}
			messages, err := service.Telemetry()
			if err != nil || len(messages) != 1 || string(messages[0].Body) != `{"t":21}` || messages[0].Properties["made by"] != "node & sdk" || messages[0].SystemProperties["messageId"] != "e1" {
				t.Errorf("telemetry %+v, %v", messages, err)
			}
		})
	}
}

type object = map[string]any

// day is what daily.js must see.
var day = object{
	"deviceId":      "press-07",
	"firstVersions": []any{1.0, 1.0},
	"refusedReport": "Error",
	"firstDelta":    object{"$version": 2.0, "interval": 5.0, "limits": object{"high": 9.0}},
	"secondDelta":   object{"$version": 3.0, "limits": object{"high": nil, "low": 1.0}},
	"desired":       object{"$version": 3.0, "interval": 5.0, "limits": object{"low": 1.0}},
	"service":       object{"reported": object{"version": "1.0"}, "tags": object{"floor": 3.0}, "state": "Connected"},
	"message": object{"id": "m1", "correlation": "about m1", "to": "/devices/press-07/messages/devicebound", "ack": "full", "data": `{"do":1}`,
		"kind": "a & b", "expires": true},
	"settled":      object{"complete": "MessageCompleted", "reject": "NotImplementedError", "abandon": "NotImplementedError"},
	"method":       object{"status": 202.0, "payload": object{"after": 7.0}},
	"afterRenewal": "m2",
	"sent":         "MessageEnqueued",
	"batch":        "NotImplementedError",
}

// TestNodeSDKComesBackWhenItsHubWasStartedAnew: the SDK connects by itself, and counts on its session: it does not subscribe to twins again.
func TestNodeSDKComesBackWhenItsHubWasStartedAnew(t *testing.T) {
	t.Parallel()
	service := rig.New(t, rig.Config{Listen: rig.Addresses{HTTPS: freeAddress(t), MQTT: freeAddress(t)}})
	n := newNode(t, service)
	tpm := simtpm.NewSwtpmTCP(t).Spec()
	identity := runJSON[struct{ RegistrationID, EndorsementKey string }](t, n, "identity.js", tpm)
	n.run(t, "service.js", "enroll", identity.RegistrationID, identity.EndorsementKey)
	type end struct {
		result rig.Result
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		result, err := n.try(t, "comeback.js", tpm, service.Host, service.IDScope)
		ended <- end{result, err}
	}()
	for listening := false; !listening; time.Sleep(20 * time.Millisecond) {
		select {
		case e := <-ended:
			t.Fatalf("it ended too early: %v\n%s", e.err, e.result.Stderr)
		default:
		}
		messages, err := service.Telemetry()
		listening = err == nil && len(messages) > 0
	}
	for _, step := range []func() error{service.Kill, service.Run} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	e := <-ended
	if want := `{"received":"hello again","method":{"status":200,"payload":"pong"}}` + "\n"; e.err != nil || e.result.Stdout != want {
		t.Errorf("%v, %s, want %s\n%s", e.err, e.result.Stdout, want, e.result.Stderr)
	}
}

// freeAddress is a port of this machine that is free now, for a service that is started twice under it.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
