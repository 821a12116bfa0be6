package registration_test

import (
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// Some clients send no tpm object with their token.

func TestAProofWithoutKeysUsesTheRememberedOwner(t *testing.T) {
	t.Parallel()
	for _, alg := range softtpm.Algorithms {
		w := newWorld(t)
		d := w.device("pump", alg, 0)
		d.enroll("", nil)
		d.omitTPM = true
		d.register()
		d.register()
		d.chip.Clear()
		d.register()
		w.wantSound("pump")
	}
}

func TestStrangersPushOutAnUnprovenOwnerButNeverTheProvenOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	d.omitTPM = true
	strangers := func(n int) {
		for i := range n {
			stranger := w.device("pump", softtpm.ECC, 100+i)
			stranger.chip.EK = d.chip.EK // what a stranger can show
			_, err := w.core.Register(w.ctx, stranger.request(""))
			w.must(err)
		}
	}
	key := d.challenge()
	strangers(registration.MaxOwners - 1)
	w.must(second(d.prove(d.token(key, time.Hour))))

	d.chip.Clear()
	key = d.challenge()
	strangers(registration.MaxOwners)
	w.wantUnproven(d.prove(d.token(key, time.Hour)))
	d.omitTPM = false // the challenge is still good for a client that names its keys
	w.must(second(d.prove(d.token(key, time.Hour))))

	d.omitTPM = true
	key = d.challenge()
	strangers(3 * registration.MaxOwners)
	w.must(second(d.prove(d.token(key, time.Hour))))
}

func second[T any](_ T, err error) error { return err }

func TestALookupIsChallengedAndShowsTheStateButNeverAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	lookup := func(token string) (registration.Answer, error) { return w.core.Lookup(w.ctx, d.request(token)) }

	answer, err := lookup("")
	w.must(err)
	key := d.open(answer)
	token := d.token(key, time.Hour)
	answer, err = lookup(token)
	w.must(err)
	w.wantState(answer, dps.StatusUnassigned)
	if answer.Status.RegistrationState.RegistrationID != "pump" || w.store.redeemed("pump") != 0 {
		t.Errorf("lookup before the first registration: %+v, %d redemptions", answer.Status.RegistrationState, w.store.redeemed("pump"))
	}

	w.hub.failNext("EnsureDevice", 1, before)
	accepted, err := d.prove(token) // the lookup has not spent it
	w.must(err)
	_, err = lookup(token) // but the proof has: from now on it polls and nothing else
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSpent)
	w.wantUnproven(lookup(d.token(key, 2*time.Hour)))

	other := d.token(d.challenge(), time.Hour)
	answer, err = lookup(other)
	w.must(err)
	w.wantState(answer, dps.StatusAssigning)
	w.must(second(d.poll(accepted.Status.OperationID, token)))
	answer, err = lookup(other)
	w.must(err)
	w.wantState(answer, dps.StatusAssigned)
	if state := answer.Status.RegistrationState; state.AssignedHub != hubOne || state.DeviceID != "pump" || state.ETag == "" {
		t.Errorf("state: %+v", state)
	}

	d.enroll("*", disabled)
	_, err = lookup(other)
	w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
	w.wantSound("pump")
}

func (w *world) wantState(a registration.Answer, status string) {
	w.Helper()
	if a.Challenge != nil || a.Status == nil || a.Status.RegistrationState == nil {
		w.Fatalf("a lookup got %+v", a)
	}
	if s := a.Status.RegistrationState; s.Status != status || a.Status.Status != status || s.TPM != nil {
		w.Errorf("a lookup shows %+v, want %s", s, status)
	}
}

// The flood of first contacts: valid-looking first contacts with the real id, the real EK and invented owners, while the device registers.
func TestAFloodOfFirstContactsDoesNotPushTheDeviceOut(t *testing.T) {
	t.Parallel()
	const contacts = 10_000
	w := newWorld(t)
	d := w.device("pump", softtpm.RSA, 0)
	d.enroll("", nil)
	inventor := softtpm.NewInventor()
	ek := d.chip.EK.Bytes()
	r := d.request("")
	flood := func(n int) {
		for range n {
			srk, err := inventor.SRK(w.rand)
			w.must(err)
			r.Arrived, r.Body.TPM = w.clock.Now(), &dps.TPMKeys{EndorsementKey: ek, StorageRootKey: srk}
			answer, err := w.core.Register(w.ctx, r)
			w.must(err)
			if answer.Challenge == nil {
				t.Fatalf("a valid first contact got %+v", answer)
			}
		}
	}
	flood(contacts / 4)
	key := d.challenge()
	flood(contacts / 4)
	token := d.token(key, time.Hour)
	answer, err := d.prove(token)
	w.must(err)
	flood(contacts / 4)
	answer, err = d.poll(answer.Status.OperationID, token)
	w.must(err)
	d.assigned(answer)
	flood(contacts / 4)
	d.omitTPM = true
	key = d.challenge()
	flood(registration.MaxOwners * 2)
	w.must(second(d.prove(d.token(key, time.Hour))))
	owners, err := w.inner.Owners(w.ctx, scopeOne, "pump", time.Time{})
	w.must(err)
	if len(owners) > registration.MaxOwners {
		t.Errorf("the flood left %d owners behind", len(owners))
	}
	w.wantSound("pump")
}

func TestOldOwnersAreNotReadBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	d.omitTPM = true
	key := d.challenge()
	w.clock.advance(2 * registration.SlotLength)
	w.wantUnproven(d.prove(d.token(key, time.Hour)))
	if since := w.store.lastSince(); !since.Equal(epoch) {
		t.Errorf("read the owners since %s, of which none can have a challenge open", since)
	}
}
