package fsck_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/test/softtpm"
)

const host = "dps.example.net"

// house is an installation with a device of each mechanism and of each kind of group, registered.
type house struct {
	t     *testing.T
	path  string
	ring  *keyring.Ring
	store *sqlite.Store
	core  *registration.Core
	scope string
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, path: filepath.Join(t.TempDir(), "latchkey.db")}
	var err error
	h.ring, err = keyring.Create(filepath.Join(filepath.Dir(h.path), "master.key"), time.Now())
	must(t, err)
	must(t, sqlite.Create(t.Context(), h.path, sqlite.Options{}))
	h.store, err = sqlite.Open(t.Context(), h.path, sqlite.Options{Linger: -1})
	must(t, err)
	t.Cleanup(func() { must(t, h.store.Close()) })
	made, _, err := registration.NewScope(h.ring, rand.Reader, []string{host}, time.Now())
	must(t, err)
	made.Home, h.scope = true, made.ID
	_, err = h.store.CreateScope(t.Context(), made, registration.Audit{At: time.Now(), Action: registration.ActionScopeCreate, Object: made.ID})
	must(t, err)
	hub, err := embedded.New(embedded.Config{Identities: h.store, Sealer: h.ring, Telemetry: discard{}, Names: func(string) (string, bool) { return h.scope, true }})
	must(t, err)
	t.Cleanup(func() { must(t, hub.Close(context.Background())) })
	h.core, err = registration.New(t.Context(), registration.Config{Store: h.store, Hub: hub, Sealer: h.ring, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	h.furnish()
	h.furnishCertified()
	return h
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// furnish enrolls and registers a TPM, a device with its own keys, and one of a group.
func (h *house) furnish() {
	h.t.Helper()
	by := registration.Caller{Scope: h.scope, Policy: "owner"}
	chip := softtpm.New(softtpm.ECC, 0)
	encode := base64.StdEncoding.EncodeToString
	tpm, err := dps.DecodeEnrollment("pump", []byte(`{"attestation":{"type":"tpm","tpm":{"endorsementKey":"`+encode(chip.EK.Bytes())+`"}}}`))
	must(h.t, err)
	_, err = h.core.PutEnrollment(h.t.Context(), by, tpm, "")
	must(h.t, err)
	keyed, err := dps.DecodeEnrollment("valve", []byte(`{"attestation":{"type":"symmetricKey"}}`))
	must(h.t, err)
	made, err := h.core.PutEnrollment(h.t.Context(), by, keyed, "")
	must(h.t, err)
	line, err := dps.DecodeGroup("line", []byte(`{"attestation":{"type":"symmetricKey"}}`))
	must(h.t, err)
	group, err := h.core.PutGroup(h.t.Context(), by, line, "")
	must(h.t, err)

	request := h.request("pump", nil)
	request.Body.TPM = &dps.TPMKeys{EndorsementKey: chip.EK.Bytes(), StorageRootKey: chip.SRK.Bytes()}
	challenged, err := h.core.Register(h.t.Context(), request)
	must(h.t, err)
	key, err := chip.Open(challenged.Challenge)
	must(h.t, err)
	request.Authorization = h.token("pump", key)
	h.register(request)
	h.register(h.request("valve", made.Attestation.SymmetricKey.Primary))
	h.register(h.request("member", dps.DeriveKey(group.Attestation.SymmetricKey.Primary, "member")))
}

func (h *house) token(id string, key []byte) string {
	h.t.Helper()
	token, err := dps.NewToken(dps.KeySigner(key), h.scope+"/registrations/"+id, time.Now().Add(time.Hour), dps.KeyNameRegistration)
	must(h.t, err)
	return token
}

func (h *house) request(id string, key []byte) registration.Request {
	r := registration.Request{Scope: h.scope, ID: id, Arrived: time.Now()}
	if key != nil {
		r.Authorization = h.token(id, key)
	}
	return r
}

// linkedHub links a hub to the one scope.
func linkedHub(nameKindWeight string) string {
	return "INSERT INTO linked_hubs (scope, name, kind, weight, allocate, draining, region, settings, sealed_secret, revision, created, updated) " +
		"SELECT id, " + nameKindWeight + ", 1, 0, '', x'', x'', 1, 0, 0 FROM scopes"
}

// Identities of devices at a hub that is not ours are not in our store, and those at one that was unlinked are nobody's to judge.
func TestADeviceAtAHubOfOthersIsNotLookedForHere(t *testing.T) {
	h := newHouse(t)
	h.damage("UPDATE registrations SET hub = 'far.example' WHERE folded = 'valve'; DELETE FROM identities WHERE device_id = 'valve'; " + linkedHub("'far.example', 'azure', 1"))
	if problems, _ := h.check(); len(problems) > 0 {
		t.Errorf("at an azure hub: %q", problems)
	}
	h.damage("DELETE FROM linked_hubs")
	if problems, _ := h.check(); len(problems) > 0 {
		t.Errorf("at a hub that was unlinked: %q", problems)
	}
	h.damage(linkedHub("'far.example', 'broker', 1"))
	if problems, _ := h.check(); !found(problems, "P1, .*registration valve: it is assigned, and its hub does not know") {
		t.Errorf("at a broker: %q", problems)
	}
}

// A device that the operator had removed at its hub is not lost; it is if it was put there again since.
func TestADeviceThatWasRemovedAtItsHubIsNotLost(t *testing.T) {
	h := newHouse(t)
	row := func(action string) string {
		return "INSERT INTO audit (scope, at, actor, address, action, object, outcome, reason, tracking_id, detail) " +
			"SELECT id, 1, 'service', '', '" + action + "', 'valve', 'ok', 0, '', '' FROM scopes"
	}
	h.damage("DELETE FROM identities WHERE device_id = 'valve'; " + row(registration.ActionIdentityDelete))
	if problems, _ := h.check(); len(problems) > 0 {
		t.Errorf("removed: %q", problems)
	}
	h.damage(row(registration.ActionIdentityPut))
	if problems, _ := h.check(); !found(problems, "P1, .*registration valve: it is assigned, and its hub does not know") {
		t.Errorf("put there again: %q", problems)
	}
}

func (h *house) register(r registration.Request) {
	h.t.Helper()
	_, err := h.core.Register(h.t.Context(), r)
	must(h.t, err)
}

func (h *house) check() (problems []string, sum fsck.Summary) {
	h.t.Helper()
	sum, err := fsck.Check(h.t.Context(), h.store, h.ring, func(p fsck.Problem) { problems = append(problems, p.String()) })
	must(h.t, err)
	if sum.Problems != len(problems) {
		h.t.Errorf("%d problems told, %d counted", len(problems), sum.Problems)
	}
	return problems, sum
}

// damage changes rows behind the store's back.
func (h *house) damage(sql string) {
	h.t.Helper()
	db, err := sqlite3.Open("file:" + h.path)
	must(h.t, err)
	must(h.t, db.Exec("PRAGMA busy_timeout = 5000"))
	must(h.t, db.Exec(sql))
	if db.Changes() == 0 && !strings.HasPrefix(sql, "DROP") {
		h.t.Fatalf("nothing was damaged by %s", sql)
	}
	must(h.t, db.Close())
}

func TestASoundStoreHasNoProblems(t *testing.T) {
	h := newHouse(t)
	problems, sum := h.check()
	if len(problems) > 0 || sum.Registrations != 5 || sum.Enrollments != 3 || sum.Groups != 2 || sum.CACertificates != 1 || sum.SealedValues < 20 {
		t.Errorf("%q, %+v", problems, sum)
	}
}

// Whatever breaks a promise is found, and named by it.
func TestEachBrokenPromiseIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sql, want string }{
		"a lost hub key":            {"UPDATE registrations SET sealed_hub_key = x'00' WHERE folded = 'pump'", "P1, .*registration pump: what its hub is to hold cannot be opened"},
		"swapped hub keys":          {"UPDATE registrations SET sealed_hub_key = (SELECT sealed_hub_key FROM registrations WHERE folded = 'valve') WHERE folded = 'pump'", "P1, .*registration pump"},
		"a twin of nobody":          {"INSERT INTO twins (scope, hub, device_id, tags, desired, reported, desired_metadata, reported_metadata, desired_version, reported_version, version, updated) SELECT scope, hub, 'gone', x'', x'', x'', x'', x'', 1, 1, 1, 0 FROM identities LIMIT 1", "device gone at .*: its identity is gone"},
		"messages of nobody":        {"INSERT INTO hub_queues (scope, hub, device_id, last) SELECT scope, hub, 'gone', 1 FROM identities LIMIT 1", "device gone at .*: its identity is gone"},
		"a device in two hubs":      {"INSERT INTO identities (scope, hub, device_id, sealed_key, generation, updated) SELECT scope, 'second.example', device_id, sealed_key, generation, 0 FROM identities WHERE device_id = 'valve'; " + linkedHub("'second.example', 'broker', 1"), "P2, .*device valve at second.example: it can log in there, and registration valve is assigned to"},
		"an identity of no version": {"UPDATE identities SET version = 0 WHERE device_id = 'valve'", "device valve at .*: it has no generation or no version"},
		"a device its hub forgot":   {"DELETE FROM identities WHERE device_id = 'valve'", "P1, .*registration valve: it is assigned, and its hub does not know"},
		"another mechanism":         {"UPDATE registrations SET mechanism = 'x509' WHERE folded = 'valve'", "P1, .*registration valve: its mechanism is x509"},
		"a lost owner":              {"UPDATE registrations SET srk = x'' WHERE folded = 'pump'", "P1, .*registration pump: the storage root key"},
		"an end that was undone":    {"UPDATE operations SET status = 'assigning' WHERE folded = 'member'", "P1, .*registration member: it is assigned, and its operation is assigning"},
		"an operation that is gone": {"DELETE FROM operations WHERE folded = 'pump'; UPDATE registrations SET status = 'assigning' WHERE folded = 'pump'", "P1, .*registration pump: it is assigning, and its operation is gone"},
		"one device id twice":       {"DROP INDEX registrations_by_device; UPDATE registrations SET device_id = 'pump' WHERE folded = 'valve'", "P2, .*: its device id pump at dps.example.net is"},
		"a lost audit row":          {"DROP TRIGGER audit_keeps_rows; DELETE FROM audit WHERE action = 'device.assign' AND object = 'member'", "P3, .*registration member: it is assigned, and no audit row"},
		"a redemption uncounted":    {"DELETE FROM generations WHERE folded = 'pump'", "P4, .*registration pump: its redemptions are not counted"},
		"a count turned back":       {"UPDATE generations SET generation = 1 WHERE folded = 'pump'; UPDATE operations SET generation = 2 WHERE folded = 'pump'", "P4, .*registration pump: its operation was redeemed as number 2, and only 1"},
		"another EK for devices":    {"UPDATE enrollments SET ek_key_id = zeroblob(32) WHERE folded = 'pump'", "enrollment pump: the identity of its endorsement key"},
		"an EK that is none":        {"UPDATE enrollments SET ek = x'0001' WHERE folded = 'pump'", "enrollment pump: its endorsement key is not acceptable"},
		"enabled behind the back":   {"UPDATE enrollments SET disabled = 1 WHERE folded = 'valve'", "enrollment valve: its document says something else"},
		"a document that is none":   {"UPDATE enrollments SET document = x'7b' WHERE folded = 'valve'", "enrollment valve: its document cannot be read"},
		"a lost symmetric key":      {"UPDATE enrollments SET sealed_primary = sealed_secondary WHERE folded = 'valve'", "enrollment valve: its primary key cannot be opened"},
		"a group's lost key":        {"UPDATE enrollment_groups SET sealed_secondary = x'01' WHERE folded = 'line'", "group line: its secondary key cannot be opened"},
		"an audit log that is gone": {"DROP TRIGGER audit_keeps_rows; DELETE FROM audit", "P3, .*registration member: it is assigned, and no audit row"},
		"another's operation":       {"UPDATE operations SET registration_id = 'valve' WHERE folded = 'pump'", "P2, .*registration pump: its current operation is another's"},
		"an identity that is shut":  {"UPDATE identities SET sealed_key = x'00' WHERE device_id = 'valve'", "P1, .*registration valve: what its hub holds cannot be opened"},
		"other certificates":        {"UPDATE enrollments SET certificates = zeroblob(32) WHERE folded = 'press'", "enrollment press: its document shows other certificates"},
		"a group's other CA":        {"UPDATE enrollment_groups SET certificates = zeroblob(32) WHERE folded = 'shop'", "group shop: its document shows other certificates"},
		"a group without its CA":    {"UPDATE enrollment_groups SET document = CAST(json_remove(CAST(document AS TEXT), '$.attestation.x509.signingCertificates.primary.certificate') AS BLOB) WHERE folded = 'shop'", "group shop: the certificate of its CA is missing"},
		"a CA certificate of none":  {"UPDATE ca_certificates SET der = x'3000' WHERE folded = 'root'", "CA certificate root: it cannot be read"},
		"a hub of no kind":          {linkedHub("'h.example', 'pigeon', 1"), "hub h.example: its kind \"pigeon\" is none"},
		"a hub without weight":      {linkedHub("'h.example', 'azure', 0"), "hub h.example: its weight is 0"},
		"a hub of no name":          {linkedHub("'H/x', 'azure', 1"), "hub H/x: its name is not a host name"},
		"an own hub that is not":    {linkedHub("'dps.example.net', 'azure', 1"), "hub dps.example.net: it is the scope's own hub, and linked as azure"},
		"two homes":                 {"INSERT INTO scopes (id, folded, sealed_root, created, home, certificate, sealed_certificate_key) SELECT 'x', 'x', x'', 0, 1, x'', x'' FROM scopes", "there are 2 home scopes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.damage(c.sql)
			problems, _ := h.check()
			if !found(problems, c.want) {
				t.Errorf("%q, want %s", problems, c.want)
			}
		})
	}
}

// A key that opens, and is not the one it must be, is found by comparing alone; at the hub also when the operation that put it there is pruned.
func TestAKeyThatIsAnotherIsFound(t *testing.T) {
	t.Parallel()
	otherHubKey := func(id string) func(h *house) string {
		return func(h *house) string {
			return "UPDATE operations SET sealed_hub_key = " + h.otherKey(registration.ContextHubKey(h.scope, id)) + " WHERE folded = '" + id + "'"
		}
	}
	otherIdentity := func(id, before string) func(h *house) string {
		return func(h *house) string {
			return before + "UPDATE identities SET sealed_key = " + h.otherKey(registration.ContextIdentityKey(h.scope, host, id)) + " WHERE device_id = '" + id + "'"
		}
	}
	const pruned, given, held = "DELETE FROM operations; ", "its operation gives the device another key", "its hub holds another key"
	for name, c := range map[string]struct {
		sql      func(h *house) string
		id, want string
	}{
		"an operation's":         {otherHubKey("pump"), "pump", given},
		"a TPM's hub":            {otherIdentity("pump", ""), "pump", held},
		"a TPM's hub, pruned":    {otherIdentity("pump", pruned), "pump", held},
		"a keyed one's, pruned":  {otherIdentity("valve", pruned), "valve", held},
		"a member's, pruned":     {otherIdentity("member", pruned), "member", held},
		"a certificate's":        {otherIdentity("press", ""), "press", held},
		"a certificate's pruned": {otherIdentity("press", pruned), "press", held},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.damage(c.sql(h))
			problems, _ := h.check()
			if len(problems) != 1 || !found(problems, "P1, .*registration "+c.id+": "+c.want) {
				t.Errorf("%q, want only that %s", problems, c.want)
			}
		})
	}
}

// otherKey is an SQL literal: a good credential that no device was given, sealed for that place.
func (h *house) otherKey(sealContext string) string {
	h.t.Helper()
	sealed, err := h.ring.Seal(sealContext, registration.Credential{Primary: make([]byte, 32)}.Encode())
	must(h.t, err)
	return fmt.Sprintf("x'%x'", sealed)
}

// When an operation is pruned, nothing is left that says which audit row there must be. That is what is not found.
func TestAStoreWithoutItsOperationsIsSound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.damage("DELETE FROM operations")
	if problems, sum := h.check(); len(problems) > 0 || sum.Registrations != 5 {
		t.Errorf("%q, %+v", problems, sum)
	}
}

func found(problems []string, want string) bool {
	pattern := regexp.MustCompile(want)
	return slices.ContainsFunc(problems, pattern.MatchString)
}
