package config

import (
	"net/netip"
	"slices"
	"testing"
)

func TestBalancersAreAddressesAndNetworks(t *testing.T) {
	for text, want := range map[string][]string{
		"":            nil,
		"  ":          nil,
		"192.0.2.7":   {"192.0.2.7/32"},
		"2001:db8::1": {"2001:db8::1/128"},
		" 192.0.2.7 ,\t198.51.100.0/24,2001:db8::/32": {"192.0.2.7/32", "198.51.100.0/24", "2001:db8::/32"},
		"0.0.0.0/0,::/0": {"0.0.0.0/0", "::/0"},
	} {
		c := Config{ProxyFrom: text}
		got, err := c.Balancers()
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if !slices.EqualFunc(got, want, func(p netip.Prefix, s string) bool { return p == netip.MustParsePrefix(s) }) {
			t.Errorf("%q became %v, want %v", text, got, want)
		}
	}
}
