package dps

import (
	"encoding/json"
	"strings"
	"testing"
)

// Both messages about hubs: what one takes is mostly refused by the other.
func FuzzDecodeHubMessages(f *testing.F) {
	for _, seed := range []string{
		`{"kind":"azure","weight":3,"allocate":false,"draining":true,"region":"north","settings":{"a":[1]},"secret":{"connectionString":"x"}}`,
		`{"name":"h","etag":"x","health":{"state":"ok"},"devices":3,"own":true}`, `{"weight":null}`, `{"kind":"broker","secret":{}}`, `{"weight":1e3}`, `{}`, `[]`, `{"settings":{"a":{"a":{}}}}`,
		`{"defaultPolicy":"hashed","regions":[{"name":"n","networks":["192.0.2.0/24","2001:db8::/32"],"latency":{"h.example":3}}]}`,
		`{"regions":[]}`, `{"regions":[{"name":"n","networks":["0.0.0.0/0"]},{"name":"m","networks":["::/0"]}]}`, `{"etag":"x","warnings":[]}`, `{"regions":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		judgeAllocation(t, body)
		h, err := DecodeLinkedHub(body)
		if err != nil {
			if len(err.Error()) > 300 {
				t.Errorf("a refusal of %d bytes", len(err.Error()))
			}
			return
		}
		for _, object := range []json.RawMessage{h.Settings, h.Secret} {
			if object != nil && (object[0] != '{' || !json.Valid(object) || len(object) > maxHubSettings) {
				t.Errorf("taken as an object: %q", object)
			}
		}
		if h.Weight != nil && (*h.Weight < 1 || *h.Weight > maxHubWeight) || h.Region != nil && len(*h.Region) > MaxHubRegion {
			t.Errorf("taken: %+v", h)
		}
		if len(h.Secret) > maxHubSecret {
			t.Errorf("a secret of %d bytes", len(h.Secret))
		}
	})
}

func judgeAllocation(t *testing.T, body []byte) {
	a, err := DecodeAllocation(body)
	if err != nil || a.Regions == nil {
		return
	}
	for _, r := range *a.Regions {
		if r.Name == "" || len(r.Networks) == 0 {
			t.Errorf("taken: %+v", r)
		}
		for _, n := range r.Networks {
			if !n.IsValid() || n != n.Masked() {
				t.Errorf("taken as a network: %v", n)
			}
		}
		for hub, ms := range r.Latency {
			if !ValidHubName(hub) || ms < 0 || ms > maxRegionLatency {
				t.Errorf("taken: %q %d", hub, ms)
			}
		}
	}
}

func TestHubNamesAreHostNamesInLowerCase(t *testing.T) {
	for name, want := range map[string]bool{
		"hub.example.net": true, "a": true, "192.0.2.1": true, "my_hub-1.example": true, strings.Repeat("a", 63) + ".example": true,
		"": false, "Hub.example": false, "hub.example.": false, ".hub": false, "a..b": false, "-a.b": false, "a-.b": false, "hub:8883": false, "[::1]": false, "hub/x": false,
		"hub\x00": false, "hüb": false, strings.Repeat("a", 64) + ".example": false, strings.Repeat("a.", 127): false, strings.Repeat("a.", 126) + "ab": false,
	} {
		if got := ValidHubName(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}
