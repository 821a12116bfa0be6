package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
)

const (
	floodSize    = 10_000
	floodWorkers = 32
	keylessFlood = 1_000 // the service remembers eight
)

// Whoever knows a device's id and EK_pub can ask for challenges in its name, as
// many as they like and each for an SRK they made up. That must not keep the
// device itself out: not while it registers in the middle of the flood, and not
// when the challenge in its hands is older than most of the flood.
func TestFloodOfFirstContactsDoesNotPushTheDeviceOut(t *testing.T) {
	service := rig.New(t, rig.Config{})
	tpm, spec := referenceTPM(t)
	h := newHand(t, service, tpm)
	flood := startFlood(t, h)

	flood.waitChallenges(floodSize / 10) // it goes on until the test ends
	a := newAgent(t, service, spec)
	if got := a.register(); got.Status != "assigned" || got.DeviceID != h.tpm.RegistrationID() {
		t.Errorf("assignment: %+v", got)
	}
	challenge, err := dps.DecodeChallenge(h.put("", http.StatusUnauthorized))
	if err != nil {
		t.Fatal(err)
	}
	flood.waitChallenges(floodSize)
	h.token = h.sign(challenge.Blob, service.IDScope+"/registrations/"+h.tpm.RegistrationID(), challenge.KeyName)
	h.poll(h.operationID(h.put(h.token, http.StatusAccepted)))

	t.Logf("%d strangers were given a challenge, %d put off", flood.challenges.Load(), flood.refused.Load())
}

// Some clients send no tpm object with the proof, so the service has to know the
// SRK by itself. The invented ones displace each other in its memory; the one
// that was proven last is not among them.
func TestFloodDoesNotPushOutADeviceThatSendsItsKeysOnlyOnce(t *testing.T) {
	service := rig.New(t, rig.Config{})
	tpm, _ := referenceTPM(t)
	h := newHand(t, service, tpm)
	first := h.poll(h.prove())

	challenge, err := dps.DecodeChallenge(h.put("", http.StatusUnauthorized))
	if err != nil {
		t.Fatal(err)
	}
	flood := startFlood(t, h)
	flood.waitChallenges(keylessFlood)
	h.token = h.sign(challenge.Blob, service.IDScope+"/registrations/"+h.tpm.RegistrationID(), challenge.KeyName)
	request := dps.RegisterRequest{RegistrationID: h.tpm.RegistrationID()}
	status, body, err := h.send(http.MethodPut, h.path("/register"), h.token, request.Encode())
	if err != nil || status != http.StatusAccepted {
		t.Fatalf("PUT register without a tpm object: %d, error %v, body %s", status, err, body)
	}
	again := h.poll(h.operationID(body))
	if again.DeviceID != first.DeviceID || again.AssignedHub != first.AssignedHub {
		t.Errorf("assigned to %s at %s, before to %s at %s", again.DeviceID, again.AssignedHub, first.DeviceID, first.AssignedHub)
	}
	mustLogin(t, service, again.DeviceID, h.hubToken(first)).send("the same owner, the same key")
	wantTelemetry(t, service, again.DeviceID, "the same owner, the same key")
}

// flood is strangers asking for challenges in a device's name, until the test
// ends.
type flood struct {
	t                   *testing.T
	victim              *hand
	challenges, refused atomic.Int64

	mu    sync.Mutex
	moved *sync.Cond // another answer has come
	err   error
}

func startFlood(t *testing.T, victim *hand) *flood {
	f := &flood{t: t, victim: victim}
	f.moved = sync.NewCond(&f.mu)
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	seed := rand.Uint64()
	t.Logf("seed of the invented SRKs: %d", seed)
	for i := range floodWorkers {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		workers.Go(func() {
			for ctx.Err() == nil {
				f.note(f.ask(random))
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		workers.Wait()
	})
	return f
}

// ask is one first contact for an SRK with the right form and a modulus that
// nobody has the key to.
func (f *flood) ask(random *rand.Rand) error {
	const modulusSize = 256
	srk := f.victim.tpm.SRK()
	modulus := srk[len(srk)-modulusSize:]
	for i := range modulus {
		modulus[i] = byte(random.Uint32())
	}
	modulus[0] |= 0x80
	modulus[modulusSize-1] |= 1
	request := dps.RegisterRequest{RegistrationID: f.victim.tpm.RegistrationID(),
		TPM: &dps.TPMKeys{EndorsementKey: f.victim.tpm.EK(), StorageRootKey: srk}}
	status, body, err := f.victim.send(http.MethodPut, f.victim.path("/register"), "", request.Encode())
	switch {
	case err != nil:
		return err
	case status == http.StatusUnauthorized:
		f.challenges.Add(1)
	case status == http.StatusTooManyRequests:
		f.refused.Add(1)
	default:
		return fmt.Errorf("a first contact was answered %d: %s (SRK %s)", status, body, base64.StdEncoding.EncodeToString(srk))
	}
	return nil
}

func (f *flood) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	f.moved.Broadcast()
}

// waitChallenges returns when so many were given a challenge.
func (f *flood) waitChallenges(challenges int64) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.challenges.Load() < challenges && f.err == nil {
		f.moved.Wait()
	}
	if f.err != nil {
		f.t.Fatal(f.err)
	}
}
