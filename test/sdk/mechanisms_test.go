package sdk

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
)

// authority signs certificates of devices.
type authority struct {
	t           *testing.T
	folder      string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, folder: t.TempDir()}
	a.certificate, a.key = a.make(name, nil)
	return a
}

func (a *authority) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// make makes a certificate, of a CA if nobody signs it.
func (a *authority) make(name string, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.must(err)
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	signer, signerKey := template, key
	if by != nil {
		signer, signerKey = by.certificate, by.key
	} else {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signerKey)
	a.must(err)
	certificate, err := x509.ParseCertificate(der)
	a.must(err)
	return certificate, key
}

// file writes certificates, and a key if there is one, as PEM.
func (a *authority) file(name string, key *ecdsa.PrivateKey, chain ...*x509.Certificate) string {
	a.t.Helper()
	var text []byte
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if key != nil {
		der, err := x509.MarshalECPrivateKey(key)
		a.must(err)
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...)
	}
	path := filepath.Join(a.folder, name)
	a.must(os.WriteFile(path, text, 0o600))
	return path
}

func TestNodeSDKManagesEveryMechanism(t *testing.T) {
	n := newNode(t, rig.New(t, rig.Config{}))
	ca, other := newAuthority(t, "Plant CA"), newAuthority(t, "Other CA")
	leaf, _ := ca.make("press-7", ca)
	n.run(t, "mechanisms.js", ca.file("leaf.pem", nil, leaf), ca.file("ca.pem", nil, ca.certificate), other.file("ca.pem", nil, other.certificate))
}

// Devices without a TPM, on the vendor's SDKs alone: an enrollment of its own or
// a group, a symmetric key or a certificate.
func TestNodeSDKRegistersAndSendsWithoutATPM(t *testing.T) {
	service := rig.New(t, rig.Config{})
	n := newNode(t, service)
	ca := newAuthority(t, "Plant CA")
	leaf, leafKey := ca.make("press-7", ca)
	member, memberKey := ca.make("press-8", ca)
	key := make([]byte, 32)
	rand.Read(key)
	encoded := base64.StdEncoding.EncodeToString
	put := func(path, body string) {
		t.Helper()
		if err := service.Put(t.Context(), path, body); err != nil {
			t.Fatal(err)
		}
	}
	symmetric := `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"` + encoded(key) + `"}}}`
	put("/enrollments/valve-1", symmetric)
	put("/enrollmentGroups/valves", symmetric)
	put("/enrollments/press-7", `{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":"`+encoded(leaf.Raw)+`"}}}}}`)
	put("/enrollmentGroups/presses", `{"attestation":{"type":"x509","x509":{"signingCertificates":{"primary":{"certificate":"`+encoded(ca.certificate.Raw)+`"}}}}}`)
	for _, device := range []struct{ way, id, secret string }{
		{"symmetric", "valve-1", encoded(key)},
		{"symmetric", "valve-2", encoded(dps.DeriveKey(key, "valve-2"))},
		{"x509", "press-7", ca.file("press-7.pem", leafKey, leaf)},
		{"x509", "press-8", ca.file("press-8.pem", memberKey, member)},
	} {
		assigned := runJSON[struct{ RegistrationID, AssignedHub, DeviceID, Status string }](t, n, "other.js", device.way, device.id, device.secret, service.Host, service.IDScope, `"hello"`)
		if assigned.RegistrationID != device.id || assigned.DeviceID != device.id || assigned.AssignedHub != service.Host || assigned.Status != "assigned" {
			t.Errorf("%s: %+v", device.id, assigned)
		}
	}
	messages, err := service.Telemetry()
	if err != nil {
		t.Fatal(err)
	}
	var senders []string
	for _, m := range messages {
		senders = append(senders, m.DeviceID)
	}
	if len(senders) != 4 {
		t.Errorf("the hub shows messages of %q", senders)
	}
	if result, err := n.try(t, "other.js", "symmetric", "valve-2", encoded(key), service.Host, service.IDScope, `"x"`); err == nil || result.ExitCode != 1 {
		t.Errorf("the group's own key let a device in: %v\n%s", err, result.Stdout)
	}
}
