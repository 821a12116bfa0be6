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
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"latchkey.example/latchkey/dps"
)

// maker signs certificates of devices.
type maker struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newMaker(t *testing.T, name string) *maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	certificate, err := x509.ParseCertificate(der)
	must(t, err)
	return &maker{certificate, key}
}

// sign makes a device's certificate.
func (m *maker) sign(t *testing.T, id string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: id}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, m.certificate, key.Public(), m.key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Bodies of the management API.
func pairOf(member string, der []byte) string {
	return `"attestation":{"type":"x509","x509":{"` + member + `":{"primary":{"certificate":"` + base64.StdEncoding.EncodeToString(der) + `"}}}}`
}

func entryOf(certificate tls.Certificate, more string) string {
	return "{" + pairOf("clientCertificates", certificate.Certificate[0]) + more + "}"
}

func groupOf(m *maker, more string) string {
	return "{" + pairOf("signingCertificates", m.certificate.Raw) + more + "}"
}

const (
	entryPath = "/enrollments/press-7?api-version=2021-10-01"
	groupPath = "/enrollmentGroups/presses?api-version=2021-10-01"
)

// change asks the management API for one change that must succeed, whether what it changes is there already or not.
func (r *running) change(method, path, body string) {
	r.t.Helper()
	token, err := r.adminToken()
	must(r.t, err)
	for _, match := range []string{"", "*"} {
		request, err := http.NewRequest(method, "https://"+host+path, strings.NewReader(body))
		must(r.t, err)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", token)
		if match != "" {
			request.Header.Set("If-Match", match)
		}
		answer, err := r.client().Do(request)
		must(r.t, err)
		text, err := io.ReadAll(answer.Body)
		must(r.t, err)
		answer.Body.Close()
		if answer.StatusCode/100 == 2 {
			return
		}
		if answer.StatusCode != http.StatusConflict || match != "" {
			r.t.Fatalf("%s %s: %d %s", method, path, answer.StatusCode, text)
		}
	}
}

// forget removes what may be there.
func (r *running) forget(paths ...string) {
	r.t.Helper()
	for _, path := range paths {
		if status, answer, err := r.manage(r.client(), http.MethodDelete, path, nil); err != nil || status != http.StatusNoContent && status != http.StatusNotFound {
			r.t.Fatalf("DELETE %s: %d %s %v", path, status, answer, err)
		}
	}
}

// bearer is a device with a client certificate that keeps its TLS sessions. Each request has a connection of its own.
type bearer struct {
	*running
	config *tls.Config
	scope  string
	id     string
}

func (r *running) bearer(version uint16, certificate tls.Certificate) *bearer {
	config := r.tls()
	config.MinVersion, config.MaxVersion = version, version
	config.Certificates = []tls.Certificate{certificate}
	config.ClientSessionCache = &anySession{}
	return &bearer{r, config, r.made.IDScope, "press-7"}
}

// at is the same device with its sessions at another node.
func (b *bearer) at(r *running) *bearer {
	d := *b
	d.running = r
	return &d
}

// ask sends a request for a path of the device, and says whether the connection resumed a session.
func (b *bearer) ask(method, path string, body string) (status int, answer []byte, resumed bool) {
	b.t.Helper()
	client := b.client()
	client.Transport.(*http.Transport).TLSClientConfig = b.config
	defer client.CloseIdleConnections()
	request, err := http.NewRequest(method, "https://"+b.config.ServerName+"/"+b.scope+"/registrations/"+b.id+path+apiVersion, strings.NewReader(body))
	must(b.t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	must(b.t, err)
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	must(b.t, err)
	return response.StatusCode, answer, response.TLS.DidResume
}

// registers registers; the connection must be a resumed one, or must not.
func (b *bearer) registers(resumed bool) (status int, answer []byte) {
	b.t.Helper()
	status, answer, did := b.ask(http.MethodPut, "/register", `{"registrationId":"`+b.id+`"}`)
	if did != resumed {
		b.t.Fatalf("resumed is %v", did)
	}
	return status, answer
}

// begun registers over a first session, and once more over a resumed one: what follows is not for want of resumption.
func (b *bearer) begun() *bearer {
	b.t.Helper()
	for _, resumed := range []bool{false, true} {
		if status, answer := b.registers(resumed); status != http.StatusAccepted {
			b.t.Fatalf("resumed %v: %d %s", resumed, status, answer)
		}
	}
	return b
}

// What the operator has changed since the session began counts for the session that goes on.
func TestAResumedSessionIsJudgedByWhatIsTrueNow(t *testing.T) {
	ca, other := newMaker(t, "maker"), newMaker(t, "another maker")
	r := installed(t).run(t)
	for name, c := range map[string]struct {
		before func(r *running, certificate tls.Certificate)
		then   func(r *running, certificate tls.Certificate)
		want   int
	}{
		"nothing changed": {
			func(r *running, certificate tls.Certificate) { r.change("PUT", entryPath, entryOf(certificate, "")) },
			func(*running, tls.Certificate) {}, http.StatusAccepted,
		},
		"enrollment disabled": {
			func(r *running, certificate tls.Certificate) { r.change("PUT", entryPath, entryOf(certificate, "")) },
			func(r *running, certificate tls.Certificate) {
				r.change("PUT", entryPath, entryOf(certificate, `,"provisioningStatus":"disabled"`))
			}, http.StatusForbidden,
		},
		"enrollment with another certificate": {
			func(r *running, certificate tls.Certificate) { r.change("PUT", entryPath, entryOf(certificate, "")) },
			func(r *running, _ tls.Certificate) {
				r.change("PUT", entryPath, entryOf(ca.sign(r.t, "press-7"), ""))
			}, http.StatusUnauthorized,
		},
		"enrollment of another mechanism": {
			func(r *running, certificate tls.Certificate) { r.change("PUT", entryPath, entryOf(certificate, "")) },
			func(r *running, _ tls.Certificate) {
				r.change("PUT", entryPath, `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"`+strings.Repeat("A", 43)+`=","secondaryKey":"`+strings.Repeat("B", 42)+`A="}}}`)
			}, http.StatusUnauthorized,
		},
		"enrollment removed": {
			func(r *running, certificate tls.Certificate) { r.change("PUT", entryPath, entryOf(certificate, "")) },
			func(r *running, _ tls.Certificate) { r.change("DELETE", entryPath, "") }, http.StatusUnauthorized,
		},
		"the group's CA replaced": {
			func(r *running, _ tls.Certificate) { r.change("PUT", groupPath, groupOf(ca, "")) },
			func(r *running, _ tls.Certificate) { r.change("PUT", groupPath, groupOf(other, "")) }, http.StatusUnauthorized,
		},
		"group disabled": {
			func(r *running, _ tls.Certificate) { r.change("PUT", groupPath, groupOf(ca, "")) },
			func(r *running, _ tls.Certificate) {
				r.change("PUT", groupPath, groupOf(ca, `,"provisioningStatus":"disabled"`))
			}, http.StatusForbidden,
		},
		"group removed": {
			func(r *running, _ tls.Certificate) { r.change("PUT", groupPath, groupOf(ca, "")) },
			func(r *running, _ tls.Certificate) { r.change("DELETE", groupPath, "") }, http.StatusUnauthorized,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r.forget(entryPath, groupPath)
			for _, version := range versions {
				certificate := ca.sign(t, "press-7")
				c.before(r, certificate)
				device := r.bearer(version, certificate).begun()
				c.then(r, certificate)
				if status, answer := device.registers(true); status != c.want {
					t.Errorf("TLS %x: %d %s", version, status, answer)
				}
				if status, answer, resumed := device.ask(http.MethodPost, "", `{"registrationId":"press-7"}`); !resumed || status == http.StatusOK != (c.want == http.StatusAccepted) {
					t.Errorf("TLS %x, status lookup: %d %s", version, status, answer)
				}
			}
		})
	}
}

// The poll of an operation is judged anew too: the first connection proves, the second polls.
func TestAPollOverAResumedSessionIsJudged(t *testing.T) {
	ca := newMaker(t, "maker")
	r := installed(t).run(t)
	for _, version := range versions {
		r.change("PUT", groupPath, groupOf(ca, ""))
		device := r.bearer(version, ca.sign(t, "press-7"))
		_, answer := device.registers(false)
		accepted, err := dps.DecodeOperationStatus(answer)
		must(t, err)
		if status, answer, resumed := device.ask(http.MethodGet, "/operations/"+accepted.OperationID, ""); status != http.StatusOK || !resumed {
			t.Errorf("TLS %x: %d %s", version, status, answer)
		}
		// A session with another certificate does not poll it.
		thief := r.bearer(version, ca.sign(t, "press-7"))
		for _, want := range []bool{false, true} {
			if status, answer, resumed := thief.ask(http.MethodGet, "/operations/"+accepted.OperationID, ""); status != http.StatusUnauthorized || resumed != want {
				t.Errorf("TLS %x, another certificate: %d %s", version, status, answer)
			}
		}
		r.change("PUT", groupPath, groupOf(ca, `,"provisioningStatus":"disabled"`))
		if status, answer, resumed := device.ask(http.MethodGet, "/operations/"+accepted.OperationID, ""); status != http.StatusForbidden || !resumed {
			t.Errorf("TLS %x, group disabled: %d %s", version, status, answer)
		}
	}
}

// until asks again and again until the certificate has ended, and for a while after: each answer fits the time at which it was given.
func until(t *testing.T, end time.Time, taken func() bool) {
	t.Helper()
	before, after := 0, 0
	for after < 5 {
		asked := time.Now()
		took := taken()
		switch {
		case took && asked.After(end):
			t.Fatal("taken after the certificate's end")
		case !took && time.Now().Before(end):
			t.Fatal("refused before the certificate's end")
		case took:
			before++
		case asked.After(end):
			after++
		}
	}
	if before == 0 {
		t.Error("it was never taken")
	}
}

// A session outlives no certificate: none that is resumed, no connection that stays open, no login at the hub.
func TestACertificateThatEndsMeanwhileIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for a certificate to end")
	}
	for _, version := range versions {
		for what, judged := range map[string]func(b *bearer, end time.Time){"HTTPS": judgedByHTTPS, "hub": judgedByHub} {
			t.Run(what+", "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				r := installed(t).run(t)
				end := time.Now().Add(5 * time.Second).Truncate(time.Second)
				certificate := own(t, "press-7", time.Now().Add(-time.Hour), end)
				r.change("PUT", entryPath, entryOf(certificate, ""))
				judged(r.bearer(version, certificate).begun(), end)
			})
		}
	}
}

func judgedByHTTPS(b *bearer, end time.Time) {
	open := b.client()
	open.Transport.(*http.Transport).TLSClientConfig = b.config.Clone()
	kept := func() int {
		status, _, err := ask(open, http.MethodPut, "https://"+host+"/"+b.scope+"/registrations/press-7/register"+apiVersion, "", []byte(`{"registrationId":"press-7"}`))
		must(b.t, err)
		return status
	}
	until(b.t, end, func() bool {
		open := kept()
		status, _, _ := b.ask(http.MethodPut, "/register", `{"registrationId":"press-7"}`)
		if open != status && time.Now().Before(end) {
			b.t.Errorf("the open connection got %d, the resumed one %d", open, status)
		}
		return status == http.StatusAccepted
	})
	if status := kept(); status != http.StatusUnauthorized {
		b.t.Errorf("the open connection goes on: %d", status)
	}
}

func judgedByHub(b *bearer, end time.Time) {
	device := b.running.bearer(b.config.MinVersion, b.config.Certificates[0])
	until(b.t, end, func() bool { in, _ := device.hubLogin(); return in })
}

// Tenants are apart though one device's sessions are with the same machine: a session with one's host is not resumed at the other's, and what one's
// enrollment lets in the other's refuses, whatever name the session was begun under.
func TestASessionWithOneTenantIsNothingToAnother(t *testing.T) {
	r := installed(t).run(t)
	name := "plant2." + host
	status, body, err := r.manage(r.client(), http.MethodPost, "/latchkey/v1/scopes", []byte(`{"hosts":["`+name+`"]}`))
	must(t, err)
	var made struct{ IDScope string }
	must(t, json.Unmarshal(body, &made))
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	ca := newMaker(t, "maker")
	for _, version := range versions {
		certificate := ca.sign(t, "press-7")
		r.change("PUT", entryPath, entryOf(certificate, ""))
		device := r.bearer(version, certificate).begun()
		// The other's scope over a session with the first one's name.
		stranger := *device
		stranger.scope = made.IDScope
		if status, answer := stranger.registers(true); status != http.StatusUnauthorized {
			t.Errorf("TLS %x, the other's scope: %d %s", version, status, answer)
		}
		// The first one's session shown under the other's name: the client asks for that, and accepts any certificate.
		stranger.config = device.config.Clone()
		stranger.config.ServerName, stranger.config.InsecureSkipVerify = name, true
		if status, answer := stranger.registers(false); status != http.StatusUnauthorized {
			t.Errorf("TLS %x, the other's name: %d %s", version, status, answer)
		}
	}
}

// hubLogin connects to the hub with the client certificate, and says whether it was let in and whether the session was a resumed one.
func (b *bearer) hubLogin() (in, resumed bool) {
	b.t.Helper()
	var did atomic.Bool
	config := b.config.Clone()
	config.VerifyConnection = func(state tls.ConnectionState) error { did.Store(state.DidResume); return nil }
	o := paho.NewClientOptions()
	o.Servers = []*url.URL{{Scheme: "tls", Host: b.mqtt}}
	o.SetTLSConfig(config).SetClientID(b.id).SetUsername(host + "/" + b.id + "/?api-version=2021-04-12")
	o.SetProtocolVersion(4).SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(patience)
	client := paho.NewClient(o)
	err := settled(client.Connect())
	if err == nil {
		// A message there and back: the ticket of TLS 1.3 has been read by then.
		err = settled(client.Publish("devices/"+b.id+"/messages/events/", 1, false, "x"))
		client.Disconnect(0)
	}
	return err == nil, did.Load()
}

// The hub judges a resumed session by the credential that it holds now.
func TestTheHubJudgesAResumedSession(t *testing.T) {
	r := installed(t).run(t)
	ca := newMaker(t, "maker")
	for _, version := range versions {
		certificate := ca.sign(t, "press-7")
		r.change("PUT", entryPath, entryOf(certificate, ""))
		r.bearer(version, certificate).begun()
		device := r.bearer(version, certificate)
		for _, resumed := range []bool{false, true} {
			if in, did := device.hubLogin(); !in || did != resumed {
				t.Fatalf("TLS %x: let in %v, resumed %v", version, in, did)
			}
		}
		if in, did := r.bearer(version, ca.sign(t, "press-7")).hubLogin(); in || did {
			t.Errorf("TLS %x, another certificate: let in %v", version, in)
		}
		// The device gets another certificate, and registers with it: the hub knows the old one no more.
		next := ca.sign(t, "press-7")
		r.change("PUT", entryPath, entryOf(next, ""))
		r.bearer(version, next).begun()
		if in, did := device.hubLogin(); in || !did {
			t.Errorf("TLS %x, replaced: let in %v, resumed %v", version, in, did)
		}
	}
}

// twin is the same installation in another directory, as it was when it was copied: its key ring, its certificates, its configuration.
func (h house) twin(t *testing.T) house {
	t.Helper()
	other := h
	other.dir = filepath.Join(t.TempDir(), "data")
	must(t, os.CopyFS(other.dir, os.DirFS(h.dir)))
	for _, name := range []string{"master.key", "tls/server.key", "tls/ca.key"} { // CopyFS gives others the right to read
		must(t, os.Chmod(filepath.Join(other.dir, name), 0o600))
	}
	return other
}

// A device's session goes on at whichever node the balancer sends it to, at both listeners, as long as the ring is the same and the ticket's
// slots last; and it is judged there.
func TestASessionBegunAtOneNodeGoesOnAtAnother(t *testing.T) {
	h := installed(t)
	ca := newMaker(t, "maker")
	setup := h.run(t)
	setup.change("PUT", groupPath, groupOf(ca, ""))
	setup.stop()
	begin := time.Now()
	var elapsed atomic.Int64
	other := installed(t) // of another ring; the device trusts it all the same
	first, second, foreign := h.run(t), h.twin(t).run(t, func(o *Options) {
		o.now = func() time.Time { return begin.Add(time.Duration(elapsed.Load())) }
	}), other.run(t)
	foreign.change("PUT", groupPath, groupOf(ca, ""))
	eachVersion(t, func(t *testing.T, version uint16) {
		elapsed.Store(int64(2 * time.Minute)) // the nodes' clocks are never the same
		second.reloaded()
		certificate := ca.sign(t, "press-7")
		device := first.bearer(version, certificate).begun()
		if status, answer := device.at(second).registers(true); status != http.StatusAccepted {
			t.Errorf("at the other node: %d %s", status, answer)
		}
		if status, answer := device.registers(true); status != http.StatusAccepted { // with the other node's ticket
			t.Errorf("and back: %d %s", status, answer)
		}
		abroad := device.at(foreign)
		abroad.config = device.config.Clone()
		abroad.config.InsecureSkipVerify, abroad.scope = true, other.made.IDScope
		if status, answer := abroad.registers(false); status != http.StatusAccepted {
			t.Errorf("at a node with another ring: %d %s", status, answer)
		}
		hub := first.bearer(version, certificate)
		if in, did := hub.hubLogin(); !in || did {
			t.Fatalf("the hub: %v, %v", in, did)
		}
		at := hub.at(second)
		device.at(second).registers(false) // so that its hub knows the device, too; the foreign node's ticket is none here
		if in, did := at.hubLogin(); !in || !did {
			t.Errorf("the other node's hub: let in %v, resumed %v", in, did)
		}
		device = first.bearer(version, certificate).begun()
		elapsed.Store(int64(2 * ticketSlot))
		second.reloaded()
		if status, answer := device.at(second).registers(false); status != http.StatusAccepted {
			t.Errorf("two slots later: %d %s", status, answer)
		}
	})
}
