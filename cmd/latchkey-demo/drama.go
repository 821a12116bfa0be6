package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
)

// drama is what the acts share: the stage, the device, and what an eavesdropper would have captured.
type drama struct {
	*story
	service  *rig.Service
	tpm      transport.TPM
	cloneTPM string

	client  *device.Client
	events  []device.Event // of the TPM, since they were last taken
	owner   *device.Identity
	hubKey  *device.Key
	session *session
	hub     string
	device  string

	captured captured
}

// captured is all traffic of the first registration.
type captured struct {
	registration device.Registration // registration id, EK_pub, SRK_pub
	challenge    []byte
	token        string
	operation    string
	hubKeyBlob   []byte
}

func (d *drama) close() {
	if d.session != nil {
		d.session.close()
	}
	if d.owner != nil {
		_ = d.owner.Close() // the TPM itself goes away next
	}
}

func (d *drama) newClient() (*device.Client, error) {
	return device.NewClient(device.ClientConfig{Endpoint: d.service.Host, IDScope: d.service.IDScope, RootCAs: d.service.CAs, ConnectAddress: d.service.HTTPS})
}

// takeEvents gives what the TPM did since the last call, as lines.
func (d *drama) takeEvents() string {
	var lines []string
	for _, e := range d.events {
		lines = append(lines, fmt.Sprintf("%s %s %s", e.Step, span(e.Took), e.Detail))
	}
	d.events = nil
	return strings.Join(lines, "\n")
}

func (d *drama) openIdentity() (*device.Identity, error) {
	return device.OpenTransport(d.tpm, device.WithProgress(func(e device.Event) { d.events = append(d.events, e) }))
}

func registrationOf(id *device.Identity) device.Registration {
	return device.Registration{ID: id.RegistrationID(), EK: id.EK(), SRK: id.SRK()}
}

// firstLight is the main job.
func (d *drama) firstLight(ctx context.Context) error {
	d.act("Act 1: first light", "A device that nobody configured meets the service for the first time.")
	for _, do := range []func(context.Context) error{d.readKeys, d.enroll, d.firstContact, d.openChallenge, d.poll, d.openHubKey, d.goToWork} {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *drama) readKeys(context.Context) (err error) {
	if d.client, err = d.newClient(); err != nil {
		return err
	}
	return d.step("EK read", func() (string, error) {
		if d.owner, err = d.openIdentity(); err != nil {
			return "", err
		}
		d.takeEvents()
		d.captured.registration = registrationOf(d.owner)
		return fmt.Sprintf("%s, EK_pub %s, SRK_pub %s\nregistration id %s = base32(SHA-256(EK_pub))", d.owner.Algorithm(),
			brief(base64.StdEncoding.EncodeToString(d.owner.EK())), brief(base64.StdEncoding.EncodeToString(d.owner.SRK())), brief(d.owner.RegistrationID())), nil
	})
}

func (d *drama) enroll(ctx context.Context) error {
	return d.step("Enrolled by the operator", func() (string, error) {
		id := d.captured.registration.ID
		if err := d.service.Enroll(ctx, id, base64.StdEncoding.EncodeToString(d.captured.registration.EK)); err != nil {
			return "", err
		}
		return "latchkey enroll add: EK_pub is in the enrollment list; no secret was exchanged", nil
	})
}

func (d *drama) firstContact(ctx context.Context) error {
	return d.step("First contact refused", func() (string, error) {
		challenge, err := d.client.RequestChallenge(ctx, d.captured.registration)
		if err != nil {
			return "", err
		}
		d.captured.challenge = challenge.Blob
		return fmt.Sprintf("401 with a challenge: an HMAC key wrapped to SRK and EK, %d bytes %s", len(challenge.Blob), briefBytes(challenge.Blob)), nil
	})
}

func (d *drama) openChallenge(ctx context.Context) error {
	var key *device.Key
	if err := d.step("Challenge opened in the TPM", func() (_ string, err error) {
		key, err = d.owner.Activate(d.captured.challenge)
		return d.takeEvents(), err
	}); err != nil {
		return err
	}
	defer key.Close()
	if err := d.step("SAS token signed in the TPM", func() (_ string, err error) {
		d.captured.token, err = dps.NewToken(key, d.client.Resource(d.captured.registration.ID), time.Now().Add(time.Hour), "registration")
		d.takeEvents()
		return briefToken(d.captured.token), err
	}); err != nil {
		return err
	}
	return d.step("Proof accepted", func() (string, error) {
		operation, err := d.client.Prove(ctx, d.captured.registration, d.captured.token)
		if err != nil {
			return "", err
		}
		d.captured.operation = operation.ID
		return fmt.Sprintf("202 %s, operation %s", operation.Status, brief(operation.ID)), nil
	})
}

func (d *drama) poll(ctx context.Context) error {
	return d.step("Polled until assigned", func() (string, error) {
		for polls := 1; ; polls++ {
			operation, err := d.client.Poll(ctx, d.captured.registration.ID, d.captured.operation, d.captured.token)
			if err != nil {
				return "", err
			}
			if operation.Status == "assigned" {
				d.hub, d.device, d.captured.hubKeyBlob = operation.State.AssignedHub, operation.State.DeviceID, operation.State.HubKey
				return fmt.Sprintf("%s after %d poll(s): hub %s, device id %s", operation.Status, polls, d.hub, brief(d.device)), nil
			}
			if operation.Status != "assigning" {
				return "", fmt.Errorf("the operation is %s", operation.Status)
			}
			select {
			case <-time.After(max(operation.RetryAfter, time.Second)):
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
	})
}

func (d *drama) openHubKey(context.Context) error {
	return d.step("Hub key opened in the TPM", func() (_ string, err error) {
		d.hubKey, err = d.owner.Activate(d.captured.hubKeyBlob)
		d.takeEvents()
		return fmt.Sprintf("from the answer's %d-byte activation blob; the key never leaves the chip", len(d.captured.hubKeyBlob)), err
	})
}

func (d *drama) goToWork(ctx context.Context) error {
	if err := d.step("MQTT connect to the hub", func() (_ string, err error) {
		token, err := device.HubToken(d.hubKey, d.hub, d.device, time.Hour)
		if err != nil {
			return "", err
		}
		d.session, err = d.connect(ctx, token)
		return "CONNECT with " + briefToken(token), err
	}); err != nil {
		return err
	}
	return d.step("Telemetry shown by the hub", func() (string, error) { return d.report(ctx, d.session, `{"celsius":21.5}`) })
}

// report publishes a message and waits until the hub has it in its file.
func (d *drama) report(ctx context.Context, s *session, body string) (string, error) {
	if err := s.publish("devices/"+d.device+"/messages/events/", body); err != nil {
		return "", err
	}
	message, err := rig.Poll(ctx, func() (rig.Message, bool, error) {
		messages, err := d.service.Telemetry()
		for _, m := range messages {
			if m.DeviceID == d.device && string(m.Body) == body {
				return m, true, nil
			}
		}
		return rig.Message{}, false, err
	})
	return fmt.Sprintf("%s from %s: %s", message.Time.Format(time.TimeOnly), brief(message.DeviceID), message.Body), err
}

// cloneGetsNothing: everything but the TPM is not enough.
func (d *drama) cloneGetsNothing(ctx context.Context) error {
	d.act("Act 2: a clone", "It knows registration id, EK_pub, SRK_pub and all traffic of act 1, but it has another TPM.")
	clone, err := device.Open(d.cloneTPM)
	if err != nil {
		return err
	}
	defer clone.Close()
	otherTPM := func(err error) bool {
		var tpmError *device.TPMError
		return errors.Is(err, device.ErrNotForThisTPM) && errors.As(err, &tpmError) && tpmError.Code != 0
	}
	victim := d.captured.registration
	for _, mask := range []struct {
		who string
		r   device.Registration
	}{
		{"the victim's SRK_pub", victim},
		{"its own SRK_pub", device.Registration{ID: victim.ID, EK: victim.EK, SRK: clone.SRK()}},
	} {
		var challenge *device.Challenge
		if err := d.step("Shows "+mask.who, func() (_ string, err error) {
			challenge, err = d.client.RequestChallenge(ctx, mask.r)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("is handed a real challenge, %d bytes %s", len(challenge.Blob), briefBytes(challenge.Blob)), nil
		}); err != nil {
			return err
		}
		if err := d.refused("  and its TPM", func() error { return tryOpen(clone, challenge.Blob) }, otherTPM); err != nil {
			return err
		}
	}
	if err := d.refused("Tries the captured hub key", func() error { return tryOpen(clone, d.captured.hubKeyBlob) }, otherTPM); err != nil {
		return err
	}
	return d.cloneGuesses(ctx, victim)
}

func tryOpen(id *device.Identity, blob []byte) error {
	key, err := id.Activate(blob)
	if err == nil {
		return key.Close()
	}
	return err
}

// cloneGuesses signs with a key of its own, asks the operator's tool why that failed, and sees that the device is unharmed.
func (d *drama) cloneGuesses(ctx context.Context, victim device.Registration) error {
	guess := make(dps.KeySigner, 32)
	if _, err := rand.Read(guess); err != nil {
		return err
	}
	token, err := dps.NewToken(guess, d.client.Resource(victim.ID), time.Now().Add(time.Hour), "registration")
	if err != nil {
		return err
	}
	var answer *device.APIError
	if err := d.refused("Signs with a guessed key", func() error {
		_, err := d.client.Prove(ctx, victim, token)
		errors.As(err, &answer)
		return err
	}, func(err error) bool { return answer != nil && answer.Code == 401002 }); err != nil {
		return err
	}
	if err := d.step("The operator asks why", func() (string, error) {
		said, err := d.service.Latchkey(ctx, "why", answer.TrackingID)
		if err != nil || !strings.Contains(said.Stdout, "token-signature") {
			return "", errors.Join(err, fmt.Errorf("latchkey why said: %s", said.Stdout))
		}
		return fmt.Sprintf("latchkey why %s: %s", brief(answer.TrackingID), strings.SplitN(said.Stdout, "\n", 2)[0]), nil
	}); err != nil {
		return err
	}
	hubToken, err := dps.NewToken(guess, d.hub+"/devices/"+d.device, time.Now().Add(time.Hour), "")
	if err != nil {
		return err
	}
	if err := d.refused("Tries the hub", func() error { return d.tryConnect(ctx, hubToken) }, isBadLogin); err != nil {
		return err
	}
	return d.step("The real device is unharmed", func() (string, error) {
		before, err := d.fingerprint(d.hubKey)
		if err != nil {
			return "", err
		}
		after, err := d.registerAgain(ctx, d.owner)
		if err != nil {
			return "", err
		}
		if !bytes.Equal(before, after) {
			return "", errors.New("its hub key changed")
		}
		if !d.session.alive() {
			return "", errors.New("its MQTT session was cut")
		}
		return "it registers again, has the same hub key, and its MQTT session never broke", nil
	})
}

// fingerprint is what a key signs: the same for the same key, and all that can be seen of it.
func (d *drama) fingerprint(key *device.Key) ([]byte, error) {
	return key.Sign([]byte("which key is this?"))
}

// registerAgain does a whole registration and keeps its hub key in the place of the one before.
func (d *drama) registerAgain(ctx context.Context, id *device.Identity) ([]byte, error) {
	if err := d.hubKey.Close(); err != nil && !errors.Is(err, device.ErrClosed) {
		return nil, err
	}
	assignment, err := d.client.Register(ctx, id, device.RegisterOptions{})
	d.takeEvents()
	if err != nil {
		return nil, err
	}
	d.hubKey = assignment.Key
	return d.fingerprint(d.hubKey)
}
