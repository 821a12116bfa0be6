package brokers

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

// The life of a device at a broker that is not ours, in the order in which things happen to it.
func TestADeviceWithATPMWorksAtRabbitMQ(t *testing.T) {
	neighbour := newOther(t, "neighbour")
	tpm := simtpm.NewSwtpm(t)
	a := &agent{t, rig.Device{TPM: tpm.Spec(), StateDir: t.TempDir()}}
	id := a.enroll()
	if assigned := run[assignment](a, "register"); assigned.AssignedHub != brokerName || assigned.Status != "assigned" {
		t.Fatalf("the device was led to %+v", assigned)
	}
	login := run[hubLogin](a, "token")
	if !strings.HasPrefix(login.Username, brokerName+"/"+login.DeviceID+"/") {
		t.Fatalf("the user name is %q: not what device SDKs send", login.Username)
	}
	in := func(t *testing.T) *client {
		t.Helper()
		return mustConnect(t, login.Username, login.DeviceID, login.SASToken, false)
	}

	t.Run("sends and receives on its own topics", func(t *testing.T) {
		backend, device := application(t), in(t)
		must(t, done(device.Publish("devices/"+login.DeviceID+"/messages/events/unit=K&%24.ct=text", 1, false, "294.1")))
		backend.want("devices/"+login.DeviceID+"/messages/events/unit=K&%24/ct=text", "294.1") // RabbitMQ takes the dot for a slash
		if !device.maySubscribe("devices/" + login.DeviceID + "/messages/devicebound/#") {
			t.Fatal("the device may not subscribe to its own topic")
		}
		must(t, done(backend.Publish("devices/"+login.DeviceID+"/messages/devicebound/x", 1, false, "open")))
		device.want("devices/"+login.DeviceID+"/messages/devicebound/x", "open")
	})
	t.Run("reaches nobody else's", func(t *testing.T) {
		for _, topic := range []string{"devices/neighbour/messages/events/", "devices/" + login.DeviceID + "/messages/devicebound/x", "anything", "devices." + login.DeviceID + ".messages.devicebound.x"} {
			mayNotPublish(t, in(t), topic)
		}
		for _, filter := range []string{"#", "+/+/+/+/#", "devices/+/messages/devicebound/#", "devices/*/messages/devicebound/#", "devices/neighbour/messages/devicebound/#",
			"devices/" + login.DeviceID + "/#", "devices.neighbour.messages.devicebound.#"} {
			if in(t).maySubscribe(filter) {
				t.Errorf("the device may subscribe to %s", filter)
			}
		}
		wantRefused(t, "another device's token", login.Username, login.DeviceID, neighbour.token(t, time.Hour))
		wantRefused(t, "its token for another device", neighbour.id, neighbour.id, login.SASToken)
		wantRefused(t, "another client id", login.Username, "somebody-else", login.SASToken)
		wantRefused(t, "an expired token", neighbour.id, neighbour.id, neighbour.token(t, -time.Minute))
		wantRefused(t, "no token", login.Username, login.DeviceID, "")
	})

	short := mustConnect(t, neighbour.id, neighbour.id, neighbour.token(t, 5*time.Second), true) // it outlives the service that has let it in, not its token
	t.Run("is not let in while Latchkey is away", func(t *testing.T) {
		must(t, service.Stop())
		wantRefused(t, "nobody answers the broker", login.Username, login.DeviceID, login.SASToken)
		must(t, service.Run())
		in(t)
	})

	t.Run("is cut off when its owner changes, though it is idle and the management API was away", func(t *testing.T) {
		idle := in(t)
		if !idle.maySubscribe("devices/"+login.DeviceID+"/messages/devicebound/#") || !broker.queue(login.DeviceID) {
			t.Fatal("the device has no session that could be left behind")
		}
		must(t, simtpm.Clear(tpm))
		door.turn(true)
		result, err := service.Register(t.Context(), a.device, "--json", "--timeout", "1s")
		if err == nil {
			t.Fatalf("assigned, with the old owner's connection open: %s", result.Stdout)
		}
		idle.stillThere("nobody can end it")
		wantRefused(t, "the old owner's token", login.Username, login.DeviceID, login.SASToken)
		door.turn(false)
		if assigned := run[assignment](a, "register"); assigned.AssignedHub != brokerName || assigned.Status != "assigned" {
			t.Fatalf("the device is %+v", assigned)
		}
		idle.wantLost("the owner has changed")
		if broker.queue(login.DeviceID) {
			t.Error("what waited for the old owner waits for the new one")
		}
		wantRefused(t, "the old owner's token", login.Username, login.DeviceID, login.SASToken)
		login = run[hubLogin](a, "token")
		in(t)
	})

	t.Run("is cut off when it is disabled, though it is idle", func(t *testing.T) {
		idle := in(t)
		latchkey(t, "enroll", "set", id.RegistrationID, "--disable", "--hub-device", "disable")
		idle.wantLost("the device was disabled")
		wantRefused(t, "a disabled device", login.Username, login.DeviceID, login.SASToken)
		latchkey(t, "enroll", "set", id.RegistrationID, "--enable")
		run[assignment](a, "register")
		in(t).stillThere("it is enabled again, with the key that it had")
	})

	short.wantLost("its SAS token has expired")
	var left []struct{ Name string }
	must(t, broker.api(http.MethodGet, "/api/connections/username/neighbour", nil, &left))
	if len(left) > 0 {
		t.Errorf("the broker still has %v", left)
	}
	must(t, service.Stop())
	if said, err := rig.Run(t.Context(), rig.Command{Path: service.Programs().Service, Args: []string{"fsck", "--data", service.DataDir}}); err != nil {
		t.Errorf("fsck: %v: %s", err, said.Stdout)
	}
	must(t, service.Run())
}
