package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/keyring"
)

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// eachVersion runs a test for every TLS version that is spoken.
func eachVersion(t *testing.T, test func(t *testing.T, version uint16)) {
	for _, version := range versions {
		t.Run(tls.VersionName(version), func(t *testing.T) { test(t, version) })
	}
}

// own makes a certificate that has signed itself.
func own(t *testing.T, name string, from, to time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// clock is set by a test.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// newRingFile makes a key ring.
func newRingFile(t *testing.T) (*keyring.Ring, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "master.key")
	ring, err := keyring.Create(path, time.Now())
	must(t, err)
	return ring, path
}

// door is a listener of a node, as far as TLS goes.
type door struct {
	tickets *tickets
	config  *tls.Config
}

func newDoor(t *testing.T, ring *keyring.Ring, now func() time.Time, listener string) *door {
	t.Helper()
	d := &door{tickets: newTickets(ring, now)}
	// Both sides' own clocks are the real one: only tickets follow the test's.
	served := own(t, "a.example.net", time.Now().Add(-time.Hour), time.Now().Add(100*time.Hour))
	d.config = d.tickets.share(listener, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{served}, ClientAuth: tls.RequestClientCert}).Clone()
	return d
}

// anySession is a client's memory of one session, which it shows to everybody.
type anySession struct{ session *tls.ClientSessionState }

func (a *anySession) Get(string) (*tls.ClientSessionState, bool) { return a.session, a.session != nil }

func (a *anySession) Put(_ string, session *tls.ClientSessionState) {
	if session != nil {
		a.session = session
	}
}

// client speaks one version, asks for a.example.net and holds a certificate.
func newClient(t *testing.T, version uint16) *tls.Config {
	t.Helper()
	return &tls.Config{MinVersion: version, MaxVersion: version, ServerName: "a.example.net", InsecureSkipVerify: true, ClientSessionCache: &anySession{},
		Certificates: []tls.Certificate{own(t, "press-7", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))}}
}

// wire is a connection over loopback, both its ends.
func wire(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	here, err = net.Dial("tcp", l.Addr().String())
	must(t, err)
	there, err = l.Accept()
	must(t, err)
	for _, conn := range []net.Conn{here, there} {
		must(t, conn.SetDeadline(time.Now().Add(patience)))
	}
	return here, there
}

// resumes does a handshake, and says whether it went on with a session from before. The client's certificate is there either way.
func resumes(t *testing.T, server, client *tls.Config) bool {
	t.Helper()
	here, there := wire(t)
	return resumesOver(t, here, there, server, client)
}

func resumesOver(t *testing.T, here, there net.Conn, server, client *tls.Config) bool {
	t.Helper()
	defer here.Close()
	defer there.Close()
	seen := make(chan tls.ConnectionState, 1)
	go func() {
		conn := tls.Server(there, server)
		defer there.Close()
		conn.Write([]byte{1}) // behind the handshake and the ticket
		seen <- conn.ConnectionState()
	}()
	conn := tls.Client(here, client)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	state := <-seen
	if state.DidResume != conn.ConnectionState().DidResume {
		t.Fatal("the sides disagree")
	}
	if certificates := state.PeerCertificates; len(certificates) != 1 || !certificates[0].Equal(client.Certificates[0].Leaf) {
		t.Errorf("the server has %d certificates of the client", len(certificates))
	}
	return state.DidResume
}

// slotStart is the beginning of a slot that holds no other moment of interest.
var slotStart = time.Unix(40_000*int64(ticketSlot/time.Second), 0)

func TestASessionResumesAtEveryNodeWithTheSameRing(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		ring, path := newRingFile(t)
		same, err := keyring.Open(path)
		must(t, err)
		other, _ := newRingFile(t)
		at := &clock{slotStart.Add(time.Hour)}
		first, second := newDoor(t, ring, at.now, "https"), newDoor(t, same, at.now, "https")
		for name, c := range map[string]struct {
			door *door
			want bool
		}{
			"the same node":             {first, true},
			"another node":              {second, true},
			"another node with the key": {newDoor(t, same, at.now, "https"), true},
			"another ring":              {newDoor(t, other, at.now, "https"), false},
			"another listener":          {newDoor(t, same, at.now, "mqtt"), false},
		} {
			client := newClient(t, version)
			if resumes(t, first.config, client) {
				t.Fatal("a first session resumes")
			}
			if got := resumes(t, c.door.config, client); got != c.want {
				t.Errorf("at %s: resumed %v", name, got)
			}
		}
	})
}

// A ticket is good in its slot and in the next; a node whose clock is behind takes one of the slot that has not begun for it.
func TestATicketIsGoodForOneToTwoSlots(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		ring, _ := newRingFile(t)
		for _, c := range []struct {
			issued, shown time.Duration // after the slot's start
			want          bool
		}{
			{0, ticketSlot - time.Second, true},
			{0, 2*ticketSlot - time.Second, true},
			{0, 2 * ticketSlot, false},
			{ticketSlot - time.Second, 2*ticketSlot - time.Second, true},
			{ticketSlot - time.Second, 2 * ticketSlot, false},
			{-time.Minute, time.Minute, true}, // two minutes apart, one before the slot's start
			{time.Minute, -time.Minute, true}, // the other way round
			{0, -ticketSlot - time.Second, false},
		} {
			issuing, taking := newDoor(t, ring, (&clock{slotStart.Add(c.issued)}).now, "https"), newDoor(t, ring, (&clock{slotStart.Add(c.shown)}).now, "https")
			client := newClient(t, version)
			resumes(t, issuing.config, client)
			if got := resumes(t, taking.config, client); got != c.want {
				t.Errorf("issued at %v, shown at %v: resumed %v", c.issued, c.shown, got)
			}
		}
	})
}

// Each resumption of TLS 1.3 gives a new ticket. All of them come from one handshake in which the client showed its key, and end a day after it.
func TestASessionEndsADayAfterItsKeyWasShown(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		ring, _ := newRingFile(t)
		at := &clock{slotStart}
		d := newDoor(t, ring, at.now, "https")
		client := newClient(t, version)
		resumes(t, d.config, client)
		for hours := 6; hours <= 30; hours += 6 {
			at.at = slotStart.Add(time.Duration(hours) * time.Hour)
			d.tickets.rotate()
			if got, want := resumes(t, d.config, client), hours <= 24; got != want {
				t.Errorf("after %d hours: resumed %v", hours, got)
			}
		}
		if !resumes(t, d.config, client) { // the last handshake was whole
			t.Error("the day does not begin anew")
		}
	})
}

// What the library does with the same keys and no more: in TLS 1.3 the session goes on for ever. If this fails, the end of sessions may have become
// the library's own work.
func TestWithoutAnEndASessionWouldGoOn(t *testing.T) {
	ring, _ := newRingFile(t)
	at := &clock{slotStart}
	bare := newDoor(t, ring, at.now, "https").tickets.configs["https"]
	client := newClient(t, tls.VersionTLS13)
	resumes(t, bare, client)
	for hours := 6; hours <= 60; hours += 6 {
		at.at = slotStart.Add(time.Duration(hours) * time.Hour)
		bare.SetSessionTicketKeys((&tickets{ring: ring, now: at.now}).keys("https"))
		if !resumes(t, bare, client) {
			t.Fatalf("it ended after %d hours", hours)
		}
	}
}

// RFC 6066, 3. The tenants of a service have host names of their own.
func TestASessionOfOneHostNameIsNotResumedUnderAnother(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		ring, _ := newRingFile(t)
		d := newDoor(t, ring, time.Now, "https")
		for name, want := range map[string]bool{"a.example.net": true, "A.Example.NET": true, "b.example.net": false, "": false} {
			client := newClient(t, version)
			resumes(t, d.config, client)
			client.ServerName = name
			if got := resumes(t, d.config, client); got != want {
				t.Errorf("under %q: resumed %v", name, got)
			}
		}
	})
}

// add, all nodes read it, rotate, one node after the other reads that.
func TestSessionsGoOnWhileTheRingIsRotated(t *testing.T) {
	ring, path := newRingFile(t)
	early, err := keyring.Open(path)
	must(t, err)
	late, err := keyring.Open(path)
	must(t, err)
	first, second := newDoor(t, early, time.Now, "https"), newDoor(t, late, time.Now, "https")
	both := func(when string) {
		t.Helper()
		for _, version := range versions {
			for _, way := range [][2]*door{{first, second}, {second, first}} {
				client := newClient(t, version)
				resumes(t, way[0].config, client)
				if !resumes(t, way[1].config, client) {
					t.Errorf("%s: a session does not go on at the other node", when)
				}
			}
		}
	}
	read := func(d *door, ring *keyring.Ring) {
		t.Helper()
		must(t, ring.Reload())
		d.tickets.rotate()
	}
	_, err = ring.Add(time.Now())
	must(t, err)
	read(first, early)
	both("one has the new key")
	read(second, late)
	_, err = ring.Rotate()
	must(t, err)
	read(first, early)
	both("one issues under the new key")
	before := newClient(t, tls.VersionTLS13)
	resumes(t, second.config, before) // still under the old key
	read(second, late)
	both("both issue under the new key")
	if !resumes(t, second.config, before) {
		t.Error("a session from before the rotation does not go on")
	}
	old := newClient(t, tls.VersionTLS13)
	resumes(t, newDoor(t, mustRing(t, path, "k1"), time.Now, "https").config, old)
	dropKey(t, house{dir: filepath.Dir(path)}, "k1")
	read(first, early)
	if resumes(t, first.config, old) {
		t.Error("a session under a key that was taken out of the ring goes on")
	}
}

// mustRing is a ring with that primary key and the others of a file.
func mustRing(t *testing.T, path, primary string) *keyring.Ring {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	var file ringFile
	must(t, json.Unmarshal(text, &file))
	file.Primary = primary
	text, err = json.Marshal(file)
	must(t, err)
	before := filepath.Join(t.TempDir(), "master.key")
	must(t, os.WriteFile(before, text, 0o600))
	ring, err := keyring.Open(before)
	must(t, err)
	return ring
}

func TestForgedTicketsCostABoundedNumberOfTries(t *testing.T) {
	ring, _ := newRingFile(t)
	for range 20 {
		_, err := ring.Add(time.Now())
		must(t, err)
	}
	at := newTickets(ring, time.Now)
	keys := at.keys("https")
	if len(keys) != 3*ticketRings {
		t.Errorf("%d keys", len(keys))
	}
	if slot := time.Now().Unix() / int64(ticketSlot/time.Second); keys[0] != ring.Derive(fmt.Sprintf("latchkey TLS session tickets, https, slot %d", slot))[0] {
		t.Error("tickets are not issued under the primary key and the present slot")
	}
	if slices.Contains(at.keys("mqtt"), keys[0]) {
		t.Error("two listeners share a key")
	}
}

// A ticket under the right key that does not say where it comes from is none of ours.
func TestATicketWithoutOriginIsNotTaken(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		ring, _ := newRingFile(t)
		d := newDoor(t, ring, time.Now, "https")
		client := newClient(t, version)
		resumes(t, d.tickets.configs["https"], client)
		if !resumes(t, d.tickets.configs["https"], client) {
			t.Fatal("the key is not the right one")
		}
		if resumes(t, d.config, client) {
			t.Error("it was taken")
		}
	})
}

func TestOriginsAreReadBack(t *testing.T) {
	began := time.Unix(1_900_000_000, 0)
	for _, host := range []string{"", "a.example.net"} {
		extra := [][]byte{[]byte("another layer's"), origin{host, began}.encode()}
		if got, ok := originOf(extra); !ok || got != (origin{host, began}) {
			t.Errorf("%q became %v", host, got)
		}
	}
	for _, extra := range [][][]byte{nil, {nil}, {[]byte(originMark)}, {[]byte(originMark + "1234567")}} {
		if got, ok := originOf(extra); ok {
			t.Errorf("%q is %v", extra, got)
		}
	}
}

// A running node follows the clock by itself: a day and a half later it issues what a node that has just started takes.
func TestKeysFollowTheClock(t *testing.T) {
	ring, _ := newRingFile(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		running := newDoor(t, ring, time.Now, "https")
		go running.tickets.run(ctx)
		time.Sleep(3*ticketSlot + time.Minute)
		synctest.Wait()
		client := newClient(t, tls.VersionTLS12) // which speaks in turns, as a pipe needs it
		shake := func(d *door) bool {
			here, there := net.Pipe()
			return resumesOver(t, here, there, d.config, client)
		}
		shake(running)
		if !shake(newDoor(t, ring, time.Now, "https")) {
			t.Error("a node that has just started does not take its tickets")
		}
		cancel()
	})
}
