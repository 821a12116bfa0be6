package embedded

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
)

func tcp(address string) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 40000))
}

// A stranger that opens connections and says nothing fills its own address's share, and devices elsewhere still log in.
func TestOneAddressCannotKeepTheOthersOut(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Pending: 5, PendingPerAddress: 3} })
	key := newKey()
	w.ensure("dev", key, 1)
	var silent []*raw
	for range 3 {
		silent = append(silent, w.dialFrom(tcp("192.0.2.1")))
	}
	for range 10 {
		w.dialFrom(tcp("192.0.2.1")).expectClosed()
	}
	dev := w.dialFrom(tcp("192.0.2.2"))
	dev.send(w.greet("dev", key).packet())
	dev.expect(0x20, 2, 0, 0)
	w.dialFrom(tcp("192.0.2.3"))
	w.dialFrom(tcp("192.0.2.4"))
	w.dialFrom(tcp("192.0.2.5")).expectClosed() // all together are bounded as before
	if n := w.endings(causeTooMany); n != 11 {
		t.Errorf("%d refusals counted", n)
	}
	for _, r := range silent {
		r.Close()
	}
}

// A device that has logged in is a stranger no more, and a stranger that has gone leaves its place.
func TestAnAddressGetsItsPlacesBack(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PendingPerAddress = 1 })
	key := newKey()
	for i := range 5 { // each finds the place that the one before had until its login
		id := fmt.Sprint("dev-", i)
		w.ensure(id, key, 1)
		dev := w.dialFrom(tcp("192.0.2.1"))
		dev.send(w.greet(id, key).packet())
		dev.expect(0x20, 2, 0, 0)
	}
	stranger := w.dialFrom(tcp("192.0.2.1"))
	w.dialFrom(tcp("192.0.2.1")).expectClosed()
	stranger.Close()
	w.shut() // waits until all are gone
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending.total != 0 || len(w.pending.byAddress) != 0 {
		t.Errorf("%+v is left", w.pending)
	}
}

func TestAddressesThatAreOnePlace(t *testing.T) {
	for _, c := range []struct {
		one, other string
		same       bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
		{"2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true}, // whoever has one address of a /64 has them all
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
		{"0.0.0.0", "::", false},
	} {
		if same := addressOf(tcp(c.one)) == addressOf(tcp(c.other)); same != c.same {
			t.Errorf("%s and %s: %v, want %v", c.one, c.other, same, c.same)
		}
	}
	if addressOf(pipeAddr{}) != addressOf(&net.UnixAddr{Name: "x"}) {
		t.Error("who has no address got a place of its own")
	}
}

func TestAnAddressHasSixtyFourPlaces(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 64 {
		w.dialFrom(tcp(fmt.Sprintf("2001:db8::%x", i)))
	}
	w.dialFrom(tcp("2001:db8::ffff")).expectClosed()
}
