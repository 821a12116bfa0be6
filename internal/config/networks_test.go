package config

import (
	"net/netip"
	"slices"
	"strings"
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

func TestPrivateNetworksOfWebhooksAreReadAsThoseOfBalancers(t *testing.T) {
	c := Default()
	if got, err := c.PrivateWebhooks(); len(got) != 0 || err != nil {
		t.Errorf("by default %v may be called, %v", got, err)
	}
	c.Webhooks.Private = "10.0.0.0/8, fd00::1"
	if got, err := c.PrivateWebhooks(); err != nil || len(got) != 2 || got[0].String() != "10.0.0.0/8" || got[1].String() != "fd00::1/128" {
		t.Errorf("got %v, %v", got, err)
	}
	c.Webhooks.Private = "10.0.0.1/8"
	if err := c.validate(); err == nil || !strings.Contains(err.Error(), "webhooks.private") || !strings.Contains(err.Error(), "10.0.0.0/8") {
		t.Errorf("got %v", err)
	}
}
