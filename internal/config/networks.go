package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Balancers is ProxyFrom as networks: IPv4 as such, an address as the network of it alone. None if ProxyFrom is empty.
func (c *Config) Balancers() (list []netip.Prefix, err error) {
	return networks("proxyFrom", c.ProxyFrom)
}

// PrivateWebhooks is Webhooks.Private as networks, in the same way.
func (c *Config) PrivateWebhooks() (list []netip.Prefix, err error) {
	return networks("webhooks.private", c.Webhooks.Private)
}

// networks reads IP addresses and CIDRs with commas between.
func networks(key, text string) (list []netip.Prefix, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for entry := range strings.SplitSeq(text, ",") {
		network, problem := network(strings.TrimSpace(entry))
		if problem != "" {
			return nil, fmt.Errorf("%s: %q %s", key, strings.TrimSpace(entry), problem)
		}
		list = append(list, network)
	}
	return list, nil
}

// network reads one entry, or says in the rest of a sentence what is wrong with it. A slip here would let others say where they come from, or be
// called where they must not, so nothing is taken that can be read in two ways.
func network(entry string) (network netip.Prefix, problem string) {
	if ip, err := netip.ParseAddr(entry); err == nil {
		network = netip.PrefixFrom(ip.WithZone(""), ip.BitLen())
		if ip.Zone() != "" {
			return network, "has a zone: write the address without it"
		}
	} else if network, err = netip.ParsePrefix(entry); err != nil {
		return network, "is neither an IP address nor a CIDR: write such as 192.0.2.7 or 192.0.2.0/24, with commas between"
	}
	switch ip := network.Addr(); {
	case ip.Is4In6():
		return network, "is IPv4 in the form of IPv6: write it as IPv4"
	case network != network.Masked():
		return network, fmt.Sprintf("has bits beyond its length: write %s, or the address alone", network.Masked())
	}
	return network, ""
}
