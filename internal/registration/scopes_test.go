package registration_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// ownIssuer issues certificates of 90 days for names below example, by the world's clock.
type ownIssuer struct {
	w      *world
	issued int
	fails  bool
	covers bool // the configured certificate has all names
	// standing: certificates end when the first one did
	standing bool
}

func (i *ownIssuer) Check(names []string) error {
	for _, name := range names {
		if !strings.HasSuffix(name, ".example") {
			return errors.New("only names below example, and " + name + " is none")
		}
	}
	return nil
}

func (i *ownIssuer) Issue(names []string) (chain, key []byte, err error) {
	if i.fails {
		return nil, nil, errors.New("the CA's disk is full")
	}
	if i.covers || strings.HasPrefix(names[0], "covered.") {
		return nil, nil, nil
	}
	i.issued++
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	i.w.must(err)
	now := i.w.clock.Now()
	end := now.Add(90 * 24 * time.Hour)
	if i.standing {
		end = epoch.Add(90 * 24 * time.Hour)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(i.issued)), DNSNames: names, NotBefore: now, NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	i.w.must(err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	i.w.must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), nil
}

func (w *world) newScope(hosts ...string) registration.ScopeCreated {
	w.Helper()
	made, err := w.core.CreateScope(w.ctx, operator, hosts)
	w.must(err)
	return made
}

func TestANewScopeServesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.newScope("plant2.example", "also.plant2.example")
	if len(made.PrimaryKey) != 32 || made.Home || !strings.HasPrefix(made.ID, "0lk") || !made.CertificateEnd.Equal(epoch.Add(90*24*time.Hour)) {
		t.Errorf("made %+v", made.ScopeShown)
	}
	for _, name := range made.Hosts {
		if c := w.core.Certificate(strings.ToUpper(name)); c == nil || c.Leaf.VerifyHostname(name) != nil {
			t.Errorf("no certificate for %s", name)
		}
	}
	if w.core.Certificate(hubOne) != nil || w.core.Certificate("nobody.example") != nil {
		t.Error("a certificate for a name that has none of its own")
	}
	theirs, err := w.core.Authorize(w.ctx, "plant2.example", "/enrollments/x", w.serviceToken(made.PrimaryKey, "plant2.example", made.Policy, time.Hour), "", registration.AllRights, w.clock.Now())
	w.must(err)
	d := w.device("Pump", softtpm.ECC, 0)
	d.scope = made.ID
	_, err = w.core.PutEnrollment(w.ctx, theirs, d.wire(nil), "")
	w.must(err)
	key := d.challenge()
	answer, err := d.prove(d.token(key, time.Hour))
	w.must(err)
	answer, err = d.poll(answer.Status.OperationID, d.token(key, time.Hour))
	w.must(err)
	if answer.Status.RegistrationState.AssignedHub != "plant2.example" {
		t.Errorf("assigned to %s", answer.Status.RegistrationState.AssignedHub)
	}
	if hub, ok := w.core.HubScope("plant2.example"); !ok || hub != made.ID {
		t.Error("its hub has no scope")
	}
	// It is there after a restart, with its certificate.
	again := w.newCore()
	if again.HostScope("plant2.example") != made.ID || again.Certificate("plant2.example") == nil {
		t.Error("gone after a restart")
	}
}

func TestScopesAreManagedFromHomeOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stranger := registration.Caller{Scope: scopeTwo, Policy: "owner", TrackingID: "strange"}
	_, err := w.core.Scopes(stranger)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonNotHome)
	_, err = w.core.ScopeNamed(stranger, scopeTwo)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonNotHome)
	_, err = w.core.CreateScope(w.ctx, stranger, []string{"a.example"})
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonNotHome)
	w.wantFault(w.core.DeleteScope(w.ctx, stranger, scopeTwo), dps.CodeUnauthorized, registration.ReasonNotHome)
	list, err := w.core.Scopes(operator)
	w.must(err)
	if len(list) != 2 || list[0].ID != scopeOne || !list[0].Home || list[1].Home || len(list[0].Hosts) != 2 {
		t.Errorf("listed %+v", list)
	}
}

func TestScopesThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	many := make([]string, 11)
	for i := range many {
		many[i] = string(rune('a'+i)) + ".example"
	}
	for name, c := range map[string]struct {
		hosts  []string
		code   dps.Code
		reason registration.Reason
	}{
		"no name":              {nil, dps.CodeBadRequest, registration.ReasonBadScope},
		"too many names":       {many, dps.CodeBadRequest, registration.ReasonBadScope},
		"a name twice":         {[]string{"a.example", "a.example"}, dps.CodeBadRequest, registration.ReasonBadScope},
		"a name out of reach":  {[]string{"a.example.org"}, dps.CodeBadRequest, registration.ReasonBadScope},
		"another scope's name": {[]string{"a.example", "alias.one.example"}, dps.CodeScopeExists, registration.ReasonHostTaken},
		"another scope's hub":  {[]string{hubTwo}, dps.CodeScopeExists, registration.ReasonHostTaken},
	} {
		_, err := w.core.CreateScope(w.ctx, operator, c.hosts)
		w.wantFault(err, c.code, c.reason)
		if list, _ := w.core.Scopes(operator); len(list) != 2 {
			t.Errorf("%s: there are %d scopes", name, len(list))
		}
	}
	w.issuer.fails = true
	_, err := w.core.CreateScope(w.ctx, operator, []string{"a.example"})
	if fault := w.wantFault(err, dps.CodeInternal, registration.ReasonInternal); fault.Detail != "" {
		t.Errorf("told %q", fault.Detail)
	}
	w.issuer.fails = false
	if made := w.newScope("covered.example"); !made.CertificateEnd.IsZero() {
		t.Error("a certificate for names that are covered")
	}
}

func TestADeletedScopeIsAsIfItHadNeverBeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.device("Pump", softtpm.ECC, 0)
	d.scope = scopeTwo
	theirs := registration.Caller{Scope: scopeTwo, Policy: "owner", TrackingID: "theirs"}
	_, err := w.core.PutEnrollment(w.ctx, theirs, d.wire(nil), "")
	w.must(err)
	key := d.challenge()
	token := d.token(key, time.Hour)
	answer, err := d.prove(token)
	w.must(err)

	w.wantFault(w.core.DeleteScope(w.ctx, operator, scopeOne), dps.CodeBadRequest, registration.ReasonBadScope)
	w.wantFault(w.core.DeleteScope(w.ctx, operator, "0neUNKNOWN"), dps.CodeScopeNotFound, registration.ReasonScopeMissing)
	w.must(w.core.DeleteScope(w.ctx, operator, scopeTwo))
	w.wantFault(w.core.DeleteScope(w.ctx, operator, scopeTwo), dps.CodeScopeNotFound, registration.ReasonScopeMissing)
	if len(w.hub.dropped) != 1 || w.hub.dropped[0] != scopeTwo+" "+hubTwo {
		t.Errorf("dropped %q", w.hub.dropped)
	}
	_, err = w.core.Register(w.ctx, d.request(""))
	w.wantFault(err, dps.CodeNotEnrolled, registration.ReasonUnknownScope)
	_, err = w.core.Poll(w.ctx, d.request(token), answer.Status.OperationID)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonUnknownOperation)
	_, err = w.core.Authorize(w.ctx, hubTwo, "/", w.serviceToken(secret("primary "+scopeTwo+"owner"), hubTwo, "owner", time.Hour), "", registration.EnrollmentRead, w.clock.Now())
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonAdminToken)
	if _, ok := w.core.HubScope(hubTwo); ok {
		t.Error("its hub still has a scope")
	}
	w.must(w.core.Maintain(w.ctx))
	left, err := w.inner.Device(w.ctx, scopeTwo, "pump")
	w.must(err)
	if left.Enrollment != nil || left.Registration != nil || left.Generation != 0 {
		t.Errorf("left over: %+v", left)
	}
	rows, err := w.inner.AuditPage(w.ctx, scopeOne, 0, 100)
	w.must(err)
	if last := rows[len(rows)-1]; last.Action != registration.ActionScopeDelete || last.Object != scopeTwo || last.Actor != "policy:owner" {
		t.Errorf("the home scope's log ends with %+v", last)
	}
	made := w.newScope(hubTwo) // the name is free for another tenant, who sees nothing of the first
	if made.ID == scopeTwo {
		t.Error("the id was given out again")
	}
}

func TestAScopesCertificateIsRenewedInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.newScope("plant2.example")
	w.clock.advance(59 * 24 * time.Hour)
	w.must(w.core.Maintain(w.ctx))
	if w.issuer.issued != 1 {
		t.Errorf("%d certificates issued 31 days before the end", w.issuer.issued)
	}
	w.clock.advance(2 * 24 * time.Hour)
	w.issuer.fails = true
	if err := w.core.Maintain(w.ctx); err == nil || !strings.Contains(err.Error(), made.ID) {
		t.Errorf("a renewal that failed: %v", err)
	}
	w.issuer.fails = false
	w.must(w.core.Maintain(w.ctx))
	shown, err := w.core.ScopeNamed(operator, made.ID)
	w.must(err)
	if w.issuer.issued != 2 || !shown.CertificateEnd.Equal(w.clock.Now().Add(90*24*time.Hour)) || !w.core.Certificate("plant2.example").Leaf.NotAfter.Equal(shown.CertificateEnd) {
		t.Errorf("%d issued, the end is %s", w.issuer.issued, shown.CertificateEnd)
	}
	rows, err := w.inner.AuditPage(w.ctx, made.ID, 0, 100)
	w.must(err)
	if last := rows[len(rows)-1]; last.Action != registration.ActionScopeRenew || last.Actor != registration.ActorService {
		t.Errorf("the log ends with %+v", last)
	}
}

func TestAuditRowsAreKeptAsLongAsTheOperatorSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrolled("old")
	w.clock.advance(30 * 24 * time.Hour)
	w.enrolled("young")
	count := func() (n int, last registration.Audit) {
		rows, err := w.inner.AuditPage(w.ctx, scopeOne, 0, 1000)
		w.must(err)
		return len(rows), rows[len(rows)-1].Audit
	}
	before, _ := count()
	w.must(w.core.Maintain(w.ctx))
	if n, _ := count(); n != before {
		t.Error("rows went though they are to be kept for ever")
	}
	w.core.KeepAudit(7 * 24 * time.Hour)
	w.must(w.core.Maintain(w.ctx))
	n, last := count()
	if n != 2 || last.Action != registration.ActionAuditExpire {
		t.Errorf("%d rows are left, the last is %+v", n, last)
	}
	w.must(w.core.Maintain(w.ctx))
	if again, _ := count(); again != n {
		t.Error("a run with nothing to remove wrote a row")
	}
}

// Where a renewal brings nothing, it is said and not written down each minute.
func TestARenewalThatBringsNothingIsNotWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.newScope("plant2.example")
	w.clock.advance(61 * 24 * time.Hour)
	w.issuer.standing = true // the CA itself ends
	rows := func() int {
		page, err := w.inner.AuditPage(w.ctx, made.ID, 0, 100)
		w.must(err)
		return len(page)
	}
	before := rows()
	if err := w.core.Maintain(w.ctx); err == nil || !strings.Contains(err.Error(), "it ends itself") {
		t.Errorf("maintenance says %v", err)
	}
	if rows() != before {
		t.Error("a row for a renewal that was none")
	}
	w.issuer.standing, w.issuer.covers = false, true // from now on the configured certificate covers the name
	w.must(w.core.Maintain(w.ctx))
	if rows() != before+1 || w.core.Certificate("plant2.example") != nil {
		t.Error("the scope keeps a certificate that it does not need")
	}
	w.must(w.core.Maintain(w.ctx))
	if rows() != before+1 {
		t.Error("written again")
	}
}
