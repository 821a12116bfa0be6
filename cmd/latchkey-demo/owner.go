package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

const tenYears = 10 * 365 * 24 * time.Hour

// ownerChanges: the TPM is cleared and has a new owner. The device is recognised, and what the old owner kept is dead.
func (d *drama) ownerChanges(ctx context.Context) error {
	d.act("Act 3: a new owner", "The old owner prepares to stay: a SAS token for ten years, and an MQTT session kept open. Then the TPM is cleared.")
	var longToken string
	var before, saved []byte
	if err := d.step("Ten-year SAS token minted", func() (_ string, err error) {
		if longToken, err = device.HubTokenUntil(d.hubKey, d.hub, d.device, time.Now().Add(tenYears)); err != nil {
			return "", err
		}
		before, err = d.fingerprint(d.hubKey)
		saved = d.hubKey.Marshal()
		return briefToken(longToken), err
	}); err != nil {
		return err
	}
	if err := d.step("It works, the session is open", func() (_ string, err error) {
		d.session.close()
		if d.session, err = d.connect(ctx, longToken); err != nil {
			return "", err
		}
		return d.report(ctx, d.session, `{"celsius":22.0}`)
	}); err != nil {
		return err
	}
	if err := d.clear(); err != nil {
		return err
	}
	if err := d.newOwner(ctx, before); err != nil {
		return err
	}
	return d.oldOwnerIsOut(ctx, longToken, saved)
}

func (d *drama) clear() error {
	old := d.captured.registration
	return d.step("TPM cleared and re-owned", func() (_ string, err error) {
		if err := errors.Join(d.hubKey.Close(), d.owner.Close()); err != nil {
			return "", err
		}
		if err := simtpm.Clear(d.tpm); err != nil {
			return "", err
		}
		if d.owner, err = d.openIdentity(); err != nil {
			return "", err
		}
		d.takeEvents()
		now := registrationOf(d.owner)
		if now.ID != old.ID || !bytes.Equal(now.EK, old.EK) {
			return "", errors.New("the EK changed")
		}
		if bytes.Equal(now.SRK, old.SRK) {
			return "", errors.New("the SRK did not change")
		}
		return "TPM2_Clear: same EK_pub and registration id, new SRK_pub", nil
	})
}

func (d *drama) newOwner(ctx context.Context, before []byte) error {
	return d.step("Recognised by its EK", func() (string, error) {
		if !d.session.alive() {
			return "", errors.New("the old session ended before the re-key, so its end would prove nothing")
		}
		after, err := d.registerAgain(ctx, d.owner)
		if err != nil {
			return "", err
		}
		if bytes.Equal(before, after) {
			return "", errors.New("the hub key is still the old owner's")
		}
		return fmt.Sprintf("registered with its new owner; the hub key is another: it signs %s, the old one %s", briefBytes(after), briefBytes(before)), nil
	})
}

func (d *drama) oldOwnerIsOut(ctx context.Context, longToken string, saved []byte) error {
	if err := d.step("The old session is dead", func() (string, error) {
		return "the hub cut it when the key changed", d.session.waitDead(ctx)
	}); err != nil {
		return err
	}
	if err := d.refused("The ten-year token is dead", func() error { return d.tryConnect(ctx, longToken) }, isBadLogin); err != nil {
		return err
	}
	if err := d.refused("The old key does not load", func() error {
		key, err := d.owner.LoadKey(saved)
		if err == nil {
			return key.Close()
		}
		return err
	}, func(err error) bool { return errors.Is(err, device.ErrOtherOwner) }); err != nil {
		return err
	}
	return d.step("The new owner works", func() (_ string, err error) {
		token, err := device.HubToken(d.hubKey, d.hub, d.device, time.Hour)
		if err != nil {
			return "", err
		}
		if d.session, err = d.connect(ctx, token); err != nil {
			return "", err
		}
		return d.report(ctx, d.session, `{"celsius":22.5}`)
	})
}

// replayGetsNothing: a captured SAS token, sent again, gets nothing new.
func (d *drama) replayGetsNothing(ctx context.Context) error {
	d.act("Act 4: a replay", "Somebody captured a SAS token in use and sends it again.")
	r := registrationOf(d.owner)
	var token, operation string
	if err := d.step("A registration is captured", func() (string, error) {
		challenge, err := d.client.RequestChallenge(ctx, r)
		if err != nil {
			return "", err
		}
		key, err := d.owner.Activate(challenge.Blob)
		if err != nil {
			return "", err
		}
		defer key.Close()
		d.takeEvents()
		if token, err = newProof(key, d.client.Resource(r.ID)); err != nil {
			return "", err
		}
		accepted, err := d.client.Prove(ctx, r, token)
		if err != nil {
			return "", err
		}
		operation = accepted.ID
		return fmt.Sprintf("%s got operation %s", briefToken(token), brief(operation)), nil
	}); err != nil {
		return err
	}
	if err := d.step("The same token again", func() (string, error) {
		again, err := d.client.Prove(ctx, r, token)
		if err != nil {
			return "", err
		}
		if again.ID != operation {
			return "", fmt.Errorf("it got another operation, %s", again.ID)
		}
		return "gets the same operation and nothing new: a device that lost the answer may ask again", nil
	}); err != nil {
		return err
	}
	return d.replayOld(ctx, r)
}

// replayOld sends the token of act 1, whose challenge was redeemed long ago.
func (d *drama) replayOld(ctx context.Context, r device.Registration) error {
	unauthorized := func(err error) bool {
		var answer *device.APIError
		return errors.As(err, &answer) && answer.Code == 401002
	}
	if err := d.refused("The token of act 1", func() error {
		_, err := d.client.Prove(ctx, d.captured.registration, d.captured.token)
		return err
	}, unauthorized); err != nil {
		return err
	}
	if err := d.step("Its operation", func() (string, error) {
		old, err := d.client.Poll(ctx, r.ID, d.captured.operation, d.captured.token)
		if unauthorized(err) {
			return "is answered no more", nil
		}
		if err != nil {
			return "", err
		}
		if old.State == nil || old.State.HubKey != nil || old.Status == "assigned" {
			return "", errors.New("it was handed a hub key")
		}
		return "is " + old.Status + ": its place was taken by a newer registration, and no key comes with it", nil
	}); err != nil {
		return err
	}
	return d.step("The device still works", func() (string, error) {
		if !d.session.alive() {
			return "", errors.New("its session was cut")
		}
		return d.report(ctx, d.session, `{"celsius":23.0}`)
	})
}
