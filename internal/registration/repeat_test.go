package registration_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// P2: one id has at most one live assignment, and a retry gets the same answer.

func TestARepeatedProofGetsTheSameOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	token := d.token(d.challenge(), time.Hour)
	first, err := d.prove(token)
	w.must(err)
	for _, wait := range []time.Duration{0, time.Second, registration.SlotLength, registration.OperationWindow - registration.SlotLength - time.Second} {
		w.clock.advance(wait)
		for _, d.omitTPM = range []bool{false, true} {
			again, err := d.prove(token)
			w.must(err)
			if again.Status.OperationID != first.Status.OperationID || again.TrackingID != first.TrackingID {
				t.Errorf("after %s: operation %s, not %s", wait, again.Status.OperationID, first.Status.OperationID)
			}
		}
	}
	if w.store.redeemed("pump") != 1 || w.hub.device("pump").cuts != 0 {
		t.Error("repeating did something")
	}
	w.clock.advance(time.Second + time.Nanosecond)
	w.wantUnproven(d.prove(token))
	w.wantSound("pump")
}

func TestARepeatedProofEndsWithItsToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	token := d.token(d.challenge(), 30*time.Second)
	first, err := d.prove(token)
	w.must(err)
	w.clock.advance(30*time.Second + registration.TokenLeeway)
	again, err := d.prove(token)
	w.must(err)
	if again.Status.OperationID != first.Status.OperationID {
		t.Error("another operation within the leeway")
	}
	w.clock.advance(time.Nanosecond)
	_, err = d.prove(token)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenExpired)
}

func TestARepeatedProofWithOtherKeysIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	token := d.token(d.challenge(), time.Hour)
	_, err := d.prove(token)
	w.must(err)
	w.wantOtherKeysRefused(d, token)
	if w.store.redeemed("pump") != 1 {
		t.Error("a refused repeat redeemed something")
	}
}

func TestAProofWithOtherKeysIsRefusedAndSpendsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	token := d.token(d.challenge(), time.Hour)
	w.wantOtherKeysRefused(d, token)
	if w.store.redeemed("pump") != 0 {
		t.Error("a refused proof redeemed something")
	}
	_, err := d.prove(token)
	w.must(err)
}

// wantOtherKeysRefused sends the good token with another EK, then with another SRK.
func (w *world) wantOtherKeysRefused(d *device, token string) {
	w.Helper()
	other := softtpm.New(softtpm.ECC, 5)
	for member, keys := range map[string]*dps.TPMKeys{
		"tpm.endorsementKey": {EndorsementKey: other.EK.Bytes(), StorageRootKey: d.chip.SRK.Bytes()},
		"tpm.storageRootKey": {EndorsementKey: d.chip.EK.Bytes(), StorageRootKey: other.SRK.Bytes()},
	} {
		r := d.request(token)
		r.Body.TPM = keys
		_, err := w.core.Register(w.ctx, r)
		if fault := w.wantFault(err, dps.CodeBadRequest, registration.ReasonOtherKeys); !strings.Contains(fault.Detail, member) {
			w.Errorf("the refusal of another %s says %q", member, fault.Detail)
		}
	}
}

func TestAHundredCopiesOfOneProofMakeOneOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	token := d.token(d.challenge(), time.Hour)
	answers, errs := d.together(100, func(int) string { return token })
	for i, err := range errs {
		w.must(err)
		if answers[i].Status.OperationID != answers[0].Status.OperationID {
			t.Fatalf("operations %s and %s", answers[i].Status.OperationID, answers[0].Status.OperationID)
		}
	}
	w.wantOneOperation("pump", answers[0].Status.OperationID)
	answer, err := d.poll(answers[0].Status.OperationID, token)
	w.must(err)
	d.assigned(answer)
}

func TestAHundredProofsOfOneChallengeMakeOneOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	key := d.challenge()
	answers, errs := d.together(100, func(i int) string { return d.token(key, time.Hour+time.Duration(i)*time.Second) })
	var won []string
	for i, err := range errs {
		if err == nil {
			won = append(won, answers[i].Status.OperationID)
			continue
		}
		w.wantUnproven(answers[i], err)
	}
	if len(won) != 1 {
		t.Fatalf("%d of 100 proofs of one challenge were accepted", len(won))
	}
	w.wantOneOperation("pump", won[0])
}

// together sends n proofs at once.
func (d *device) together(n int, token func(int) string) ([]registration.Answer, []error) {
	answers, errs := make([]registration.Answer, n), make([]error, n)
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		request := d.request(token(i))
		all.Go(func() {
			<-start
			answers[i], errs[i] = d.core.Register(d.ctx, request)
		})
	}
	close(start)
	all.Wait()
	return answers, errs
}

// wantOneOperation counts the operations of the store by their sealed keys.
func (w *world) wantOneOperation(id, operation string) {
	w.Helper()
	values, _, err := w.inner.SealedValues(w.ctx, "", 1000)
	w.must(err)
	var found []string
	for _, v := range values {
		if v.Kind == registration.SealedOperationKey {
			found = append(found, v.Key)
		}
	}
	if len(found) != 1 || found[0] != operation {
		w.Errorf("the store holds the operations %v, not %s alone", found, operation)
	}
	if w.store.redeemed(id) != 1 {
		w.Errorf("%d redemptions", w.store.redeemed(id))
	}
	w.wantSound(id)
}
