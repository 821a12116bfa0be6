package outbound

import (
	"fmt"
	"net/netip"
	"syscall"
)

// closed are the networks that no URL of an operator leads into unless the configuration opens them: those of this machine, of its neighbours and
// of cloud providers' metadata services, whatever is no unicast address, and those that carry another address in them, which would be reached by a
// detour (IANA special-purpose address registries, RFC 6890 and its updates).
var closed = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// Refused says that an address is in a network that may not be called.
type Refused struct{ Address netip.Addr }

func (r Refused) Error() string {
	return fmt.Sprintf("%s is in a private or reserved network: the setting webhooks.private opens those that may be called", r.Address)
}

// judge says whether an address may be called. An IPv4 address written as IPv6 is that IPv4 address.
func judge(address netip.Addr, open []netip.Prefix) error {
	address = address.Unmap().WithZone("")
	for _, network := range open {
		if network.Contains(address) {
			return nil
		}
	}
	for _, network := range closed {
		if network.Contains(address) {
			return Refused{address}
		}
	}
	return nil
}

// Control is for the Control of a net.Dialer: it judges where a connection really goes, after the name was resolved, since a name may answer
// otherwise each time that it is asked. Open are private networks that may be called.
func Control(open []netip.Prefix) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return judge(to.Addr(), open)
	}
}
