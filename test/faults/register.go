package faults

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"latchkey.example/latchkey/dps"
)

// One in so many registrations is special.
const (
	newOwner   = 6  // the chip was cleared: another storage root key
	lostAnswer = 8  // the device hangs up once its proof is sent, and sends it again
	repeated   = 10 // it got its answer and sends the proof again all the same
	walkedAway = 16 // it never asks what became of its proof
)

// worker registers its devices one after the other, in any order.
type worker struct {
	load    *Load
	devices []*Device
	random  *rand.Rand
}

func (w *worker) one(in int) bool { return w.random.IntN(in) == 0 }

// run registers until it is told to end, and finishes what it has begun unless ctx ends.
func (w *worker) run(ctx context.Context, end <-chan struct{}) {
	for ctx.Err() == nil {
		select {
		case <-end:
			w.settle(ctx)
			return
		default:
			w.register(ctx, w.devices[w.random.IntN(len(w.devices))])
		}
	}
}

// settle has those come back that never asked what became of their last proof, if it is still told and their owner is still the one who proved it:
// no chip opens what was made for an owner before.
func (w *worker) settle(ctx context.Context) {
	for _, d := range w.devices {
		last := d.last()
		if last == nil || last.Assigned || !bytes.Equal(last.Owner, d.srk) || time.Since(last.Told) > kept-endMargin {
			continue
		}
		if err := w.poll(ctx, d, last); err != nil {
			w.fail(ctx, d, "coming back to ask what became of its proof", err)
		}
	}
}

// register has a device register from challenge to hub key. What goes wrong is a finding; the load goes on.
func (w *worker) register(ctx context.Context, d *Device) {
	if len(d.proofs) > 0 && w.one(newOwner) {
		d.clear()
	}
	token, err := w.challenge(ctx, d)
	if err != nil {
		w.fail(ctx, d, "asking for a challenge", err)
		return
	}
	proof := d.begin(token)
	if err := w.prove(ctx, d, proof); err != nil {
		w.fail(ctx, d, "showing its proof", err)
		return
	}
	if proof.Operation == "" {
		return
	}
	w.load.acknowledged()
	if w.one(walkedAway) {
		return
	}
	if err := w.poll(ctx, d, proof); err != nil {
		w.fail(ctx, d, "asking what became of its proof", err)
	}
}

// fail notes an error, unless the load was broken off.
func (w *worker) fail(ctx context.Context, d *Device, doing string, err error) {
	if ctx.Err() == nil {
		w.load.findings.add(Refused, d.ID, "%s: %v", doing, err)
	}
}

func (w *worker) path(d *Device, rest string) string {
	return "/" + w.load.scope + "/registrations/" + d.ID + rest
}

func (d *Device) request() []byte {
	request := dps.RegisterRequest{RegistrationID: d.ID, TPM: &dps.TPMKeys{EndorsementKey: d.ek, StorageRootKey: d.srk}}
	return request.Encode()
}

// challenge gets a challenge and signs the token that answers it.
func (w *worker) challenge(ctx context.Context, d *Device) (token string, err error) {
	got, err := w.ask(ctx, question{method: http.MethodPut, path: w.path(d, "/register"), body: d.request()})
	if err != nil {
		return "", err
	}
	if got.status != http.StatusUnauthorized {
		return "", unexpected(got)
	}
	challenge, err := dps.DecodeChallenge(got.body)
	if err != nil {
		return "", err
	}
	key, err := d.chip.Open(challenge.Blob)
	if err != nil {
		return "", err
	}
	return dps.NewToken(dps.KeySigner(key), w.load.scope+"/registrations/"+d.ID, time.Now().Add(time.Hour), challenge.KeyName)
}

// prove shows the proof until it is acknowledged, or refused. However often it is sent it is one operation.
func (w *worker) prove(ctx context.Context, d *Device, p *Proof) error {
	q := question{method: http.MethodPut, path: w.path(d, "/register"), token: p.token, body: d.request(), lose: w.one(lostAnswer)}
	if d.terse {
		q.body = (&dps.RegisterRequest{RegistrationID: d.ID}).Encode()
	}
	got, err := w.ask(ctx, q)
	if err != nil {
		return err
	}
	switch {
	case d.terse && got.status == http.StatusUnauthorized: // who it is was remembered where a crash may reach: it begins anew
		d.forget(p)
		w.load.counts.forgotten.Add(1)
		return nil
	case d.rival && (got.status == http.StatusConflict || got.status == http.StatusUnauthorized && got.lost): // a refusal that was lost spent the proof too
		p.Refused = true
		return nil
	}
	if p.Operation, err = operationIn(got); err != nil {
		return err
	}
	p.Told = time.Now()
	if w.one(repeated) {
		return w.again(ctx, d, q, p.Operation)
	}
	return nil
}

// again shows a proof that was acknowledged once more.
func (w *worker) again(ctx context.Context, d *Device, q question, operation string) error {
	got, err := w.ask(ctx, q)
	if err != nil {
		return err
	}
	again, err := operationIn(got)
	if err != nil {
		return fmt.Errorf("once more: %w", err)
	}
	if again != operation {
		w.load.findings.add(Doubled, d.ID, "the proof of operation %s made another one, %s, when it was sent again", operation, again)
	}
	return nil
}

func operationIn(got answer) (string, error) {
	if got.status != http.StatusAccepted {
		return "", unexpected(got)
	}
	status, err := dps.DecodeOperationStatus(got.body)
	if err == nil && status.OperationID == "" {
		err = unexpected(got)
	}
	return status.OperationID, err
}

// poll asks until the device is assigned, and opens the hub key.
func (w *worker) poll(ctx context.Context, d *Device, p *Proof) error {
	for {
		got, err := w.ask(ctx, question{method: http.MethodGet, path: w.path(d, "/operations/"+p.Operation), token: p.token})
		if err != nil {
			return err
		}
		switch got.status {
		case http.StatusAccepted:
			if err := w.wait(ctx, got.after); err != nil {
				return err
			}
		case http.StatusOK:
			return w.assigned(d, p, got)
		default:
			return unexpected(got)
		}
	}
}

func (w *worker) assigned(d *Device, p *Proof, got answer) error {
	status, err := dps.DecodeOperationStatus(got.body)
	if err != nil {
		return fmt.Errorf("%w: %w", err, unexpected(got))
	}
	state := status.RegistrationState
	if status.Status != dps.StatusAssigned || state == nil || state.TPM == nil {
		return unexpected(got)
	}
	key, err := d.chip.Open(state.TPM.AuthenticationKey)
	if err != nil {
		return fmt.Errorf("the hub key: %w", err)
	}
	p.Assigned, p.Hub, p.DeviceID, p.Key = true, state.AssignedHub, state.DeviceID, bytes.Clone(key)
	if what := d.assigned(p); what != "" {
		w.load.findings.add(Wrong, d.ID, "%s", what)
	}
	w.load.counts.assigned.Add(1)
	return nil
}

func unexpected(got answer) error { return fmt.Errorf("status %d: %.300s", got.status, got.body) }
