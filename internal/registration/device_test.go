package registration_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// device is one device as it sees itself.
type device struct {
	*world
	scope, id string
	chip      *softtpm.TPM
	omitTPM   bool // on requests with a token
}

func (w *world) device(id string, alg softtpm.Algorithm, chip int) *device {
	return &device{world: w, scope: scopeOne, id: id, chip: softtpm.New(alg, chip)}
}

// enrolled is a device with an enrollment. Its chip is ECC, the cheap one.
func (w *world) enrolled(id string) *device {
	w.Helper()
	d := w.device(id, softtpm.ECC, 0)
	d.enroll("", nil)
	return d
}

var operator = registration.Caller{Scope: scopeOne, Policy: "owner", Address: "198.51.100.9:443", TrackingID: "managed"}

// wire is the device's enrollment as an operator sends it, with some members changed.
func (d *device) wire(change map[string]any) dps.IndividualEnrollment {
	d.Helper()
	body := map[string]any{
		"registrationId": d.id,
		"attestation":    map[string]any{"type": "tpm", "tpm": map[string]any{"endorsementKey": base64.StdEncoding.EncodeToString(d.chip.EK.Bytes())}},
	}
	for name, value := range change {
		body[name] = value
	}
	text, err := json.Marshal(body)
	d.must(err)
	e, err := dps.DecodeEnrollment(d.id, text)
	d.must(err)
	return e
}

// pinning is the attestation member that pins the device's present owner.
func (d *device) pinning(srk []byte) map[string]any {
	encode := base64.StdEncoding.EncodeToString
	return map[string]any{"attestation": map[string]any{"type": "tpm", "tpm": map[string]any{
		"endorsementKey": encode(d.chip.EK.Bytes()), "storageRootKey": encode(srk),
	}}}
}

var disabled = map[string]any{"provisioningStatus": "disabled"}

// enroll writes the enrollment; ifMatch "*" replaces.
func (d *device) enroll(ifMatch string, change map[string]any) dps.IndividualEnrollment {
	d.Helper()
	e, err := d.core.PutEnrollment(d.ctx, operator, d.wire(change), ifMatch)
	d.must(err)
	return e
}

func (d *device) request(authorization string) registration.Request {
	r := registration.Request{
		Scope: d.scope, ID: d.id, Authorization: authorization, Address: "192.0.2.7:40000", Arrived: d.clock.Now(),
		Body: dps.RegisterRequest{RegistrationID: d.id, TPM: &dps.TPMKeys{EndorsementKey: d.chip.EK.Bytes(), StorageRootKey: d.chip.SRK.Bytes()}},
	}
	if authorization != "" && d.omitTPM {
		r.Body.TPM = nil
	}
	return r
}

// challenge makes a first contact and opens the blob that it must get.
func (d *device) challenge() []byte {
	d.Helper()
	answer, err := d.core.Register(d.ctx, d.request(""))
	d.must(err)
	return d.open(answer)
}

func (d *device) open(answer registration.Answer) []byte {
	d.Helper()
	if answer.Challenge == nil || answer.Status != nil {
		d.Fatalf("not a challenge: %+v", answer)
	}
	key, err := d.chip.Open(answer.Challenge)
	d.must(err)
	return key
}

// token signs a SAS token for the device's registration.
func (d *device) token(key []byte, life time.Duration) string {
	d.Helper()
	text, err := dps.NewToken(dps.KeySigner(key), d.scope+"/registrations/"+d.id, d.clock.Now().Add(life), dps.KeyNameRegistration)
	d.must(err)
	return text
}

// prove sends a register request with a token.
func (d *device) prove(token string) (registration.Answer, error) {
	d.Helper()
	answer, err := d.core.Register(d.ctx, d.request(token))
	if err == nil {
		d.wantAccepted(answer)
	}
	return answer, err
}

func (d *device) wantAccepted(a registration.Answer) {
	d.Helper()
	ok := a.Challenge == nil && a.Status != nil && a.Status.OperationID != "" && a.Status.Status == dps.StatusAssigning && a.RetryAfter == registration.PollAdvice
	if !ok || a.Status.RegistrationState.TPM != nil {
		d.Fatalf("an accepted proof got %+v", a)
	}
}

// poll polls, and holds every answer against P3: a key is only there when the row that says so is durable.
func (d *device) poll(operation, token string) (registration.Answer, error) {
	d.Helper()
	r := d.request(token)
	r.Body = dps.RegisterRequest{}
	answer, err := d.core.Poll(d.ctx, r, operation)
	if err == nil {
		d.wantAuditBeforeKey(operation, answer)
	}
	return answer, err
}

func (d *device) wantAuditBeforeKey(operation string, a registration.Answer) {
	d.Helper()
	state := a.Status.RegistrationState
	if (state.TPM != nil) != (state.Status == dps.StatusAssigned) {
		d.Errorf("status %s, key %t", state.Status, state.TPM != nil)
	}
	if state.TPM == nil {
		return
	}
	o, err := d.inner.Operation(d.ctx, d.scope, operation)
	d.must(err)
	rows, err := d.inner.AuditByTrackingID(d.ctx, d.scope, o.TrackingID)
	d.must(err)
	assigned := func(a registration.Audit) bool {
		return a.Action == registration.ActionAssign && a.Outcome == registration.OutcomeOK && strings.Contains(a.Detail, operation)
	}
	if o.Status != registration.Assigned || !slices.ContainsFunc(rows, assigned) {
		d.Errorf("a hub key left, but the store says %s and the audit %+v", o.Status, rows)
	}
}

// registered is what a device has in hand at the end.
type registered struct {
	challenge []byte
	token     string
	operation string
	hubKey    []byte
	state     dps.RegistrationState
}

// register plays a whole registration that must succeed.
func (d *device) register() registered {
	d.Helper()
	key := d.challenge()
	token := d.token(key, time.Hour)
	answer, err := d.prove(token)
	d.must(err)
	got := registered{challenge: key, token: token, operation: answer.Status.OperationID}
	answer, err = d.poll(got.operation, token)
	d.must(err)
	got.state, got.hubKey = d.assigned(answer)
	return got
}

// assigned opens the hub key of a final answer and compares it with the hub's.
func (d *device) assigned(a registration.Answer) (dps.RegistrationState, []byte) {
	d.Helper()
	state := *a.Status.RegistrationState
	if a.Status.Status != dps.StatusAssigned || state.TPM == nil {
		d.Fatalf("not assigned: %+v, %+v", a, state)
	}
	key, err := d.chip.Open(state.TPM.AuthenticationKey)
	d.must(err)
	if at := d.hub.device(state.DeviceID); !bytes.Equal(at.key, key) {
		d.Errorf("the device was given another key than the hub holds")
	}
	return state, key
}

// credentialOf opens what an operation gives the hub, as it is encoded.
func (w *world) credentialOf(scope string, o registration.Operation) []byte {
	w.Helper()
	key, err := w.ring.Open(registration.ContextHubKey(scope, dps.FoldID(o.RegistrationID)), o.SealedHubKey)
	w.must(err)
	return key
}

// wantFault holds an error against the code a stranger sees and the reason the operator sees.
func (w *world) wantFault(err error, code dps.Code, reason registration.Reason) *registration.Fault {
	w.Helper()
	var fault *registration.Fault
	if !errors.As(err, &fault) {
		w.Fatalf("got %v, want a fault %d (%s)", err, code, reason)
	}
	if fault.Code != code || fault.Reason != reason {
		w.Errorf("got %d (%s), want %d (%s); inside: %v", fault.Code, fault.Reason, code, reason, fault)
	}
	return fault
}

// wantUnproven is the one answer to every token that does not count.
func (w *world) wantUnproven(a registration.Answer, err error) {
	w.Helper()
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	if a.Challenge != nil || a.Status != nil {
		w.Errorf("a refusal came with %+v", a)
	}
}

// wantSound holds the store against what must be true of an id at any time.
func (w *world) wantSound(id string) {
	w.Helper()
	d := w.snapshot(id)
	if spent := w.store.redeemed(dps.FoldID(id)); d.Generation != spent {
		w.Errorf("%s: generation %d after %d redemptions", id, d.Generation, spent)
	}
	if d.Registration != nil && d.Operation != nil && !bytes.Equal(d.Registration.SealedHubKey, d.Operation.SealedHubKey) {
		w.Errorf("%s: registration and operation hold different hub keys", id)
	}
	if r := d.Registration; r != nil && r.Status == registration.Assigned {
		key, err := w.ring.Open(registration.ContextHubKey(scopeOne, dps.FoldID(id)), r.SealedHubKey)
		w.must(err)
		if d.Operation != nil && d.Operation.Generation == d.Generation && !w.hub.acknowledged(scopeOne, r.DeviceID, key, d.Operation.Revision) {
			w.Errorf("%s: assigned, but the hub has not acknowledged the key", id)
		}
	}
}
