package e2e

import (
	"crypto/rand"
	"errors"
	"net/http"
	"regexp"
	"testing"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

var trackingPattern = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

func trackingID(t *testing.T, text string) string {
	t.Helper()
	id := trackingPattern.FindString(text)
	if id == "" {
		t.Fatalf("no tracking id in: %s", text)
	}
	return id
}

// P8: the EK recognises the chip, the new owner gets a new key, and with the
// old owner's nothing can be done any more.
func TestClearedTPMGetsANewHubKeyAndTheOldOneIsDead(t *testing.T) {
	service := rig.New(t, rig.Config{})
	tpm, spec := referenceTPM(t)
	a := newAgent(t, service, spec)
	first := a.enroll()
	a.register()
	old := a.token()
	session := mustLogin(t, service, old.DeviceID, old.SASToken)
	session.send("of the old owner")

	if err := simtpm.Clear(tpm); err != nil {
		t.Fatal(err)
	}
	second := a.ek()
	if second.EndorsementKey != first.EndorsementKey || second.StorageRootKey == first.StorageRootKey {
		t.Fatal("the clear has not left the EK and replaced the SRK")
	}
	if _, err := service.Agent(a.context(), a.device, "token"); err == nil {
		t.Error("the cleared TPM still loads the old owner's hub key")
	}
	a.register()
	wantCut(t, session)
	wantRefusedLogin(t, service, old.DeviceID, old.SASToken)
	now := a.token()
	mustLogin(t, service, now.DeviceID, now.SASToken).send("of the new owner")
	wantTelemetry(t, service, now.DeviceID, "of the old owner", "of the new owner")
}

const tenYears = "87600h"

// P8 for an old owner who prepared to stay: where the operator lets SAS tokens
// live for years, the change of keys must still end them.
func TestTenYearTokenOfTheOldOwnerDiesWithTheReKey(t *testing.T) {
	service := rig.New(t, rig.Config{Env: []string{"LATCHKEY_HUB_MAX_TOKEN_LIFE=100000h"}})
	tpm, spec := swtpm(t)
	a := newAgent(t, service, spec)
	a.enroll()
	a.register()
	old := a.token("--ttl", tenYears)
	session := mustLogin(t, service, old.DeviceID, old.SASToken)
	session.send("of the old owner")

	if err := simtpm.Clear(tpm); err != nil {
		t.Fatal(err)
	}
	session.send("the session outlives the clear")
	a.register()
	wantCut(t, session)
	wantRefusedLogin(t, service, old.DeviceID, old.SASToken)
	now := a.token()
	mustLogin(t, service, now.DeviceID, now.SASToken).send("of the new owner")
	wantRefusedLogin(t, service, old.DeviceID, old.SASToken)
	wantTelemetry(t, service, now.DeviceID, "of the old owner", "the session outlives the clear", "of the new owner")
}

func TestTenYearTokenIsRefusedAtOnceByDefault(t *testing.T) {
	service := rig.New(t, rig.Config{})
	_, spec := swtpm(t)
	a := newAgent(t, service, spec)
	a.enroll()
	a.register()
	long := a.token("--ttl", tenYears)
	wantRefusedLogin(t, service, long.DeviceID, long.SASToken)
	mustLogin(t, service, long.DeviceID, a.token("--ttl", "23h").SASToken) // it is not the key
}

// wantCut: the hub has ended the session.
func wantCut(t *testing.T, w *worker) {
	t.Helper()
	select {
	case <-w.lost:
	case <-time.After(hubLimit):
		t.Error("the old owner's session is still open")
	}
}

// P7: a clone that knows everything but lacks the TPM.
func TestCloneWithoutTheTPMGetsNothing(t *testing.T) {
	service := rig.New(t, rig.Config{})
	victim := newHand(t, service, simtpm.NewSimulator(t))
	clone := openIdentity(t, simtpm.NewSwtpm(t))

	victim.putKeys("", clone.EK(), clone.SRK(), http.StatusNotFound)
	for _, srk := range [][]byte{victim.tpm.SRK(), clone.SRK()} {
		challenge, err := dps.DecodeChallenge(victim.putKeys("", victim.tpm.EK(), srk, http.StatusUnauthorized))
		if err != nil {
			t.Fatal(err)
		}
		wantUnopened(t, clone, challenge.Blob)
	}

	operation := victim.prove()
	captured := victim.token
	state := victim.poll(operation)
	if again := victim.operationID(victim.put(captured, http.StatusAccepted)); again != operation {
		t.Errorf("replaying the captured SAS token gave a new operation, %s", again)
	}
	wantUnopened(t, clone, state.TPM.AuthenticationKey)
	victim.putKeys(captured, victim.tpm.EK(), clone.SRK(), http.StatusBadRequest) // no new owner by an old proof

	mustLogin(t, service, state.DeviceID, victim.hubToken(state)).send("unharmed")
	wantTelemetry(t, service, state.DeviceID, "unharmed")
}

// wantUnopened: the TPM refuses the blob, and not because it is out of order,
// since it opens one that is its own.
func wantUnopened(t *testing.T, clone *device.Identity, blob []byte) {
	t.Helper()
	_, err := clone.Activate(blob)
	var refusal *device.TPMError
	if !errors.Is(err, device.ErrNotForThisTPM) || !errors.As(err, &refusal) || refusal.Command != "TPM2_ActivateCredential" {
		t.Errorf("the clone's TPM says of a blob that is another's: %v", err)
	}
	ek, err := attest.ParseEK(clone.EK())
	if err != nil {
		t.Fatal(err)
	}
	srk, err := attest.ParseSRK(clone.SRK())
	if err != nil {
		t.Fatal(err)
	}
	own, err := attest.Seal(rand.Reader, ek, srk, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	key, err := clone.Activate(own)
	if err != nil {
		t.Fatalf("the clone's TPM does not open its own blob: %v", err)
	}
	if err := key.Close(); err != nil {
		t.Error(err)
	}
}
