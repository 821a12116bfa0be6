package embedded

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func (w *world) ensureCredential(deviceID string, c registration.Credential, generation uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.EnsureDevice(ctx, testScope, testHub, registration.HubDevice{DeviceID: deviceID, Credential: c, Generation: generation}); err != nil {
		w.t.Fatal(err)
	}
}

func TestADeviceLogsInWithEitherOfItsKeys(t *testing.T) {
	w := newWorld(t, nil)
	first, second := newKey(), append(newKey(), newKey()...)
	w.ensureCredential("dev", registration.Credential{Primary: first, Secondary: second}, 1)
	w.login(w.greet("dev", first), 0)
	w.login(w.greet("dev", second), 0)
	w.refusedWith(w.greet("dev", newKey()), 5)
	// Nobody logs in with the key that stands in for one that is not there.
	w.ensureCredential("lone", registration.Credential{Primary: first}, 1)
	w.refusedWith(w.greet("lone", w.dummyKey), 5)
	w.refusedWith(w.greet("lone", make([]byte, 32)), 5)
	w.refusedWith(w.greet("nobody", w.dummyKey), 5)
}

func TestOnlyTheSessionUnderTheKeyThatWentIsCut(t *testing.T) {
	w := newWorld(t, nil)
	first, second, third := newKey(), newKey(), newKey()
	w.ensureCredential("dev", registration.Credential{Primary: first, Secondary: second}, 1)
	session := w.login(w.greet("dev", second), 0)
	w.ensureCredential("dev", registration.Credential{Primary: third, Secondary: second}, 2)
	session.send(packet(0xc0))
	session.expect(0xd0, 0) // its key is still one of the two
	w.ensureCredential("dev", registration.Credential{Primary: second, Secondary: third}, 3)
	session.send(packet(0xc0))
	session.expect(0xd0, 0) // in the other place
	w.ensureCredential("dev", registration.Credential{Primary: third}, 4)
	session.expectClosed()
	w.refusedWith(w.greet("dev", second), 5)
	w.login(w.greet("dev", third), 0)
}

// clientCertificate makes one that ends at a time.
func clientCertificate(t *testing.T, end time.Time) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, sum[:]
}

// serveAsking serves the hub as the daemon does: asking for a client certificate.
func (w *world) serveAsking() (string, *tls.Config) {
	w.t.Helper()
	cert, err := certificate()
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert})
	if err != nil {
		w.t.Fatal(err)
	}
	w.serve(l)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: testHub}
}

// showing connects with a client certificate, if there is one.
func showing(t *testing.T, addr string, trust *tls.Config, version uint16, shown ...tls.Certificate) *raw {
	t.Helper()
	config := trust.Clone()
	config.Certificates, config.MinVersion, config.MaxVersion = shown, version, version
	c, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return newRaw(t, c)
}

func TestADeviceLogsInWithItsCertificate(t *testing.T) {
	w := newWorld(t, nil)
	addr, trust := w.serveAsking()
	own, sum := clientCertificate(t, time.Now().Add(time.Hour))
	other, _ := clientCertificate(t, time.Now().Add(time.Hour))
	w.ensureCredential("dev", registration.Credential{Certificate: sum}, 1)
	key := newKey()
	w.ensureCredential("keyed", registration.Credential{Primary: key}, 1)
	bare := func(id string) hello { h := w.greet(id, key); h.bare, h.flags = true, 2; return h }
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		refuse := func(id string, shown ...tls.Certificate) {
			t.Helper()
			r := showing(t, addr, trust, version, shown...)
			r.send(bare(id).packet())
			r.expect(0x20, 2, 0, 5)
			r.expectClosed()
		}
		r := showing(t, addr, trust, version, own)
		r.send(bare("dev").packet())
		r.expect(0x20, 2, 0, 0)
		r.send(packet(0xc0))
		r.expect(0xd0, 0)
		refuse("dev", other)
		refuse("dev")
		refuse("keyed", own)
		refuse("nobody", own)
		// A device with keys may show a certificate too; its token decides.
		r = showing(t, addr, trust, version, own)
		keyed := w.greet("keyed", key)
		keyed.flags = 2
		r.send(keyed.packet())
		r.expect(0x20, 2, 0, 0)
		// A device with a certificate has no key, not even the one that stands in.
		r = showing(t, addr, trust, version, own)
		r.send(w.greet("dev", w.dummyKey).packet())
		r.expect(0x20, 2, 0, 5)
	}
}

func TestACertificateThatHasEndedLetsNobodyIn(t *testing.T) {
	w := newWorld(t, nil)
	addr, trust := w.serveAsking()
	ended, sum := clientCertificate(t, time.Now().Add(-time.Second))
	w.ensureCredential("dev", registration.Credential{Certificate: sum}, 1)
	r := showing(t, addr, trust, tls.VersionTLS13, ended)
	h := w.greet("dev", newKey())
	h.bare = true
	r.send(h.packet())
	r.expect(0x20, 2, 0, 5)
}

func TestASessionEndsWithItsCertificate(t *testing.T) {
	w := newWorld(t, nil)
	addr, trust := w.serveAsking()
	short, sum := clientCertificate(t, time.Now().Add(2*time.Second).Truncate(time.Second))
	w.ensureCredential("dev", registration.Credential{Certificate: sum}, 1)
	r := showing(t, addr, trust, tls.VersionTLS13, short)
	h := w.greet("dev", newKey())
	h.bare = true
	r.send(h.packet())
	r.expect(0x20, 2, 0, 0)
	r.expectClosed()
	w.settled()
	if w.endings(causeExpired) != 1 {
		t.Error("it did not end for that reason")
	}
}

func TestAnotherCertificateCutsTheSessionOfTheOneBefore(t *testing.T) {
	w := newWorld(t, nil)
	addr, trust := w.serveAsking()
	old, oldSum := clientCertificate(t, time.Now().Add(time.Hour))
	_, newSum := clientCertificate(t, time.Now().Add(time.Hour))
	h := w.greet("dev", newKey())
	h.bare = true
	w.ensureCredential("dev", registration.Credential{Certificate: oldSum}, 1)
	r := showing(t, addr, trust, tls.VersionTLS13, old)
	r.send(h.packet())
	r.expect(0x20, 2, 0, 0)
	w.ensureCredential("dev", registration.Credential{Certificate: oldSum}, 2)
	r.send(packet(0xc0))
	r.expect(0xd0, 0)
	w.ensureCredential("dev", registration.Credential{Certificate: newSum}, 3)
	r.expectClosed()
	r = showing(t, addr, trust, tls.VersionTLS13, old)
	r.send(h.packet())
	r.expect(0x20, 2, 0, 5)
}

func TestADroppedHubHasNoSessionsLeft(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("a", key, 1)
	w.ensure("b", key, 1)
	a := w.login(w.greet("a", key), 0)
	b := w.login(w.greet("b", key), 0)
	b.send(subscribe(1, "devices/b/messages/devicebound/#"))
	b.expect(0x90, 3, 0, 1, 1)
	b.send(packet(0xe0)) // its session outlives its connection
	b.expectClosed()
	other := w.greet("a", key)
	if err := w.Drop(t.Context(), "another", otherHub); err != nil {
		t.Fatal(err)
	}
	a.send(packet(0xc0))
	a.expect(0xd0, 0) // another hub's end is none of its business
	for range 2 {
		if err := w.Drop(t.Context(), testScope, testHub); err != nil {
			t.Fatal(err)
		}
	}
	a.expectClosed()
	w.settled()
	if w.endings(causeDropped) != 1 || len(w.devices) != 0 || w.server.Clients.Len() != 0 {
		t.Errorf("left over: %v", w.devices)
	}
	w.login(other, 0) // the test's scope is still there
}

// A login that is under way when its scope is deleted comes too late, at whichever of the two readings of its identity that happens.
func TestALoginDoesNotSlipPastTheEndOfItsHub(t *testing.T) {
	for _, reading := range []int{1, 2} {
		t.Run(fmt.Sprint("during reading ", reading), func(t *testing.T) {
			var gone atomic.Bool
			w := newWorld(t, func(c *Config) {
				c.Names = func(hub string) (string, bool) {
					scope, ok := scopeOf(hub)
					return scope, ok && !gone.Load()
				}
			})
			key := newKey()
			w.ensure("dev", key, 1)
			end := func() {
				gone.Store(true)
				if err := w.Drop(t.Context(), testScope, testHub); err != nil {
					t.Error(err)
				}
			}
			if reading == 2 {
				last := end
				end = func() { w.store.set(func() { w.store.thenRead = last }) }
			}
			w.store.set(func() { w.store.thenRead = end })
			r := w.dial()
			r.send(w.greet("dev", key).packet())
			r.expect(0x20, 2, 0, 5)
			r.expectClosed()
			w.settled()
			if !gone.Load() || len(w.devices) != 0 {
				t.Errorf("the end was reached: %t; left over: %v", gone.Load(), w.devices)
			}
		})
	}
}

func TestADeviceThatDoesNotLetGoKeepsNoOtherConnected(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	sessions := map[string]*raw{}
	for _, id := range []string{"a", "b", "c"} {
		w.ensure(id, key, 1)
		sessions[id] = w.login(w.greet(id, key), 0)
	}
	unlock, err := w.logins.lock(t.Context(), deviceKey(testHub, "b"))
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Drop(over, testScope, testHub); !errors.Is(err, context.Canceled) {
		t.Errorf("dropping says %v", err)
	}
	for _, r := range sessions {
		r.expectClosed()
	}
	unlock()
	if err := w.Drop(t.Context(), testScope, testHub); err != nil {
		t.Error(err)
	}
	w.settled()
	if w.endings(causeDropped) != 3 || len(w.devices) != 0 || w.server.Clients.Len() != 0 {
		t.Errorf("left over: %v", w.devices)
	}
}
