package upgrade

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
	"latchkey.example/latchkey/test/upgrade/reading"
)

// home is the host name of the home scope in every kept installation.
const home = "dps.example.net"

// unpackTar unpacks a backup where no release checks it.
func unpackTar(dir string, data []byte) error {
	archive := tar.NewReader(bytes.NewReader(data))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(header.Name))
		content, err := io.ReadAll(archive)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
			return err
		}
	}
}

// store is what the service needs of one.
type store interface {
	reading.Store
	embedded.Identities
	HubLeftovers(ctx context.Context, limit int) ([]registration.HubLeftover, error)
	Close() error
}

// world is the service on a store, at the time at which the installation was left. It stands until it is moved.
type world struct {
	*testing.T
	store store
	ring  *keyring.Ring
	core  *registration.Core
	facts facts
	of    storeFacts
	now   time.Time
}

func newWorld(t *testing.T, s store, ring *keyring.Ring, f facts, of storeFacts) *world {
	t.Helper()
	w := &world{T: t, store: s, ring: ring, facts: f, of: of, now: of.End}
	clock := func() time.Time { return w.now }
	hub, err := embedded.New(embedded.Config{Identities: s, Sealer: ring, Telemetry: io.Discard, Now: clock,
		Names: func(name string) (string, bool) { return w.core.HubScope(name) }})
	must(t, err)
	w.core, err = registration.New(t.Context(), registration.Config{Store: s, Hub: hub, Sealer: ring, Logger: slog.New(slog.DiscardHandler), Now: clock})
	must(t, err)
	t.Cleanup(func() { must(t, hub.Close(context.Background())) })
	return w
}

func (w *world) request(id, authorization string) registration.Request {
	return registration.Request{Scope: w.facts.Scope, ID: id, Authorization: authorization, Address: "192.0.2.7:40000", Arrived: w.now}
}

// owner signs in with the key that the operator has.
func (w *world) owner() registration.Caller {
	w.Helper()
	token, err := dps.NewToken(dps.KeySigner(w.facts.OwnerKey), home, w.now.Add(time.Hour), registration.OwnerPolicy)
	must(w.T, err)
	by, err := w.core.Authorize(w.Context(), home, "/", token, "198.51.100.9:443", registration.ProvisioningRights, w.now)
	must(w.T, err)
	if _, err := w.core.Authorize(w.Context(), home, "/", token, "198.51.100.9:443", registration.RegistryRead, w.now); err == nil {
		w.Fatal("the owner of an old installation was given a right that nobody gave it")
	}
	return by
}

func (w *world) token(id string, key []byte) string {
	w.Helper()
	text, err := dps.NewToken(dps.KeySigner(key), w.facts.Scope+"/registrations/"+id, w.now.Add(time.Hour), dps.KeyNameRegistration)
	must(w.T, err)
	return text
}

// assigned polls an operation, which must be at its end.
func (w *world) assigned(r registration.Request, operation string) *dps.RegistrationState {
	w.Helper()
	r.Body = dps.RegisterRequest{}
	answer, err := w.core.Poll(w.Context(), r, operation)
	must(w.T, err)
	if answer.Status.Status != dps.StatusAssigned {
		w.Fatalf("%s is %s", r.ID, answer.Status.Status)
	}
	return answer.Status.RegistrationState
}

// registers plays a whole registration.
func (w *world) registers(r registration.Request) *dps.RegistrationState {
	w.Helper()
	answer, err := w.core.Register(w.Context(), r)
	must(w.T, err)
	return w.assigned(r, answer.Status.OperationID)
}

// chip registers a device by its TPM and returns its hub key.
func (w *world) chip(id string, chip *softtpm.TPM) []byte {
	w.Helper()
	r := w.request(id, "")
	r.Body.TPM = &dps.TPMKeys{EndorsementKey: chip.EK.Bytes(), StorageRootKey: chip.SRK.Bytes()}
	answer, err := w.core.Register(w.Context(), r)
	must(w.T, err)
	key, err := chip.Open(answer.Challenge)
	must(w.T, err)
	r.Authorization = w.token(id, key)
	state := w.registers(r)
	hubKey, err := chip.Open(state.TPM.AuthenticationKey)
	must(w.T, err)
	return hubKey
}

// keyOf is the key that make.go gave a device or a group.
func keyOf(name string) []byte {
	sum := sha256.Sum256([]byte("test key of " + name))
	return sum[:]
}

// goOn is what the devices and operators of the installation do next.
func (w *world) goOn() {
	w.Helper()
	w.sound("as it was left")
	w.now = w.now.Add(time.Minute)
	w.devicesGoOn()
	w.operatorsGoOn()
	w.now = w.now.Add(20 * time.Minute)
	must(w.T, w.core.Maintain(w.Context()))
	if left, err := w.store.Holdings(w.Context(), w.of.Gone); err != nil || len(left.Enrollments)+len(left.Registrations) > 0 {
		w.Errorf("a deleted scope has left %+v, %v", left, err)
	}
	w.sound("after all that")
}

func (w *world) devicesGoOn() {
	w.Helper()
	chip := softtpm.New(softtpm.ECC, 1)
	polled := w.assigned(w.request("Pump-1", w.of.Token), w.of.Operation)
	before, err := chip.Open(polled.TPM.AuthenticationKey)
	must(w.T, err)
	if key := w.chip("Pump-1", chip); !bytes.Equal(key, before) {
		w.Error("a device that registers again has another hub key")
	}
	chip.Clear()
	if key := w.chip("Pump-1", chip); bytes.Equal(key, before) {
		w.Error("a device with a new owner has the hub key of the old one")
	}
	_, err = w.core.Register(w.Context(), w.request("Pump-1", w.of.Token))
	w.refused(err, dps.CodeUnauthorized, "a token of the time before, its challenge redeemed")

	must(w.T, w.core.Resume(w.Context()))
	w.assigned(w.request("stuck", w.of.StuckToken), w.of.Assigning)
	if state := w.registers(w.request("valve", w.token("valve", keyOf("valve")))); state.DeviceID != "valve-in-hall-B" {
		w.Errorf("valve is %s at its hub", state.DeviceID)
	}
	w.registers(w.request("sensor-1", w.token("sensor-1", dps.DeriveKey(keyOf("line 4"), "sensor-1"))))
	press, err := x509.ParseCertificate(w.of.DeviceChain)
	must(w.T, err)
	r := w.request("press", "")
	r.Certificates = []*x509.Certificate{press}
	if state := w.registers(r); state.X509 == nil || state.X509.EnrollmentGroupID != "plant" {
		w.Errorf("press is let in by %+v", state.X509)
	}
	_, err = w.core.Register(w.Context(), w.request("shut", w.token("shut", keyOf("shut"))))
	w.refused(err, dps.CodeDisabled, "a device that is disabled")
	_, err = w.core.Register(w.Context(), w.request("left", w.token("left", keyOf("left"))))
	w.refused(err, dps.CodeUnauthorized, "a device that was deleted")
}

// operatorsGoOn holds what they had read before against what is there.
func (w *world) operatorsGoOn() {
	w.Helper()
	by := w.owner()
	valve, err := w.core.Enrollment(w.Context(), by, "valve")
	must(w.T, err)
	if valve.ETag != w.of.ETag {
		w.Errorf("the etag was %s and is %s", w.of.ETag, valve.ETag)
	}
	written, err := w.core.PutEnrollment(w.Context(), by, valve, w.of.ETag)
	must(w.T, err)
	if written.ETag == w.of.ETag {
		w.Error("a write left the etag as it was")
	}
	_, err = w.core.PutEnrollment(w.Context(), by, valve, w.of.ETag)
	w.refused(err, dps.CodePreconditionFailed, "a write on an etag of the time before")
	rows, err := w.store.AuditByTrackingID(w.Context(), w.facts.Scope, w.of.AuditTracked)
	if err != nil || len(rows) < 2 {
		w.Errorf("%d audit rows of a request and its end, %v", len(rows), err)
	}
	w.logGoesOn(by)
	for _, policy := range []string{"reader", "writer"} {
		_, err := w.core.RegeneratePolicy(w.Context(), by, policy, registration.PrimaryKey)
		must(w.T, err)
	}
}

// logGoesOn looks at whether what is written now comes behind all that was there.
func (w *world) logGoesOn(by registration.Caller) {
	w.Helper()
	newest := func() (last uint64) {
		for {
			lines, err := w.store.AuditPage(w.Context(), w.facts.Scope, last, 1000)
			must(w.T, err)
			if len(lines) == 0 {
				return last
			}
			last = lines[len(lines)-1].Seq
		}
	}
	before := newest()
	_, err := w.core.PutPolicy(w.Context(), by, "new", registration.EnrollmentRead, registration.Absent)
	must(w.T, err)
	lines, err := w.store.AuditPage(w.Context(), w.facts.Scope, before, 1000)
	if err != nil || len(lines) != 1 || lines[0].Action != registration.ActionPolicyPut {
		w.Errorf("behind the newest row came %+v, %v", lines, err)
	}
}

func (w *world) refused(err error, code dps.Code, what string) {
	w.Helper()
	var fault *registration.Fault
	if !errors.As(err, &fault) || fault.Code != code {
		w.Errorf("%s: %v, want it refused with %d", what, err, code)
	}
}

// sound runs fsck.
func (w *world) sound(when string) {
	w.Helper()
	sum, err := fsck.Check(w.Context(), w.store, w.ring, func(p fsck.Problem) { w.Errorf("%s: %s", when, p) })
	if err != nil || sum.Scopes < 2 || sum.Registrations < 9 {
		w.Errorf("%s: %+v, %v", when, sum, err)
	}
}
