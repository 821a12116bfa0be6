// Command make makes the test data of release 0.1.0 with that release's own code. It lies in testdata because it is compiled in a checkout of
// that release alone; make.sh does that.
package main

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/test/pgserver"
	"latchkey.example/latchkey/test/softtpm"
	"latchkey.example/latchkey/test/upgrade/reading"
)

// Names of the two scopes.
const (
	host, otherHost, goneHost = "dps.example.net", "plant.example.net", "gone.example.net"
)

// Facts are what the test must know to go on as the devices and operators of the installation.
type Facts struct {
	Release  string
	Scope    string
	OwnerKey []byte // of the home scope
	SQLite   StoreFacts
	Postgres StoreFacts
}

// StoreFacts are those that differ by store.
type StoreFacts struct {
	End          time.Time // what the clock said at the end
	Other, Gone  string    // scopes
	Token        string    // that "Pump-1" was accepted with last
	Operation    string    // that it may poll until ten minutes after End
	Assigning    string    // operation of "stuck", which the hub has not answered
	StuckToken   string
	ETag         string // of the enrollment "valve"
	DeviceChain  []byte // DER of the certificate of "press", under the group "plant"
	DeletedIDs   []string
	AuditTracked string // a tracking id with audit rows
}

func main() {
	if len(os.Args) != 2 {
		fail(errors.New("usage: make DIR"))
	}
	out, err := filepath.Abs(os.Args[1])
	fail(err)
	work, err := os.MkdirTemp("", "latchkey-make")
	fail(err)
	defer os.RemoveAll(work)
	ctx := context.Background()

	dir := filepath.Join(work, "data")
	_, err = daemon.Init(ctx, dir, []string{host})
	fail(err)
	cfg, err := config.Load(dir, "", func(string) string { return "" }, nil)
	fail(err)
	for _, suffix := range []string{"", "-wal", "-shm", ".volatile", ".volatile-wal", ".volatile-shm"} {
		os.Remove(cfg.Database + suffix) // the scope is to be older than today
	}
	ring, err := keyring.Open(cfg.MasterKey)
	fail(err)
	begin := time.Now().UTC().Truncate(time.Second).AddDate(0, 0, -100)
	scope, primary, err := registration.NewScope(ring, rand.Reader, []string{host}, begin)
	fail(err)
	scope.Home = true
	facts := Facts{Release: "0.1.0", Scope: scope.ID, OwnerKey: primary}

	fail(sqlite.Create(ctx, cfg.Database, sqlite.Options{}))
	lite, err := sqlite.Open(ctx, cfg.Database, sqlite.Options{})
	fail(err)
	facts.SQLite = write(ctx, work, lite, scope, primary, ring, begin)
	keep(out, "sqlite", read(ctx, lite, facts.SQLite))
	fail(lite.Close())
	fail(zipped(filepath.Join(out, "sqlite.tar.gz"), func(w io.Writer) error {
		_, err := daemon.Backup(ctx, cfg, daemon.BackupPlan{Dir: dir, MasterKey: true}, w)
		return err
	}))

	server, err := pgserver.Start()
	fail(err)
	defer server.Stop()
	fail(postgres.Create(ctx, server.Address("postgres")))
	pg, err := postgres.Open(ctx, server.Address("postgres"), postgres.Options{})
	fail(err)
	facts.Postgres = write(ctx, work, pg, scope, primary, ring, begin)
	keep(out, "postgres", read(ctx, pg, facts.Postgres))
	fail(pg.Close())
	dump, err := server.Dump("postgres")
	fail(err)
	fail(zipped(filepath.Join(out, "postgres.sql.gz"), func(w io.Writer) error { _, err := w.Write(dump); return err }))

	text, err := json.MarshalIndent(facts, "", " ")
	fail(err)
	fail(os.WriteFile(filepath.Join(out, "facts.json"), append(text, '\n'), 0o644))
}

func fail(err error) {
	if err != nil {
		panic(err)
	}
}

func zipped(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	packed, err := gzip.NewWriterLevel(file, gzip.BestCompression)
	if err != nil {
		return err
	}
	return errors.Join(write(packed), packed.Close(), file.Close())
}

func read(ctx context.Context, store reading.Store, facts StoreFacts) reading.Reading {
	r, err := reading.Of(ctx, store, []string{facts.Gone}, facts.DeletedIDs)
	fail(err)
	return r
}

func keep(out, name string, r reading.Reading) {
	fail(zipped(filepath.Join(out, name+".reading.json.gz"), func(w io.Writer) error { _, err := w.Write(r.JSON()); return err }))
}

// store is what the service needs.
type store interface {
	reading.Store
	embedded.Identities
}

// hub is the embedded hub, which is down when it is told to be.
type hub struct {
	*embedded.Hub
	down bool
}

func (h *hub) EnsureDevice(ctx context.Context, scope, name string, device registration.HubDevice) error {
	if h.down {
		return errors.New("the hub is down")
	}
	return h.Hub.EnsureDevice(ctx, scope, name, device)
}

// world is a service on a store, with a clock of its own.
type world struct {
	ctx   context.Context
	core  *registration.Core
	hub   *hub
	now   time.Time
	scope string
	by    registration.Caller
}

// tick lets a second pass: no two things happen at the same time.
func (w *world) tick() time.Time {
	w.now = w.now.Add(time.Second)
	return w.now
}

// write fills a store.
func write(ctx context.Context, work string, kept store, scope registration.Scope, owner []byte, ring *keyring.Ring, begin time.Time) (facts StoreFacts) {
	verdict, err := kept.CreateScope(ctx, scope, registration.Audit{At: begin, Actor: registration.ActorLocal, Action: registration.ActionScopeCreate,
		Object: scope.ID, Outcome: registration.OutcomeOK, Reason: registration.ReasonChanged})
	fail(err)
	if verdict != registration.Applied {
		panic(verdict)
	}
	w := &world{ctx: ctx, now: begin, scope: scope.ID}
	lines, err := embedded.OpenLineFile(filepath.Join(work, "telemetry"))
	fail(err)
	defer lines.Close()
	quiet := slog.New(slog.DiscardHandler)
	inner, err := embedded.New(embedded.Config{Identities: kept, Sealer: ring, Telemetry: lines, Logger: quiet, Now: func() time.Time { return w.now },
		Names: func(name string) (string, bool) { return w.core.HubScope(name) }})
	fail(err)
	defer inner.Close(ctx)
	w.hub = &hub{Hub: inner}
	w.core, err = registration.New(ctx, registration.Config{Store: kept, Hub: w.hub, Sealer: ring, Issuer: issuer{}, Logger: quiet, Now: func() time.Time { return w.now }})
	fail(err)
	w.authorize(host, owner)

	w.older(&facts)
	// A hundred days later what was is pruned, and the first rows of the log with it.
	w.now = w.now.AddDate(0, 0, 100)
	w.authorize(host, owner)
	w.core.KeepAudit(99 * 24 * time.Hour)
	w.tick()
	fail(w.core.Maintain(ctx))
	w.newer(&facts)
	facts.End = w.now
	return facts
}

// authorize signs in as the owner.
func (w *world) authorize(host string, key []byte) {
	token, err := dps.NewToken(dps.KeySigner(key), host, w.now.Add(time.Hour), registration.OwnerPolicy)
	fail(err)
	w.by, err = w.core.Authorize(host, "/", token, "198.51.100.9:443", registration.AllRights, w.now)
	fail(err)
}

// older is what is a hundred days old.
func (w *world) older(facts *StoreFacts) {
	w.policies()
	for i := range 60 {
		w.enroll(fmt.Sprintf("Fleet-%03d", i), tpmBody(softtpm.New(softtpm.ECC, 100+i), ""))
	}
	w.enroll("Pump-1", tpmBody(softtpm.New(softtpm.ECC, 1), `,"initialTwin":{"tags":{"hall":"A"}},"capabilities":{"iotEdge":false}`))
	w.enroll("pinned", tpmBody(softtpm.New(softtpm.RSA, 1), "", softtpm.New(softtpm.RSA, 1).SRK.Bytes()))
	w.tpm("Pump-1", softtpm.New(softtpm.ECC, 1))
	w.tpm("pinned", softtpm.New(softtpm.RSA, 1))
	w.enroll("left", keysBody(keyOf("left"), keyOf("left 2"), ""))
	w.keyed("left", keyOf("left"))
	w.tick()
	fail(w.core.DeleteEnrollment(w.ctx, w.by, "left", ""))

	other, err := w.core.CreateScope(w.ctx, w.by, []string{otherHost, "second." + otherHost})
	fail(err)
	gone, err := w.core.CreateScope(w.ctx, w.by, []string{goneHost})
	fail(err)
	facts.Other, facts.Gone = other.ID, gone.ID
	home, by := w.scope, w.by
	w.scope = gone.ID
	w.authorize(goneHost, gone.PrimaryKey)
	for i := range 5 {
		w.enroll(fmt.Sprintf("orphan-%d", i), keysBody(keyOf("orphan"), keyOf("orphan 2"), ""))
		w.keyed(fmt.Sprintf("orphan-%d", i), keyOf("orphan"))
	}
	w.scope = other.ID
	w.authorize(otherHost, other.PrimaryKey)
	w.enroll("Pump-1", tpmBody(softtpm.New(softtpm.ECC, 1), `,"deviceId":"same-id-other-scope"`))
	w.tpm("Pump-1", softtpm.New(softtpm.ECC, 1))
	w.scope, w.by = home, by
}

func (w *world) policies() {
	for _, name := range []string{"reader", "writer", "fired"} {
		w.tick()
		_, err := w.core.PutPolicy(w.ctx, w.by, name, registration.EnrollmentRead, registration.PresentOrAbsent)
		fail(err)
	}
	for _, slot := range []registration.KeySlot{registration.PrimaryKey, registration.SecondaryKey} {
		w.tick()
		_, err := w.core.RegeneratePolicy(w.ctx, w.by, "reader", slot)
		fail(err)
	}
	w.tick()
	_, err := w.core.PutPolicy(w.ctx, w.by, "writer", registration.EnrollmentRead|registration.EnrollmentWrite, registration.PresentOrAbsent)
	fail(err)
	fail(w.core.DeletePolicy(w.ctx, w.by, "fired"))
}

// newer is what happened lately. A scope is deleted last, so that its rows are still there.
func (w *world) newer(facts *StoreFacts) {
	valve := w.enroll("valve", keysBody(keyOf("valve"), keyOf("valve 2"), `,"deviceId":"valve-in-hall-B"`))
	facts.ETag = valve.ETag
	w.keyed("valve", keyOf("valve 2"))

	line, plant := newCA("Line CA"), newCA("Plant CA")
	meter := line.issue("meter")
	w.enroll("meter", pairBody("clientCertificates", meter, line.issue("meter")))
	w.certified("meter", meter)
	w.group("Line-4", keysBody(keyOf("line 4"), keyOf("line 4 2"), ""))
	w.keyed("Sensor-1", dps.DeriveKey(keyOf("line 4"), "Sensor-1"))
	w.group("plant", pairBody("signingCertificates", plant.certificate, nil))
	press := plant.issue("press")
	facts.DeviceChain = press.Raw
	w.certified("press", press)
	w.group("closed", keysBody(keyOf("closed"), keyOf("closed"), `,"provisioningStatus":"disabled"`))
	w.tick()
	added, err := w.core.PutCA(w.ctx, w.by, "Line", line.certificate.Raw)
	fail(err)
	_, err = w.core.PutCA(w.ctx, w.by, "unproven", plant.certificate.Raw)
	fail(err)
	w.tick()
	_, err = w.core.VerifyCA(w.ctx, w.by, "line", line.issue(added.Code).Raw)
	fail(err)
	w.group("by-name", `{"attestation":{"type":"x509","x509":{"caReferences":{"primary":"Line"}}}}`)
	w.certified("gauge", line.issue("gauge"))

	w.enroll("shut", keysBody(keyOf("shut"), keyOf("shut"), `,"provisioningStatus":"disabled"`))
	if _, err := w.core.Register(w.ctx, w.request("shut", w.token("shut", keyOf("shut")))); err == nil {
		panic("a disabled device is let in")
	}
	w.enroll("forgotten", keysBody(keyOf("forgotten"), keyOf("forgotten"), ""))
	w.keyed("forgotten", keyOf("forgotten"))
	w.tick()
	fail(w.core.DeleteRegistration(w.ctx, w.by, "forgotten", ""))
	w.enroll("left", keysBody(keyOf("left"), keyOf("left 2"), ""))
	w.keyed("left", keyOf("left"))
	w.tick()
	fail(w.core.DeleteEnrollment(w.ctx, w.by, "left", ""))
	facts.DeletedIDs = []string{"left"}

	w.hub.down = true
	for _, id := range []string{"stuck", "changed"} {
		w.enroll(id, keysBody(keyOf(id), keyOf(id), ""))
	}
	facts.StuckToken = w.token("stuck", keyOf("stuck"))
	answer, err := w.core.Register(w.ctx, w.request("stuck", facts.StuckToken))
	fail(err)
	facts.Assigning, facts.AuditTracked = answer.Status.OperationID, answer.TrackingID
	token := w.token("changed", keyOf("changed"))
	answer, err = w.core.Register(w.ctx, w.request("changed", token))
	fail(err)
	w.hub.down = false
	w.tick()
	w.put("changed", keysBody(keyOf("other"), keyOf("other"), ""), "*")
	polled, err := w.core.Poll(w.ctx, w.request("changed", token), answer.Status.OperationID)
	fail(err)
	if polled.Status.Status != dps.StatusFailed {
		panic(polled.Status.Status)
	}
	facts.Token, facts.Operation = w.tpm("Pump-1", softtpm.New(softtpm.ECC, 1))
	w.tick()
	fail(w.core.DeleteScope(w.ctx, w.by, facts.Gone))
	if _, err := w.core.Register(w.ctx, w.request("fleet-001", "")); err != nil { // an open challenge
		fail(err)
	}
}

func keyOf(name string) []byte {
	sum := sha256.Sum256([]byte("test key of " + name))
	return sum[:]
}

func (w *world) enroll(id, body string) dps.IndividualEnrollment {
	w.tick()
	return w.put(id, body, "")
}

func (w *world) put(id, body, ifMatch string) dps.IndividualEnrollment {
	wire, err := dps.DecodeEnrollment(id, []byte(body))
	fail(err)
	e, err := w.core.PutEnrollment(w.ctx, w.by, wire, ifMatch)
	fail(err)
	return e
}

func (w *world) group(id, body string) {
	w.tick()
	wire, err := dps.DecodeGroup(id, []byte(body))
	fail(err)
	_, err = w.core.PutGroup(w.ctx, w.by, wire, "")
	fail(err)
}

func (w *world) token(id string, key []byte) string {
	text, err := dps.NewToken(dps.KeySigner(key), w.scope+"/registrations/"+id, w.tick().Add(time.Hour), dps.KeyNameRegistration)
	fail(err)
	return text
}

func (w *world) request(id, token string) registration.Request {
	r := registration.Request{Scope: w.scope, ID: id, Authorization: token, Address: "192.0.2.7:40000", Arrived: w.now, Body: dps.RegisterRequest{RegistrationID: id}}
	if token == "" {
		chip := softtpm.New(softtpm.ECC, 101)
		r.Body.TPM = &dps.TPMKeys{EndorsementKey: chip.EK.Bytes(), StorageRootKey: chip.SRK.Bytes()}
	}
	return r
}

// tpm plays a registration of a chip to its end.
func (w *world) tpm(id string, chip *softtpm.TPM) (token, operation string) {
	r := w.request(id, "")
	r.Body.TPM = &dps.TPMKeys{EndorsementKey: chip.EK.Bytes(), StorageRootKey: chip.SRK.Bytes()}
	answer, err := w.core.Register(w.ctx, r)
	fail(err)
	key, err := chip.Open(answer.Challenge)
	fail(err)
	r.Authorization = w.token(id, key)
	w.finish(r)
	answer, err = w.core.Register(w.ctx, r)
	fail(err)
	return r.Authorization, answer.Status.OperationID
}

func (w *world) keyed(id string, key []byte) { w.finish(w.request(id, w.token(id, key))) }

func (w *world) certified(id string, chain ...*x509.Certificate) {
	w.tick()
	r := registration.Request{Scope: w.scope, ID: id, Address: "192.0.2.9:40000", Arrived: w.now, Body: dps.RegisterRequest{RegistrationID: id}, Certificates: chain}
	w.finish(r)
}

// finish sends a proof and polls.
func (w *world) finish(r registration.Request) {
	answer, err := w.core.Register(w.ctx, r)
	fail(err)
	r.Body, r.Arrived = dps.RegisterRequest{}, w.tick()
	polled, err := w.core.Poll(w.ctx, r, answer.Status.OperationID)
	fail(err)
	if polled.Status.Status != dps.StatusAssigned {
		panic(polled.Status.Status)
	}
}

func tpmBody(chip *softtpm.TPM, more string, srk ...[]byte) string {
	encode := base64.StdEncoding.EncodeToString
	pin := ""
	for _, srk := range srk {
		pin = `,"storageRootKey":"` + encode(srk) + `"`
	}
	return `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + encode(chip.EK.Bytes()) + `"` + pin + `}}` + more + `}`
}

func keysBody(primary, secondary []byte, more string) string {
	encode := base64.StdEncoding.EncodeToString
	return `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"` + encode(primary) + `","secondaryKey":"` + encode(secondary) + `"}}` + more + `}`
}

func pairBody(member string, primary, secondary *x509.Certificate) string {
	one := func(c *x509.Certificate) string {
		return `{"certificate":"` + base64.StdEncoding.EncodeToString(c.Raw) + `"}`
	}
	pair := `"primary":` + one(primary)
	if secondary != nil {
		pair += `,"secondary":` + one(secondary)
	}
	return `{"attestation":{"type":"x509","x509":{"` + member + `":{` + pair + `}}}}`
}

// authority is a CA.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// far is after all tests.
var far = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

func newCA(name string) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: far.AddDate(-100, 0, 0), NotAfter: far,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return &authority{signed(template, template, key, key), key}
}

func (ca *authority) issue(name string) *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: far.AddDate(-100, 0, 0), NotAfter: far}
	return signed(template, ca.certificate, key, ca.key)
}

func signed(template, by *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
	fail(err)
	certificate, err := x509.ParseCertificate(der)
	fail(err)
	return certificate
}

// issuer makes certificates of scopes that last.
type issuer struct{}

func (issuer) Check([]string) error { return nil }

func (issuer) Issue(names []string) (chain, private []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotBefore: far.AddDate(-100, 0, 0), NotAfter: far}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	fail(err)
	chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed(template, template, key, key).Raw})
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
