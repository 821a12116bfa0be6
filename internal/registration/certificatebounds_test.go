package registration_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// renewal is the CA's key certified again under the same name.
func (ca *authority) renewal(t *testing.T, end time.Time) *authority {
	template := &x509.Certificate{SerialNumber: big.NewInt(end.Unix()), Subject: ca.certificate.Subject, NotBefore: epoch.Add(-time.Hour), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return &authority{sign(t, template, &authority{template, ca.key}, ca.key), ca.key}
}

// An operator renews his CA with the key it has and puts the new certificate beside the old one, which then expires.
func TestARenewedCALetsInWhatTheExpiredOneDoesNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "plant ca", nil)
	expired, renewed := ca.renewal(t, epoch.Add(-time.Minute)), ca.renewal(t, epoch.Add(500*time.Hour))
	_, err := w.putGroup("plant", pairBody("signingCertificates", encoded(expired.certificate), encoded(renewed.certificate), ""), "")
	w.must(err)
	w.certified("press", renewed.issue(t, "press")).assigned()
	_, err = w.putGroup("plant", pairBody("signingCertificates", encoded(expired.certificate), "", ""), "*")
	w.must(err)
	_, err = w.certified("press", renewed.issue(t, "press")).register()
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonUnknownCertificate)
}

// A CA that many groups refer to costs a stranger's certificate one signature check: those of the one other CA of its name are still made.
func TestACAOfManyGroupsIsTriedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shared, other := newCA(t, "plant ca", nil), newCA(t, "plant ca", nil)
	added, err := w.core.PutCA(w.ctx, operator, "shared", shared.certificate.Raw)
	w.must(err)
	_, err = w.core.VerifyCA(w.ctx, operator, "shared", shared.issue(t, added.Code).Raw)
	w.must(err)
	for i := range 20 {
		_, err := w.putGroup(fmt.Sprintf("line%02d", i), `{"attestation":{"type":"x509","x509":{"caReferences":{"primary":"shared"}}}}`, "")
		w.must(err)
	}
	_, err = w.putGroup("other", signingBody(other, ""), "")
	w.must(err)
	if state := w.certified("press", other.issue(t, "press")).assigned(); state.X509.EnrollmentGroupID != "other" {
		t.Errorf("assigned by %s", state.X509.EnrollmentGroupID)
	}
	if state := w.certified("pump", shared.issue(t, "pump")).assigned(); state.X509.EnrollmentGroupID != "line00" {
		t.Errorf("assigned by %s", state.X509.EnrollmentGroupID)
	}
}

func TestFewCAsMayHaveTheSameName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range registration.MaxNamesakes {
		_, err := w.putGroup(fmt.Sprintf("line%d", i), signingBody(newCA(t, "plant ca", nil), ""), "")
		w.must(err)
	}
	last := newCA(t, "plant ca", nil)
	_, err := w.putGroup("more", signingBody(last, ""), "")
	if fault := w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadGroup); !strings.Contains(fault.Detail, "CN=plant ca") {
		t.Errorf("told %q", fault.Detail)
	}
	_, err = w.putGroup("line0", signingBody(last, ""), "*") // in place of one of them
	w.must(err)
	w.certified("press", last.issue(t, "press")).assigned()
}

// All certificates of a chain may have one name. Sent in order, it costs a check each; out of order it may cost more than a request has.
func TestAChainIsFollowedWithinABoundOfSignatures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := newCA(t, "plant ca", nil)
	_, err := w.putGroup("plant", signingBody(root, ""), "")
	w.must(err)
	chain, by := []*x509.Certificate(nil), root
	for range 6 {
		by = newCA(t, "plant ca", by)
		chain = append(chain, by.certificate)
	}
	slices.Reverse(chain) // the nearest to the device first, as TLS has it
	device := by.issue(t, "press")
	w.certified("press", append([]*x509.Certificate{device}, chain...)...).assigned()
	slices.Reverse(chain)
	_, err = w.certified("press", append([]*x509.Certificate{device}, chain...)...).register()
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonUnknownCertificate)
}

// Of two common names one reader takes the first and another the last: the CA's may not be ours.
func TestACertificateHasOneCommonName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "plant ca", nil)
	_, err := w.putGroup("plant", signingBody(ca, ""), "")
	w.must(err)
	name := asn1.ObjectIdentifier{2, 5, 4, 3}
	leaf := ca.issue(t, "", func(c *x509.Certificate) {
		c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: name, Value: "press"}, {Type: name, Value: "pump"}}}
	})
	for _, id := range []string{"press", "pump"} {
		_, err := w.certified(id, leaf).register()
		w.wantFault(err, dps.CodeUnauthorized, registration.ReasonCertificateName)
	}
}

// BenchmarkStranger is what a certificate of nobody's costs, at the worst that a chain and a scope's groups can be.
func BenchmarkStranger(b *testing.B) {
	for _, size := range []int{0, registration.MaxNamesakes} {
		b.Run(fmt.Sprintf("namesakes=%d", size), func(b *testing.B) {
			w := newWorld(b)
			key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
			w.must(err)
			template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plant ca"}, NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(time.Hour),
				IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
			signed := func(by *ecdsa.PrivateKey) *x509.Certificate {
				own, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
				w.must(err)
				der, err := x509.CreateCertificate(rand.Reader, template, template, own.Public(), by)
				w.must(err)
				certificate, err := x509.ParseCertificate(der)
				w.must(err)
				return certificate
			}
			for i := range size {
				ca, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
				w.must(err)
				der, err := x509.CreateCertificate(rand.Reader, template, template, ca.Public(), ca)
				w.must(err)
				certificate, err := x509.ParseCertificate(der)
				w.must(err)
				_, err = w.putGroup(fmt.Sprintf("line%d", i), pairBody("signingCertificates", encoded(certificate), "", ""), "")
				w.must(err)
			}
			stranger := w.certified("press", signed(key), signed(key), signed(key), signed(key), signed(key), signed(key), signed(key), signed(key))
			for b.Loop() {
				if _, err := stranger.register(); err == nil {
					b.Fatal("let in")
				}
			}
		})
	}
}

// While the groups are read anew the others of the scope wait, each in a place that all scopes share: no longer than their own time.
func TestWhoWaitsForTheGroupsWaitsNoLongerThanItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.putGroup("line", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	k, token := w.keyed("pump", dps.DeriveKey(firstKey, "pump")), ""
	var waited error
	w.store.beforeNext("Groups", func() {
		ctx, cancel := context.WithTimeout(w.ctx, 50*time.Millisecond)
		defer cancel()
		_, waited = w.core.Register(ctx, k.request(token))
	})
	token = k.token(time.Hour)
	_, err = k.register(token)
	w.must(err)
	w.wantFault(waited, dps.CodeUnavailable, registration.ReasonStoreDown)
}
