package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

// named is the certificate that a listener shows to who asks for a name, verified against the installation's CA.
func (r *running) named(addr, name string) (*x509.Certificate, error) {
	config := r.tls()
	config.ServerName = name
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// A tenant that is created on the running service has a certificate of its own on both listeners at once, after a reload, after a rotation of the
// master key and after a restart; the others keep theirs.
func TestANewScopeIsServedUnderItsOwnNameWithoutARestart(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	name := "plant2." + host
	if _, err := r.named(r.https, name); err == nil {
		t.Fatal("the name is served before there is such a scope")
	}
	status, body, err := r.manage(r.client(), http.MethodPost, "/latchkey/v1/scopes", []byte(`{"hosts":["`+name+`"]}`))
	must(t, err)
	var made struct{ IDScope, ConnectionString string }
	must(t, json.Unmarshal(body, &made))
	if status != http.StatusOK || !strings.HasPrefix(made.IDScope, "0lk") || !strings.Contains(made.ConnectionString, "HostName="+name+";") {
		t.Fatalf("%d %s", status, body)
	}
	serves := func(r *running) {
		t.Helper()
		for _, addr := range []string{r.https, r.mqtt} {
			own, err := r.named(addr, name)
			must(t, err)
			if len(own.DNSNames) != 1 || own.DNSNames[0] != name {
				t.Errorf("%s is shown the certificate of %q", name, own.DNSNames)
			}
			first, err := r.named(addr, host)
			must(t, err)
			if first.DNSNames[0] != host {
				t.Errorf("%s is shown the certificate of %q", host, first.DNSNames)
			}
		}
	}
	serves(r)
	r.reloaded()
	serves(r)
	r.stop()
	r = h.run(t)
	serves(r)
	status, body, err = r.manage(r.client(), http.MethodDelete, "/latchkey/v1/scopes/"+made.IDScope, nil)
	must(t, err)
	if status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	if _, err := r.named(r.https, name); err == nil {
		t.Error("the name is served after its scope was deleted")
	}
}

// The service asks for a client certificate and needs none, whatever TLS a client speaks; a connection that is resumed shows its certificate
// again, and it is judged again.
func TestClientCertificatesAreAskedForAndJudgedAtEachRequest(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "press-7"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	own := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	put := func(body string) {
		t.Helper()
		status, answer, err := r.manage(r.client(), http.MethodPut, "/enrollments/press-7?api-version=2021-10-01", []byte(body))
		must(t, err)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
	}
	put(`{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":"` + base64.StdEncoding.EncodeToString(der) + `"}}}}}`)
	register := "https://" + host + "/" + r.made.IDScope + "/registrations/press-7/register?api-version=2021-06-01"
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := r.client()
		transport := client.Transport.(*http.Transport)
		transport.TLSClientConfig.Certificates = []tls.Certificate{own}
		transport.TLSClientConfig.MinVersion, transport.TLSClientConfig.MaxVersion = version, version
		transport.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		for _, want := range []bool{false, true} { // a second connection resumes the first
			request, err := http.NewRequest(http.MethodPut, register, strings.NewReader(`{"registrationId":"press-7"}`))
			must(t, err)
			request.Header.Set("Content-Type", "application/json")
			request.Close = true
			answer, err := client.Do(request)
			must(t, err)
			answer.Body.Close()
			if answer.StatusCode != http.StatusAccepted || answer.TLS.DidResume != want {
				t.Errorf("TLS %x: status %d, resumed %t", version, answer.StatusCode, answer.TLS.DidResume)
			}
		}
		bare := r.client()
		bare.Transport.(*http.Transport).TLSClientConfig.MaxVersion = version
		if status, _, err := ask(bare, http.MethodPut, register, "", []byte(`{"registrationId":"press-7"}`)); err != nil || status != http.StatusBadRequest {
			t.Errorf("TLS %x without a certificate: %d, %v", version, status, err)
		}
		// The operator's change counts for a session that goes on.
		status, answer, err := r.manage(r.client(), http.MethodDelete, "/enrollments/press-7?api-version=2021-10-01", nil)
		must(t, err)
		if status != http.StatusNoContent {
			t.Fatalf("%d %s", status, answer)
		}
		if status, _, err := ask(client, http.MethodPut, register, "", []byte(`{"registrationId":"press-7"}`)); err != nil || status != http.StatusUnauthorized {
			t.Errorf("TLS %x, resumed after the enrollment is gone: %d, %v", version, status, err)
		}
		put(`{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":"` + base64.StdEncoding.EncodeToString(der) + `"}}}}}`)
	}
}
