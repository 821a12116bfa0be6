package fsck_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// signer is a certificate and its private key.
type signer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// certified makes a certificate: a CA's where by is nil, and a device's that by has signed otherwise.
func certified(t *testing.T, name string, by *signer) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true}
	if by == nil {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		by = &signer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.certificate, key.Public(), by.key)
	must(t, err)
	certificate, err := x509.ParseCertificate(der)
	must(t, err)
	return &signer{certificate, key}
}

func (s *signer) json() string {
	return `{"certificate":"` + base64.StdEncoding.EncodeToString(s.certificate.Raw) + `"}`
}

// enrollCertified enrolls a device with two certificates, either of which lets it in.
func (h *house) enrollCertified(id string) (first, second *signer) {
	h.t.Helper()
	ca := certified(h.t, id+"'s ca", nil)
	first, second = certified(h.t, id, ca), certified(h.t, id, ca)
	wire, err := dps.DecodeEnrollment(id, []byte(`{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":`+first.json()+`,"secondary":`+second.json()+`}}}}`))
	must(h.t, err)
	_, err = h.core.PutEnrollment(h.t.Context(), registration.Caller{Scope: h.scope, Policy: "owner"}, wire, "")
	must(h.t, err)
	return first, second
}

// shown is a request of a device that shows its certificate.
func (h *house) shown(id string, device *signer) registration.Request {
	r := h.request(id, nil)
	r.Certificates = []*x509.Certificate{device.certificate}
	return r
}

// furnishCertified adds a device with certificates of its own, a group of a CA with a member, and a CA certificate.
func (h *house) furnishCertified() {
	h.t.Helper()
	by := registration.Caller{Scope: h.scope, Policy: "owner"}
	press, _ := h.enrollCertified("press")
	h.register(h.shown("press", press))

	ca := certified(h.t, "plant ca", nil)
	shop, err := dps.DecodeGroup("shop", []byte(`{"attestation":{"type":"x509","x509":{"signingCertificates":{"primary":`+ca.json()+`}}}}`))
	must(h.t, err)
	_, err = h.core.PutGroup(h.t.Context(), by, shop, "")
	must(h.t, err)
	h.register(h.shown("lathe", certified(h.t, "lathe", ca)))
	_, err = h.core.PutCA(h.t.Context(), by, "root", certified(h.t, "root ca", nil).certificate.Raw)
	must(h.t, err)
}
