package proxied

import (
	"errors"
	"io"
	"net/netip"
	"os"
)

// Of a header on the wire (proxy-protocol.txt of HAProxy, 2.2). Numbers are big endian.
const (
	signature   = "\r\n\r\n\x00\r\nQUIT\n"
	fixedLength = len(signature) + 4 // and version with command, family with transport, length of the rest
	maxLength   = 4096               // of the rest: addresses, and what a balancer may say besides, such as a client's certificate

	commandLocal = 0x20 // version 2 in the high half
	commandProxy = 0x21

	tcp4, tcp4Length = 0x11, 12 // two addresses, two ports
	tcp6, tcp6Length = 0x21, 36
)

// families are all that the specification knows; the others must be refused, whatever the command.
var families = map[byte]bool{0x00: true, tcp4: true, 0x12: true, tcp6: true, 0x22: true, 0x31: true, 0x32: true}

// refusal says why a connection was not taken. The set is closed: it is a label.
type refusal string

const (
	refusedMissing   refusal = "missing"   // it begins with something other than a header of version 2
	refusedMalformed refusal = "malformed" // no command, family or address of the specification
	refusedLong      refusal = "too-long"
	refusedFamily    refusal = "not-tcp"  // neither TCP over IPv4 nor over IPv6
	refusedSlow      refusal = "slow"     // not whole in time
	refusedCut       refusal = "lost"     // closed before its end
	refusedCrowded   refusal = "too-many" // headers are awaited
	refusedPanic     refusal = "panic"
)

func (r refusal) Error() string { return string(r) }

// readHeader reads one header and no byte beyond it, so that what follows is TLS. It gives the address that the header names, or the zero
// value for a connection of the balancer's own (LOCAL). Its errors are refusals. It holds 52 bytes; what stands behind the addresses is passed over.
func readHeader(r io.Reader) (netip.AddrPort, error) {
	var fixed [fixedLength]byte
	if err := readFixed(r, &fixed); err != nil {
		return netip.AddrPort{}, err
	}
	command, family := fixed[12], fixed[13]
	length := int(fixed[14])<<8 | int(fixed[15])
	switch {
	case command != commandLocal && command != commandProxy, !families[family]:
		return netip.AddrPort{}, refusedMalformed
	case length > maxLength:
		return netip.AddrPort{}, refusedLong
	case command == commandLocal: // what it says of addresses is to be ignored
		return netip.AddrPort{}, skip(r, length)
	}
	return readAddresses(r, family, length)
}

// readFixed reads the part that every header has, and gives up at the first byte that no header has there: who speaks another protocol is not
// waited for.
func readFixed(r io.Reader, fixed *[fixedLength]byte) error {
	for have := 0; have < fixedLength; {
		n, err := r.Read(fixed[have:])
		have += n
		if seen := min(have, len(signature)); string(fixed[:seen]) != signature[:seen] {
			return refusedMissing
		}
		if err != nil && have < fixedLength {
			return readRefusal(err)
		}
	}
	return nil
}

// readAddresses reads source and destination, and wants the source alone.
func readAddresses(r io.Reader, family byte, length int) (netip.AddrPort, error) {
	var addresses [tcp6Length]byte
	size := tcp6Length
	switch family {
	case tcp4:
		size = tcp4Length
	case tcp6:
	default: // also 0, "unknown": it would make the balancer the peer of a connection that is another's
		return netip.AddrPort{}, refusedFamily
	}
	if length < size {
		return netip.AddrPort{}, refusedMalformed
	}
	if _, err := io.ReadFull(r, addresses[:size]); err != nil {
		return netip.AddrPort{}, readRefusal(err)
	}
	ip, _ := netip.AddrFromSlice(addresses[:(size-4)/2])
	port := uint16(addresses[size-4])<<8 | uint16(addresses[size-3])
	if ip = ip.Unmap(); ip.IsUnspecified() || ip.IsMulticast() { // nobody connects from there
		return netip.AddrPort{}, refusedMalformed
	}
	return netip.AddrPortFrom(ip, port), skip(r, length-size)
}

// skip passes over n bytes.
func skip(r io.Reader, n int) error {
	if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
		return readRefusal(err)
	}
	return nil
}

func readRefusal(err error) refusal {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refusedSlow
	}
	return refusedCut
}
