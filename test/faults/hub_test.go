package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
)

// atHub is how many devices go to work after a loop.
const atHub = 20

// mustWork has devices log in at their hub, after all that was done to it: with the key that they hold they are let in, with that of an owner before
// they are not.
func mustWork(t *testing.T, s *rig.Access, load *Load) {
	t.Helper()
	refused, let := 0, 0
	for _, d := range load.devices {
		last := d.last()
		if last == nil || !last.Assigned || let == atHub {
			continue
		}
		let++
		if err := login(s, last, last.Key); err != nil {
			t.Errorf("%s at its hub: %v", d.ID, err)
		}
		for _, old := range d.proofs {
			if !old.Assigned || bytes.Equal(old.Owner, last.Owner) {
				continue
			}
			refused++
			if err := login(s, last, old.Key); !errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) && !errors.Is(err, packets.ErrorRefusedNotAuthorised) {
				t.Errorf("%s at its hub with an old owner's key: %v", d.ID, err)
			}
			break
		}
	}
	if let < atHub || refused == 0 {
		t.Errorf("only %d devices were at their hub, %d with an old owner's key", let, refused)
	}
}

// login connects until the hub has let the key in or refused it: right after a kill the load balancer knows of no hub, or the hub of no owner.
func login(s *rig.Access, p *Proof, key []byte) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	_, waited := rig.Poll(ctx, func() (struct{}, bool, error) {
		err = connect(s, p, key)
		return struct{}{}, err == nil || errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) || errors.Is(err, packets.ErrorRefusedNotAuthorised), nil
	})
	if waited != nil {
		return errors.Join(waited, err)
	}
	return err
}

// connect connects once, as the vendor's SDKs do, with a token under a key.
func connect(s *rig.Access, p *Proof, key []byte) error {
	token, err := dps.NewToken(dps.KeySigner(key), p.Hub+"/devices/"+p.DeviceID, time.Now().Add(time.Hour), "")
	if err != nil {
		return err
	}
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + s.MQTT).SetTLSConfig(s.TLS()).SetProtocolVersion(4).
		SetClientID(p.DeviceID).SetUsername(p.Hub + "/" + p.DeviceID + "/?api-version=2021-04-12").SetPassword(token).
		SetAutoReconnect(false).SetConnectTimeout(answerLimit))
	defer client.Disconnect(0)
	connected := client.Connect()
	if !connected.WaitTimeout(answerLimit) {
		return fmt.Errorf("the hub has not answered within %v", answerLimit)
	}
	return connected.Error()
}
