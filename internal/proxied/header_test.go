package proxied

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

// header makes one: what a balancer would send.
func header(command, family byte, rest []byte) []byte {
	b := append([]byte(signature), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rest)))
	return append(b, rest...)
}

// addresses are a source and a destination, 192.0.2.1:443, in the form of either family.
func addresses(source string) []byte {
	from, to := netip.MustParseAddrPort(source), netip.MustParseAddrPort("192.0.2.1:443")
	b := from.Addr().AsSlice()
	if from.Addr().Is4() {
		b = append(b, to.Addr().AsSlice()...)
	} else {
		mapped := to.Addr().As16()
		b = append(b, mapped[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, from.Port())
	return binary.BigEndian.AppendUint16(b, to.Port())
}

var more = []byte{0x04, 0, 3, 1, 2, 3} // a TLV: type, length, value

func TestTheHeaderNamesThePeerAndNothingBehindItIsRead(t *testing.T) {
	v4, v6 := addresses("203.0.113.9:50000"), addresses("[2001:db8::7]:50001")
	for name, c := range map[string]struct {
		header []byte
		want   string // empty: the real peer
	}{
		"IPv4":                           {header(commandProxy, tcp4, v4), "203.0.113.9:50000"},
		"IPv6":                           {header(commandProxy, tcp6, v6), "[2001:db8::7]:50001"},
		"IPv4 in IPv6":                   {header(commandProxy, tcp6, addresses("[::ffff:203.0.113.9]:5")), "203.0.113.9:5"},
		"port 0":                         {header(commandProxy, tcp4, addresses("203.0.113.9:0")), "203.0.113.9:0"},
		"more behind IPv4":               {header(commandProxy, tcp4, append(bytes.Clone(v4), more...)), "203.0.113.9:50000"},
		"as much as may be":              {header(commandProxy, tcp6, append(bytes.Clone(v6), make([]byte, maxLength-tcp6Length)...)), "[2001:db8::7]:50001"},
		"more that is no TLV":            {header(commandProxy, tcp4, append(bytes.Clone(v4), 0xff)), "203.0.113.9:50000"},
		"of the balancer's own":          {header(commandLocal, 0, nil), ""},
		"its own, with addresses":        {header(commandLocal, tcp4, v4), ""},
		"its own, with too few for IPv4": {header(commandLocal, tcp4, v4[:3]), ""},
		"its own, with more":             {header(commandLocal, 0, more), ""},
	} {
		t.Run(name, func(t *testing.T) {
			rest := "\x16\x03\x01 what follows"
			wire := strings.NewReader(string(c.header) + rest)
			peer, err := readHeader(wire)
			if err != nil {
				t.Fatal(err)
			}
			if is := peer.String(); peer.IsValid() && is != c.want || peer.IsValid() != (c.want != "") {
				t.Errorf("the peer is %s, want %q", is, c.want)
			}
			if left, _ := io.ReadAll(wire); string(left) != rest {
				t.Errorf("%q is left to TLS", left)
			}
		})
	}
}

func TestWhatIsNoHeaderIsRefusedAtOnce(t *testing.T) {
	v4, v6 := addresses("203.0.113.9:50000"), addresses("[2001:db8::7]:50001")
	good := header(commandProxy, tcp4, v4)
	with := func(at int, b byte) []byte {
		changed := bytes.Clone(good)
		changed[at] = b
		return changed
	}
	for name, c := range map[string]struct {
		wire []byte
		want refusal
		most int // bytes that are read of it
	}{
		"nothing":                       {nil, refusedCut, 0},
		"TLS at once":                   {[]byte{0x16, 3, 1, 2, 0, 1}, refusedMissing, 6},
		"version 1":                     {[]byte("PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n"), refusedMissing, fixedLength},
		"version 1, unknown":            {[]byte("PROXY UNKNOWN\r\n"), refusedMissing, fixedLength},
		"version 1 in the signature":    {with(12, 0x11), refusedMalformed, fixedLength},
		"version 3":                     {with(12, 0x31), refusedMalformed, fixedLength},
		"no known command":              {with(12, 0x22), refusedMalformed, fixedLength},
		"no known family":               {with(13, 0x41), refusedMalformed, fixedLength},
		"no known transport":            {with(13, 0x13), refusedMalformed, fixedLength},
		"own, no known family":          {header(commandLocal, 0x13, nil), refusedMalformed, fixedLength},
		"family unknown to the sender":  {header(commandProxy, 0x00, nil), refusedFamily, fixedLength},
		"transport unknown, of IPv4":    {header(commandProxy, 0x10, v4), refusedMalformed, fixedLength},
		"UDP":                           {header(commandProxy, 0x12, v4), refusedFamily, fixedLength},
		"UDP over IPv6":                 {header(commandProxy, 0x22, v6), refusedFamily, fixedLength},
		"Unix":                          {header(commandProxy, 0x31, make([]byte, 216)), refusedFamily, fixedLength},
		"too short for IPv4":            {header(commandProxy, tcp4, v4[:11]), refusedMalformed, fixedLength},
		"too short for IPv6":            {header(commandProxy, tcp6, v4), refusedMalformed, fixedLength},
		"no address":                    {header(commandProxy, tcp4, nil), refusedMalformed, fixedLength},
		"too long":                      {header(commandProxy, tcp4, make([]byte, maxLength+1)), refusedLong, fixedLength},
		"as long as can be":             {header(commandProxy, tcp4, make([]byte, 0xffff)), refusedLong, fixedLength},
		"own, too long":                 {header(commandLocal, 0, make([]byte, maxLength+1)), refusedLong, fixedLength},
		"from no address":               {header(commandProxy, tcp4, addresses("0.0.0.0:1")), refusedMalformed, len(good)},
		"from no address, IPv6":         {header(commandProxy, tcp6, addresses("[::]:1")), refusedMalformed, fixedLength + len(v6)},
		"from no address, IPv4 in IPv6": {header(commandProxy, tcp6, addresses("[::ffff:0.0.0.0]:1")), refusedMalformed, fixedLength + len(v6)},
		"from a group":                  {header(commandProxy, tcp4, addresses("224.0.0.1:1")), refusedMalformed, len(good)},
	} {
		t.Run(name, func(t *testing.T) {
			wire := bytes.NewReader(c.wire)
			if peer, err := readHeader(wire); err != c.want {
				t.Errorf("%v, %v, want %v", peer, err, c.want)
			}
			if read := len(c.wire) - wire.Len(); read > c.most {
				t.Errorf("%d bytes were read, more than %d", read, c.most)
			}
		})
	}
}

// Whatever arrives of a header, and wherever it is changed up to the family, it is refused, and by name.
func TestEveryCutAndEveryChangeOfTheFixedPartIsRefused(t *testing.T) {
	good := header(commandProxy, tcp4, append(addresses("203.0.113.9:50000"), more...))
	for n := range good {
		if _, err := readHeader(bytes.NewReader(good[:n])); err != refusedCut {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
	for at := range len(signature) {
		changed := bytes.Clone(good)
		changed[at] ^= 1
		if _, err := readHeader(bytes.NewReader(changed)); err != refusedMissing {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
}

// endless gives a header whose rest never ends, and counts what is taken of it.
type endless struct {
	start io.Reader
	taken int
}

func (e *endless) Read(p []byte) (int, error) {
	n, err := e.start.Read(p)
	if err != nil {
		n, err = len(p), nil
	}
	e.taken += n
	return n, err
}

func TestARestThatNeverEndsIsReadNoFurtherThanItsLength(t *testing.T) {
	start := header(commandProxy, tcp4, make([]byte, maxLength))[:fixedLength]
	wire := &endless{start: io.MultiReader(bytes.NewReader(start), bytes.NewReader(addresses("203.0.113.9:1")))}
	if _, err := readHeader(wire); err != nil || wire.taken != fixedLength+maxLength {
		t.Errorf("%v after %d bytes", err, wire.taken)
	}
	long := &endless{start: bytes.NewReader(header(commandProxy, tcp4, make([]byte, 0xffff))[:fixedLength])}
	if _, err := readHeader(long); err != refusedLong || long.taken != fixedLength {
		t.Errorf("%v after %d bytes", err, long.taken)
	}
}

// Against a reader that is not ours: what both take names the same peer, what one alone refuses is of these kinds.
func FuzzReadHeader(f *testing.F) {
	f.Add(header(commandProxy, tcp4, addresses("203.0.113.9:50000")))
	f.Add(header(commandProxy, tcp6, append(addresses("[2001:db8::7]:50001"), more...)))
	f.Add(header(commandProxy, tcp6, addresses("[::ffff:203.0.113.9]:5")))
	f.Add(header(commandProxy, tcp4, addresses("0.0.0.0:0")))
	f.Add(header(commandLocal, tcp4, addresses("203.0.113.9:1")))
	f.Add(header(commandLocal, 0, nil))
	f.Add(header(commandLocal, tcp6, more))
	f.Add(header(commandProxy, 0x13, addresses("203.0.113.9:1")))
	f.Add(header(commandProxy, 0x31, make([]byte, 216)))
	f.Add([]byte("PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\nabc"))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		ours := bytes.NewReader(wire)
		peer, err := readHeader(ours)
		theirs := bufio.NewReader(bytes.NewReader(wire))
		oracle, oracleErr := proxyproto.Read(theirs)
		var why refusal
		switch {
		case err != nil && !errors.As(err, &why):
			t.Fatalf("%v is no refusal", err)
		case err != nil && oracleErr == nil:
			if tcp, _, ok := oracle.TCPAddrs(); oracle.Version == 2 && oracle.Command == proxyproto.PROXY && ok && !tcp.IP.IsUnspecified() && !tcp.IP.IsMulticast() {
				t.Fatalf("%v, but it is a header from %v", err, tcp)
			}
			if oracle.Version == 2 && oracle.Command == proxyproto.LOCAL {
				t.Fatalf("%v, but it is a header of the balancer's own", err)
			}
		case err == nil && oracleErr != nil:
			t.Fatalf("%v was taken, which another reader refuses: %v", peer, oracleErr)
		case err == nil && oracle.Command == proxyproto.LOCAL:
			if peer.IsValid() {
				t.Fatalf("a header of the balancer's own names %v", peer)
			}
		case err == nil:
			if same := oracle.SourceAddr.(*net.TCPAddr).AddrPort(); netip.AddrPortFrom(same.Addr().Unmap(), same.Port()) != peer {
				t.Fatalf("the peer is %v, another reader says %v", peer, same)
			}
		}
		if err == nil {
			left, _ := io.ReadAll(ours)
			theirLeft, _ := io.ReadAll(theirs)
			if !bytes.Equal(left, theirLeft) {
				t.Fatalf("%d bytes are left, %d with another reader", len(left), len(theirLeft))
			}
		}
	})
}
