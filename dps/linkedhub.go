package dps

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
)

// Messages about linked hubs and how they are chosen. They are Latchkey's own, under /latchkey/v1, so an unknown member is refused, but for those that
// only the service may set: what was read may be sent back.

// Bounds of these messages.
const (
	MaxHubRegion   = 64 // characters of a region's name
	maxHubSettings = 64 << 10
	maxHubSecret   = 8 << 10
	maxHubWeight   = 1000

	maxRegions        = 100
	maxRegionNetworks = 1000
	maxRegionHubs     = 200
	maxRegionLatency  = 60_000
)

// LinkedHub is a message about a linked hub. Nil members are absent.
type LinkedHub struct {
	Kind               string // empty: absent
	Weight             *int
	Allocate, Draining *bool
	Region             *string
	Settings, Secret   json.RawMessage // objects
}

var linkedHubAnswers = []string{"name", "etag", "own", "secretSet", "createdDateTimeUtc", "lastUpdatedDateTimeUtc", "health", "devices", "assigning"}

// DecodeLinkedHub reads such a message. Whether settings and secret are what the kind needs is not judged here. Errors are *FieldError and hold
// nothing of the secret.
func DecodeLinkedHub(body []byte) (h LinkedHub, err error) {
	if err := checkObject(body); err != nil {
		return LinkedHub{}, err
	}
	err = eachMember(body, h.member)
	if err != nil {
		return LinkedHub{}, err
	}
	return h, nil
}

func (h *LinkedHub) member(name, value []byte) (err error) {
	n := string(name)
	if isNull(value) && n != "kind" {
		return known(n, append([]string{"weight", "allocate", "draining", "region", "settings", "secret"}, linkedHubAnswers...))
	}
	switch n {
	case "kind":
		h.Kind, err = wordValue(n, value, "embedded", "azure", "broker")
	case "weight":
		h.Weight, err = wholeValue(n, value, 1, maxHubWeight)
	case "allocate":
		h.Allocate, err = boolValue(n, value)
	case "draining":
		h.Draining, err = boolValue(n, value)
	case "region":
		var region string
		if region, err = stringValue(n, value); err == nil {
			h.Region, err = &region, regionName(n, region)
		}
	case "settings":
		h.Settings, err = boundedObject(n, value, maxHubSettings)
	case "secret":
		h.Secret, err = boundedObject(n, value, maxHubSecret)
	default:
		err = known(n, linkedHubAnswers)
	}
	return err
}

func known(name string, names []string) error {
	for _, n := range names {
		if n == name {
			return nil
		}
	}
	return refuse("", "the message may have the members kind, weight, allocate, draining, region, settings and secret")
}

func boundedObject(path string, value []byte, limit int) (json.RawMessage, error) {
	if len(value) > limit {
		return nil, refuse(path, "is longer than %d bytes", limit)
	}
	return objectValue(path, value)
}

func boolValue(path string, value []byte) (*bool, error) {
	switch string(value) {
	case "true", "false":
		yes := string(value) == "true"
		return &yes, nil
	}
	return nil, refuse(path, "must be true or false")
}

// wholeValue reads a number that is written without point and exponent.
func wholeValue(path string, value []byte, least, most int) (*int, error) {
	n, err := strconv.Atoi(string(value))
	if err != nil || n < least || n > most {
		return nil, refuse(path, "must be a whole number from %d to %d", least, most)
	}
	return &n, nil
}

func regionName(path, name string) error {
	if len(name) > MaxHubRegion || strings.TrimSpace(name) != name || !printable(strings.ReplaceAll(name, " ", "")) {
		return refuse(path, "must be at most %d printable ASCII characters that neither begin nor end with a blank", MaxHubRegion)
	}
	return nil
}

// ValidHubName reports whether a linked hub may have the name: a host name in lower case, without a port.
func ValidHubName(name string) bool {
	if len(name) < 1 || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) < 1 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// Allocation is a message about how hubs are chosen where an enrollment says nothing else. Nil members are absent.
type Allocation struct {
	DefaultPolicy *string
	Regions       *[]Region
}

// Region is one line of the table for geoLatency.
type Region struct {
	Name     string
	Networks []netip.Prefix // without host bits, each once in the table
	Latency  map[string]int // milliseconds by hub name, lower case
}

// DecodeAllocation reads such a message. Errors are *FieldError.
func DecodeAllocation(body []byte) (a Allocation, err error) {
	if err := checkObject(body); err != nil {
		return Allocation{}, err
	}
	err = eachMember(body, func(name, value []byte) error {
		switch n := string(name); n {
		case "defaultPolicy":
			word, err := wordValue(n, value, AllocationHashed, AllocationGeoLatency, AllocationStatic)
			a.DefaultPolicy = &word
			return err
		case "regions":
			regions, err := decodeRegions(value)
			a.Regions = &regions
			return err
		case "etag", "webhookKeySet", "lastUpdatedDateTimeUtc", "warnings":
			return nil
		}
		return refuse("", "the message may have the members defaultPolicy and regions")
	})
	if err != nil {
		return Allocation{}, err
	}
	return a, nil
}

func decodeRegions(value []byte) (regions []Region, err error) {
	if value[0] != '[' {
		return nil, refuse("regions", "must be an array of regions")
	}
	names, networks := map[string]bool{}, map[netip.Prefix]bool{}
	err = eachElement(value, func(element []byte) error {
		if len(regions) == maxRegions {
			return refuse("regions", "holds more than %d regions", maxRegions)
		}
		region, err := decodeRegion(element)
		if err != nil {
			return err
		}
		folded := strings.ToLower(region.Name)
		if names[folded] {
			return refuse("regions", "names the region %s twice", region.Name)
		}
		names[folded] = true
		for _, network := range region.Networks {
			if networks[network] {
				return refuse("regions", "has the network %s twice", network)
			}
			if networks[network] = true; len(networks) > maxRegionNetworks {
				return refuse("regions", "holds more than %d networks", maxRegionNetworks)
			}
		}
		regions = append(regions, region)
		return nil
	})
	return regions, err
}

func decodeRegion(object []byte) (r Region, err error) {
	if object[0] != '{' {
		return r, refuse("regions", "must be an array of objects with name, networks and latency")
	}
	err = eachMember(object, func(name, value []byte) (err error) {
		switch string(name) {
		case "name":
			if r.Name, err = stringValue("regions.name", value); err == nil {
				err = regionName("regions.name", r.Name)
			}
		case "networks":
			r.Networks, err = networksValue(value)
		case "latency":
			r.Latency, err = latencyValue(value)
		default:
			err = refuse("regions", "has objects with name, networks and latency only")
		}
		return err
	})
	switch {
	case err != nil:
		return r, err
	case r.Name == "":
		return r, refuse("regions.name", "is missing")
	case len(r.Networks) == 0:
		return r, refuse("regions.networks", "must hold one network at least: without one nobody is in %s", r.Name)
	}
	return r, nil
}

func networksValue(value []byte) (networks []netip.Prefix, err error) {
	const path = "regions.networks"
	if value[0] != '[' {
		return nil, refuse(path, "must be an array of networks such as 192.0.2.0/24")
	}
	err = eachElement(value, func(element []byte) error {
		text, err := stringValue(path, element)
		if err != nil {
			return err
		}
		network, err := netip.ParsePrefix(text)
		if err != nil || network.Masked() != network || network.Addr().Is4In6() {
			return refuse(path, "must hold networks such as 192.0.2.0/24 and 2001:db8::/32, without bits behind their length")
		}
		if len(networks) == maxRegionNetworks {
			return refuse(path, "holds more than %d networks", maxRegionNetworks)
		}
		networks = append(networks, network)
		return nil
	})
	return networks, err
}

func latencyValue(value []byte) (map[string]int, error) {
	const path = "regions.latency"
	if value[0] != '{' {
		return nil, refuse(path, "must be an object of milliseconds by the names of hubs")
	}
	latency := map[string]int{}
	err := eachMember(value, func(name, value []byte) error {
		hub := string(name)
		if !ValidHubName(hub) {
			return refuse(path, "must name hubs by their host names in lower case")
		}
		if len(latency) == maxRegionHubs {
			return refuse(path, "names more than %d hubs", maxRegionHubs)
		}
		ms, err := wholeValue(path, value, 0, maxRegionLatency)
		if err == nil {
			latency[hub] = *ms
		}
		return err
	})
	return latency, err
}
