package embedded

import (
	"net"
	"net/netip"
)

// pending counts the connections that have not logged in, all of them and by where they come from. Its map holds addresses that have such a
// connection and no other, so that it is never larger than their number, which is bounded.
type pending struct {
	total     int
	byAddress map[netip.Prefix]int
}

// add takes a place, or reports that there is none left.
func (p *pending) add(address netip.Prefix, limits Limits) bool {
	if p.total >= limits.Pending || p.byAddress[address] >= limits.PendingPerAddress {
		return false
	}
	p.total++
	p.byAddress[address]++
	return true
}

func (p *pending) remove(address netip.Prefix) {
	p.total--
	if p.byAddress[address]--; p.byAddress[address] == 0 {
		delete(p.byAddress, address)
	}
}

// addressOf is where a peer comes from: its IPv4 address, or its IPv6 /64, which is what one host is commonly given. Peers without an IP
// address share the zero value.
func addressOf(remote net.Addr) netip.Prefix {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, _ := ip.WithZone("").Prefix(bits) // the zero value for no address at all
	return prefix
}
