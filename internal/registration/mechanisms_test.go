package registration_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// keyed is a device that signs with a symmetric key.
type keyed struct {
	*world
	scope, id string
	key       []byte
}

func (w *world) keyed(id string, key []byte) *keyed {
	return &keyed{world: w, scope: scopeOne, id: id, key: key}
}

func (k *keyed) token(life time.Duration) string {
	k.Helper()
	text, err := dps.NewToken(dps.KeySigner(k.key), k.scope+"/registrations/"+k.id, k.clock.Now().Add(life), dps.KeyNameRegistration)
	k.must(err)
	return text
}

func (k *keyed) request(token string) registration.Request {
	return registration.Request{Scope: k.scope, ID: k.id, Authorization: token, Address: "192.0.2.8:40000", Arrived: k.clock.Now(), Body: dps.RegisterRequest{RegistrationID: k.id}}
}

func (k *keyed) register(token string) (registration.Answer, error) {
	return k.core.Register(k.ctx, k.request(token))
}

// assigned plays a whole registration that must succeed.
func (k *keyed) assigned() *dps.RegistrationState {
	k.Helper()
	token := k.token(time.Hour)
	answer, err := k.register(token)
	k.must(err)
	return k.finished(k.core.Poll(k.ctx, k.request(token), answer.Status.OperationID))
}

func (w *world) finished(answer registration.Answer, err error) *dps.RegistrationState {
	w.Helper()
	w.must(err)
	if answer.Status.Status != dps.StatusAssigned || answer.Status.RegistrationState.TPM != nil {
		w.Fatalf("not assigned: %+v", answer.Status)
	}
	return answer.Status.RegistrationState
}

// put writes an individual enrollment from JSON.
func (w *world) put(id, body, ifMatch string) (dps.IndividualEnrollment, error) {
	w.Helper()
	wire, err := dps.DecodeEnrollment(id, []byte(body))
	w.must(err)
	return w.core.PutEnrollment(w.ctx, operator, wire, ifMatch)
}

// putGroup writes an enrollment group from JSON.
func (w *world) putGroup(id, body, ifMatch string) (dps.EnrollmentGroup, error) {
	w.Helper()
	wire, err := dps.DecodeGroup(id, []byte(body))
	w.must(err)
	return w.core.PutGroup(w.ctx, operator, wire, ifMatch)
}

func keysBody(primary, secondary []byte, more string) string {
	encode := base64.StdEncoding.EncodeToString
	return `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"` + encode(primary) + `","secondaryKey":"` + encode(secondary) + `"}}` + more + `}`
}

var (
	firstKey  = bytes.Repeat([]byte{1}, 32)
	secondKey = bytes.Repeat([]byte{2}, 64)
	thirdKey  = bytes.Repeat([]byte{3}, 16)
)

func TestADeviceRegistersWithEitherOfItsSymmetricKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.put("Valve-3", keysBody(firstKey, secondKey, `,"deviceId":"valve"`), "")
	w.must(err)
	for _, key := range [][]byte{firstKey, secondKey} {
		k := w.keyed("Valve-3", key)
		state := k.assigned()
		if state.DeviceID != "valve" || state.AssignedHub != hubOne || state.SymmetricKey == nil || state.SymmetricKey.EnrollmentGroupID != "" {
			t.Errorf("state %+v", state)
		}
		held := w.hub.device("valve").credential
		if !held.Equal(registration.Credential{Primary: firstKey, Secondary: secondKey}) {
			t.Error("the hub does not hold the device's two keys")
		}
		answer, err := w.core.Lookup(w.ctx, k.request(k.token(time.Hour)))
		w.must(err)
		if answer.Status.RegistrationState.Status != dps.StatusAssigned {
			t.Errorf("the lookup shows %+v", answer.Status.RegistrationState)
		}
		w.clock.advance(time.Second)
	}
	if cuts := w.hub.device("valve").cuts; cuts != 0 {
		t.Errorf("%d sessions cut though no key changed", cuts)
	}
}

func TestASymmetricKeyThatIsNotTheDevicesIsNotLetIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.put("valve", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	w.enrolled("chip")
	good := w.keyed("valve", firstKey).token(time.Hour)
	for name, c := range map[string]struct {
		id, token string
		reason    registration.Reason
	}{
		"another key":          {"valve", w.keyed("valve", thirdKey).token(time.Hour), registration.ReasonTokenSignature},
		"expired":              {"valve", w.keyed("valve", firstKey).token(-time.Hour), registration.ReasonTokenExpired},
		"another id's token":   {"valve", w.keyed("other", firstKey).token(time.Hour), registration.ReasonTokenOtherResource},
		"id of a TPM":          {"chip", w.keyed("chip", firstKey).token(time.Hour), registration.ReasonTokenSignature},
		"unknown id":           {"other", w.keyed("other", firstKey).token(time.Hour), registration.ReasonTokenSignature},
		"the stand-in's key":   {"other", w.keyed("other", make([]byte, 64)).token(time.Hour), registration.ReasonTokenSignature},
		"good token, other id": {"other", good, registration.ReasonTokenOtherResource},
	} {
		k := w.keyed(c.id, nil)
		_, err := k.register(c.token)
		w.wantFault(err, dps.CodeUnauthorized, c.reason)
		if w.snapshot(c.id).Registration != nil {
			t.Errorf("%s: registered", name)
		}
	}
}

func TestTheSameTokenAgainGetsTheSameOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.put("valve", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	k := w.keyed("valve", firstKey)
	token := k.token(time.Hour)
	first, err := k.register(token)
	w.must(err)
	again, err := k.register(token)
	w.must(err)
	if again.Status.OperationID != first.Status.OperationID {
		t.Error("a lost answer, asked for again, made another operation")
	}
	w.clock.advance(registration.OperationWindow + time.Second)
	later, err := k.register(token)
	w.must(err)
	if later.Status.OperationID == first.Status.OperationID {
		t.Error("an operation past its window was given again")
	}
}

func TestAChangedKeyIsTheOnlyOneFromThenOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.put("valve", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	old := w.keyed("valve", firstKey)
	token := old.token(time.Hour)
	answer, err := old.register(token)
	w.must(err)
	_, err = w.put("valve", keysBody(thirdKey, secondKey, ""), "*")
	w.must(err)
	polled, err := w.core.Poll(w.ctx, old.request(token), answer.Status.OperationID)
	w.must(err)
	if polled.Status.Status != dps.StatusFailed {
		t.Errorf("an operation proved with a key that was replaced is %s", polled.Status.Status)
	}
	_, err = w.core.Lookup(w.ctx, old.request(token))
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	_, err = old.register(old.token(2 * time.Hour))
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	w.keyed("valve", thirdKey).assigned()
	if !w.hub.device("valve").credential.Equal(registration.Credential{Primary: thirdKey, Secondary: secondKey}) {
		t.Error("the hub still holds the old key")
	}
}

// An SDK reads an enrollment, whose answer hides the keys, changes a member and writes it back.
func TestWhatIsReadAndWrittenBackKeepsItsKeysAndCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made, err := w.put("valve", `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"","secondaryKey":null}}}`, "")
	w.must(err)
	keys := made.Attestation.SymmetricKey
	if keys == nil || len(keys.Primary) != 64 || len(keys.Secondary) != 64 || bytes.Equal(keys.Primary, keys.Secondary) {
		t.Fatal("no keys were made")
	}
	read, err := w.core.Enrollment(w.ctx, operator, "valve")
	w.must(err)
	if read.Attestation.SymmetricKey != nil {
		t.Fatal("a read shows the keys")
	}
	read.DeviceID = "changed"
	back, err := w.put("valve", string(read.Encode()), read.ETag)
	w.must(err)
	if !bytes.Equal(back.Attestation.SymmetricKey.Primary, keys.Primary) || !bytes.Equal(back.Attestation.SymmetricKey.Secondary, keys.Secondary) {
		t.Error("writing back what was read changed the keys")
	}
	shown, err := w.core.EnrollmentAttestation(w.ctx, operator, "valve")
	w.must(err)
	if !bytes.Equal(shown.SymmetricKey.Primary, keys.Primary) {
		t.Error("the attestation mechanism shows another key")
	}
	if detail := w.lastDetail(registration.ActionEnrollmentPut); bytes.Contains([]byte(detail), []byte("keysChanged")) {
		t.Errorf("told that the keys changed: %s", detail)
	}

	ca := newCA(t, "Plant CA", nil)
	_, err = w.putGroup("plant", signingBody(ca, ""), "")
	w.must(err)
	group, err := w.core.Group(w.ctx, operator, "plant")
	w.must(err)
	_, err = w.putGroup("plant", string(group.Encode()), group.ETag)
	w.must(err)
	w.certified("press", ca.issue(t, "press")).assigned()
}

func TestADeviceRegistersWithAKeyDerivedFromItsGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.putGroup("Line-4", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	_, err = w.putGroup("line-5", keysBody(thirdKey, thirdKey, ""), "")
	w.must(err)
	for _, groupKey := range [][]byte{firstKey, secondKey} {
		state := w.keyed("Pump-1", dps.DeriveKey(groupKey, "Pump-1")).assigned()
		if state.SymmetricKey == nil || state.SymmetricKey.EnrollmentGroupID != "Line-4" || state.DeviceID != "Pump-1" {
			t.Errorf("state %+v", state)
		}
		w.clock.advance(time.Second)
	}
	w.keyed("pump-9", dps.DeriveKey(thirdKey, "pump-9")).assigned()
	held := w.hub.device("Pump-1").credential
	if !held.Equal(registration.Credential{Primary: dps.DeriveKey(firstKey, "Pump-1"), Secondary: dps.DeriveKey(secondKey, "Pump-1")}) {
		t.Error("the hub does not hold the derived keys")
	}
	for _, wrong := range [][]byte{firstKey, dps.DeriveKey(firstKey, "pump-2"), dps.DeriveKey(thirdKey, "pump-1")[:16]} {
		k := w.keyed("pump-1", wrong)
		_, err := k.register(k.token(time.Hour))
		w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	}
	page, err := w.core.QueryRegistrations(w.ctx, operator, "LINE-4", dps.Query{Collection: dps.CollectionRegistrations}, 0, "")
	w.must(err)
	if len(page.Items) != 1 || page.Items[0].RegistrationID != "Pump-1" || page.Items[0].Status != dps.StatusAssigned {
		t.Errorf("registrations of the group: %+v", page.Items)
	}
}

func TestAGroupThatIsDisabledOrGoneLetsNobodyInOnAnyNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.putGroup("line", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	other := w.newCore()
	k := w.keyed("pump", dps.DeriveKey(firstKey, "pump"))
	k.assigned()
	onOther := func() (registration.Answer, error) {
		w.clock.advance(time.Second)
		return other.Register(w.ctx, k.request(k.token(time.Hour)))
	}
	_, err = onOther()
	w.must(err)
	_, err = w.putGroup("line", keysBody(firstKey, secondKey, `,"provisioningStatus":"disabled"`), "*")
	w.must(err)
	_, err = onOther()
	w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
	_, err = w.putGroup("line", keysBody(thirdKey, secondKey, ``), "*")
	w.must(err)
	_, err = onOther()
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	w.must(w.core.DeleteGroup(w.ctx, operator, "LINE", ""))
	k.key = dps.DeriveKey(thirdKey, "pump")
	_, err = onOther()
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	if w.snapshot("pump").Registration == nil {
		t.Error("the registration went with its group")
	}
}

func TestADevicesOwnEnrollmentGoesBeforeItsGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.putGroup("line", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	k := w.keyed("pump", dps.DeriveKey(firstKey, "pump"))
	token := k.token(time.Hour)
	answer, err := k.register(token)
	w.must(err)
	_, err = w.put("pump", keysBody(thirdKey, thirdKey, `,"provisioningStatus":"disabled"`), "")
	w.must(err)
	polled, err := w.core.Poll(w.ctx, k.request(token), answer.Status.OperationID)
	w.must(err)
	if polled.Status.Status != dps.StatusFailed {
		t.Errorf("the group's operation is %s though the device has an enrollment of its own", polled.Status.Status)
	}
	_, err = k.register(k.token(2 * time.Hour))
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonTokenSignature)
	own := w.keyed("pump", thirdKey)
	_, err = own.register(own.token(time.Hour))
	w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
	w.must(w.core.DeleteEnrollment(w.ctx, operator, "pump", ""))
	k.assigned()
}

// certified is a device with a client certificate.
type certified struct {
	*world
	id    string
	chain []*x509.Certificate
}

func (w *world) certified(id string, chain ...*x509.Certificate) *certified {
	return &certified{world: w, id: id, chain: chain}
}

func (c *certified) request() registration.Request {
	return registration.Request{Scope: scopeOne, ID: c.id, Address: "192.0.2.9:40000", Arrived: c.clock.Now(), Body: dps.RegisterRequest{RegistrationID: c.id}, Certificates: c.chain}
}

func (c *certified) register() (registration.Answer, error) {
	return c.core.Register(c.ctx, c.request())
}

func (c *certified) assigned() *dps.RegistrationState {
	c.Helper()
	answer, err := c.register()
	c.must(err)
	return c.finished(c.core.Poll(c.ctx, c.request(), answer.Status.OperationID))
}

// authority is a CA of a test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newCA(t testing.TB, name string, parent *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &authority{key: key}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	signer := parent
	if parent == nil {
		signer = &authority{template, key}
	}
	ca.certificate = sign(t, template, signer, key)
	return ca
}

func sign(t testing.TB, template *x509.Certificate, by *authority, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by.certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// issue makes a device's certificate, with some of it changed.
func (ca *authority) issue(t testing.TB, name string, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(100 * time.Hour)}
	for _, change := range change {
		change(template)
	}
	return sign(t, template, ca, key)
}

func pairBody(member, primary, secondary, more string) string {
	pair := map[string]any{"primary": map[string]string{"certificate": primary}}
	if secondary != "" {
		pair["secondary"] = map[string]string{"certificate": secondary}
	}
	text, err := json.Marshal(map[string]any{"type": "x509", "x509": map[string]any{member: pair}})
	if err != nil {
		panic(err)
	}
	return `{"attestation":` + string(text) + more + `}`
}

func encoded(certificate *x509.Certificate) string {
	if certificate == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(certificate.Raw)
}

func signingBody(ca *authority, more string) string {
	return pairBody("signingCertificates", encoded(ca.certificate), "", more)
}

func clientBody(primary, secondary *x509.Certificate, more string) string {
	return pairBody("clientCertificates", encoded(primary), encoded(secondary), more)
}

func TestADeviceRegistersWithEitherOfItsCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "nobody's CA", nil)
	first, second, third := ca.issue(t, "press-7"), ca.issue(t, "press-7"), ca.issue(t, "press-7")
	_, err := w.put("Press-7", clientBody(first, second, ""), "")
	w.must(err)
	for _, certificate := range []*x509.Certificate{first, second} {
		d := w.certified("Press-7", certificate)
		state := d.assigned()
		if state.X509 == nil || state.X509.EnrollmentGroupID != "" || state.X509.Certificate == nil || state.X509.Certificate.SubjectName != "CN=press-7" {
			t.Errorf("state %+v", state.X509)
		}
		sum := sha256.Sum256(certificate.Raw)
		if !w.hub.device("Press-7").credential.Equal(registration.Credential{Certificate: sum[:]}) {
			t.Error("the hub does not hold the certificate that was shown")
		}
	}
	_, err = w.certified("Press-7", third).register()
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonOtherCertificate)
	if row := w.snapshot("press-7").Operation; row == nil || row.SealedKey != nil || row.Mechanism != registration.X509 {
		t.Errorf("operation %+v", row)
	}
}

// Entries that move in from a service that never shows certificates are known by thumbprint alone.
func TestAThumbprintIsEnoughOfAClientCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	certificate := newCA(t, "nobody's CA", nil).issue(t, "press")
	parsed, err := dps.ParseCertificate(certificate.Raw)
	w.must(err)
	_, err = w.put("press", `{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"info":{"sha256Thumbprint":"`+parsed.Info.SHA256Thumbprint+`"}}}}}}`, "")
	w.must(err)
	w.certified("press", certificate).assigned()
}

func TestCertificatesThatAreNotLetIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca, other := newCA(t, "Plant CA", nil), newCA(t, "Plant CA", nil)
	old := ca.issue(t, "own", func(c *x509.Certificate) { c.NotAfter = epoch.Add(-time.Minute) })
	_, err := w.put("own", clientBody(old, nil, ""), "")
	w.must(err)
	early := ca.issue(t, "early", func(c *x509.Certificate) { c.NotBefore = epoch.Add(time.Hour) })
	_, err = w.put("early", clientBody(early, nil, ""), "")
	w.must(err)
	w.enrolled("chip")
	_, err = w.putGroup("plant", signingBody(ca, ""), "")
	w.must(err)
	server := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	for name, c := range map[string]struct {
		id          string
		certificate *x509.Certificate
		reason      registration.Reason
	}{
		"of another CA with the same name": {"press", other.issue(t, "press"), registration.ReasonUnknownCertificate},
		"with another name":                {"press", ca.issue(t, "press-2"), registration.ReasonCertificateName},
		"without a name":                   {"press", ca.issue(t, ""), registration.ReasonCertificateName},
		"that has ended":                   {"press", ca.issue(t, "press", func(c *x509.Certificate) { c.NotAfter = epoch.Add(-time.Second) }), registration.ReasonUnknownCertificate},
		"that has not begun":               {"press", ca.issue(t, "press", func(c *x509.Certificate) { c.NotBefore = epoch.Add(time.Hour) }), registration.ReasonUnknownCertificate},
		"of a server":                      {"press", ca.issue(t, "press", server), registration.ReasonUnknownCertificate},
		"enrolled, but ended":              {"own", old, registration.ReasonCertificateTime},
		"enrolled, but not begun":          {"early", early, registration.ReasonCertificateTime},
		"for the id of a TPM":              {"chip", ca.issue(t, "chip"), registration.ReasonOtherMechanism},
	} {
		d := w.certified(c.id, c.certificate)
		_, err := d.register()
		fault := w.wantFault(err, dps.CodeUnauthorized, c.reason)
		if fault.Detail != "" {
			t.Errorf("%s: a stranger is told %q", name, fault.Detail)
		}
	}
	w.certified("press", ca.issue(t, "press")).assigned()
}

func TestTheNearestCADecides(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := newCA(t, "Root", nil)
	plant := newCA(t, "Plant", root)
	leaf := plant.issue(t, "press")
	_, err := w.putGroup("root", signingBody(root, ""), "")
	w.must(err)
	d := w.certified("press", leaf, plant.certificate)
	if state := d.assigned(); state.X509.EnrollmentGroupID != "root" {
		t.Errorf("group %q", state.X509.EnrollmentGroupID)
	}
	_, err = w.certified("press", leaf).register()
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonUnknownCertificate) // without the certificate between, nobody can tell

	_, err = w.putGroup("plant", signingBody(plant, ""), "")
	w.must(err)
	if state := d.assigned(); state.X509.EnrollmentGroupID != "plant" {
		t.Errorf("group %q", state.X509.EnrollmentGroupID)
	}
	_, err = w.putGroup("plant", signingBody(plant, `,"provisioningStatus":"disabled"`), "*")
	w.must(err)
	_, err = d.register()
	w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
	w.must(w.core.DeleteGroup(w.ctx, operator, "plant", ""))
	if state := d.assigned(); state.X509.EnrollmentGroupID != "root" {
		t.Errorf("group %q", state.X509.EnrollmentGroupID)
	}
}

func TestAChainThatIsTooLongIsNotLookedAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "CA", nil)
	_, err := w.putGroup("group", signingBody(ca, ""), "")
	w.must(err)
	chain := []*x509.Certificate{ca.issue(t, "press")}
	w.certified("press", chain...).assigned()
	for range 8 {
		chain = append(chain, ca.certificate)
	}
	_, err = w.certified("press", chain...).register()
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonUnknownCertificate)
}

func TestOnlyTheCertificateThatProvedItPollsAnOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "CA", nil)
	_, err := w.putGroup("group", signingBody(ca, ""), "")
	w.must(err)
	d := w.certified("press", ca.issue(t, "press"))
	answer, err := d.register()
	w.must(err)
	operation := answer.Status.OperationID
	_, err = w.core.Poll(w.ctx, w.certified("press", ca.issue(t, "press")).request(), operation)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonOtherCertificate)
	k := w.keyed("press", firstKey)
	_, err = w.core.Poll(w.ctx, k.request(k.token(time.Hour)), operation)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonOtherMechanism)
	bare := w.certified("press")
	_, err = w.core.Poll(w.ctx, bare.request(), operation)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonBadToken)
	w.finished(w.core.Poll(w.ctx, d.request(), operation))
}

func TestACertificateBelongsToOneEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "CA", nil)
	leaf := ca.issue(t, "press")
	_, err := w.put("press", clientBody(leaf, nil, ""), "")
	w.must(err)
	_, err = w.put("other", clientBody(leaf, nil, ""), "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonCertificateTaken)
	_, err = w.put("press", clientBody(leaf, leaf, `,"deviceId":"p"`), "*")
	w.must(err)
	_, err = w.putGroup("one", signingBody(ca, ""), "")
	w.must(err)
	_, err = w.putGroup("two", signingBody(ca, ""), "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonCertificateTaken)
	w.must(w.core.DeleteGroup(w.ctx, operator, "one", ""))
	_, err = w.putGroup("two", signingBody(ca, ""), "")
	w.must(err)
}

func TestAGroupMayNameACAOnceItsKeyWasShownToBeHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca, other := newCA(t, "Plant CA", nil), newCA(t, "Other CA", nil)
	group := `{"attestation":{"type":"x509","x509":{"caReferences":{"primary":"Plant"}}}}`
	_, err := w.putGroup("plant", group, "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadGroup)
	added, err := w.core.PutCA(w.ctx, operator, "plant", ca.certificate.Raw)
	w.must(err)
	_, err = w.core.PutCA(w.ctx, operator, "PLANT", ca.certificate.Raw)
	w.wantFault(err, dps.CodeCAExists, registration.ReasonCAExists)
	_, err = w.putGroup("plant", group, "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadGroup) // not verified
	if len(added.Code) != 32 || added.Verified {
		t.Fatalf("added %+v", added)
	}
	for name, proof := range map[string]*x509.Certificate{
		"another code": ca.issue(t, "0123"), "another CA": other.issue(t, added.Code), "the CA itself": ca.certificate,
	} {
		_, err := w.core.VerifyCA(w.ctx, operator, "plant", proof.Raw)
		fault := w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadCA)
		if fault.Detail == "" {
			t.Errorf("%s: not told why", name)
		}
	}
	verified, err := w.core.VerifyCA(w.ctx, operator, "Plant", ca.issue(t, added.Code).Raw)
	w.must(err)
	if !verified.Verified || verified.Code != "" {
		t.Errorf("verified %+v", verified)
	}
	_, err = w.putGroup("plant", group, "")
	w.must(err)
	w.certified("press", ca.issue(t, "press")).assigned()
	w.wantFault(w.core.DeleteCA(w.ctx, operator, "plant"), dps.CodeCAInUse, registration.ReasonCAInUse)
	w.must(w.core.DeleteGroup(w.ctx, operator, "plant", ""))
	w.must(w.core.DeleteCA(w.ctx, operator, "plant"))
	w.wantFault(w.core.DeleteCA(w.ctx, operator, "plant"), dps.CodeCANotFound, registration.ReasonCAMissing)
}

func TestGroupsThatCouldLetNobodyInAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "CA", nil)
	leaf := ca.issue(t, "leaf")
	parsed, err := dps.ParseCertificate(ca.certificate.Raw)
	w.must(err)
	for name, body := range map[string]string{
		"a leaf as CA":      pairBody("signingCertificates", encoded(leaf), "", ""),
		"a thumbprint only": `{"attestation":{"type":"x509","x509":{"signingCertificates":{"primary":{"info":{"sha256Thumbprint":"` + parsed.Info.SHA256Thumbprint + `"}}}}}}`,
		"a foreign hub":     keysBody(firstKey, secondKey, `,"allocationPolicy":"static","iotHubs":["else.example"]`),
	} {
		_, err := w.putGroup("g", body, "")
		if fault := w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadGroup); fault.Detail == "" {
			t.Errorf("%s: not told why", name)
		}
	}
	_, err = w.core.Group(w.ctx, operator, "g")
	w.wantFault(err, dps.CodeGroupNotFound, registration.ReasonGroupMissing)
}

func TestAChangedMindAboutTheMechanismCountsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("mixed", softtpm.ECC, 0)
	d.enroll("", nil)
	d.register()
	_, err := w.put("mixed", keysBody(firstKey, secondKey, ""), "*")
	w.must(err)
	_, err = w.core.Register(w.ctx, d.request(""))
	w.wantFault(err, dps.CodeNotEnrolled, registration.ReasonOtherMechanism)
	w.keyed("mixed", firstKey).assigned()
	if row := w.snapshot("mixed").Registration; row.SRK != nil || row.EKKeyID != [32]byte{} {
		t.Error("the registration still knows the TPM")
	}
	d.enroll("*", nil)
	d.register()
	d.wantSound("mixed")
}
