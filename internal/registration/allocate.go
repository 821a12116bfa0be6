package registration

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// placement is what choosing a hub for one device goes by.
type placement struct {
	scope    string
	id       string     // registration id, in any case
	address  netip.Addr // where the device's request came from; the zero value is nowhere
	policy   string     // allocation policy of the entry; empty: the scope's
	named    []string   // hubs that the entry lists; none: all that take part
	current  string     // where the device is now; empty: nowhere
	measured func(hub string) (time.Duration, bool)
}

// allocated is what came of it.
type allocated struct {
	hub string // empty: none
	why string // in public words, where there is none
}

// allocate chooses the hub of a device among the linked ones. It is a function of what it is given alone, and, where latencies do not come into it,
// gives a device the same hub again as long as that hub is there. Custom is not for it.
func allocate(hubs []LinkedHub, settings AllocationSettings, p placement) allocated {
	policy := p.policy
	if policy == "" {
		policy = settings.Default
	}
	eligible, why := p.eligible(hubs, policy)
	switch {
	case len(eligible) == 0:
		return allocated{why: why}
	case policy == dps.AllocationStatic && len(eligible) > 1:
		return allocated{why: "the allocation policy is static and names no hub, while several are linked: name one"}
	case policy == dps.AllocationGeoLatency:
		eligible = nearest(eligible, settings.Regions, p)
	}
	return allocated{hub: weighted(eligible, p.scope, p.id)}
}

// eligible are the hubs that may be chosen, in order of their names, or why there are none. A hub that drains takes nobody new; where nothing else
// is left, who is there stays.
func (p *placement) eligible(hubs []LinkedHub, policy string) (eligible []LinkedHub, why string) {
	named := p.named
	if policy == dps.AllocationStatic && len(named) > 1 {
		named = named[:1]
	}
	draining, stays := false, []LinkedHub(nil)
	for _, hub := range hubs {
		switch {
		case len(named) > 0 && !containsHub(named, hub.Name), len(named) == 0 && !hub.Allocate:
		case hub.Draining:
			draining = true
			if hub.Name == p.current {
				stays = []LinkedHub{hub}
			}
		default:
			eligible = append(eligible, hub)
		}
	}
	switch {
	case len(eligible) > 0:
		return eligible, ""
	case stays != nil:
		return stays, ""
	case draining:
		return nil, "every hub that the device may be given to is being drained"
	case len(named) > 0:
		return nil, "none of the hubs that the entry names is linked"
	}
	return nil, "no linked hub takes part in allocation"
}

func containsHub(names []string, hub string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, hub) })
}

// weighted gives each hub its share of devices by weight (weighted rendezvous hashing). Each hub's bid depends on nothing but the device, that hub
// and its weight: one that is added takes its share from the others and moves nobody between them.
func weighted(hubs []LinkedHub, scope, id string) string {
	id = dps.FoldID(id)
	best, bestCost, bestWeight := "", uint64(0), uint64(0)
	for _, hub := range hubs {
		cost, weight := bid(scope, id, hub.Name), uint64(max(hub.Weight, 1))
		// The hub whose cost/weight is least: cost * bestWeight < bestCost * weight, in 128 bits.
		hi, lo := bits.Mul64(cost, bestWeight)
		bestHi, bestLo := bits.Mul64(bestCost, weight)
		if best == "" || hi < bestHi || hi == bestHi && lo < bestLo || hi == bestHi && lo == bestLo && hub.Name < best {
			best, bestCost, bestWeight = hub.Name, cost, weight
		}
	}
	return best
}

// bid is -log2 of a number between 0 and 1 that the hash of device and hub gives: exponentially distributed, so that dividing by weights shares by
// weights.
func bid(scope, id, hub string) uint64 {
	digest := sha256.Sum256([]byte(scope + "\x00" + id + "\x00" + hub))
	return minusLog2(binary.BigEndian.Uint64(digest[:]))
}

// logBits is how many binary places minusLog2 has.
const logBits = 40

// minusLog2 is -log2((n+1) / 2^64) in units of 2^-logBits, rounded up. It is computed in whole numbers: every node on every processor must come to the
// same hub.
func minusLog2(n uint64) uint64 {
	if n == ^uint64(0) {
		return 0
	}
	n++
	zeros := bits.LeadingZeros64(n)
	log := uint64(63-zeros) << logBits // log2 of n, downwards
	mantissa := n << zeros             // 1 to 2, with 63 binary places
	for place := uint64(1) << (logBits - 1); place > 0; place >>= 1 {
		mantissa, _ = bits.Mul64(mantissa, mantissa) // squaring doubles the logarithm; the product has 62 places
		if mantissa >= 1<<63 {                       // 2 or more
			log |= place
			continue
		}
		mantissa <<= 1
	}
	return 64<<logBits - log
}

// sameLatency is how much farther than the nearest hub the current one may be, by measure, for a device to stay: measurements waver, and each move
// costs the device its connection.
func sameLatency(nearest time.Duration) time.Duration {
	return nearest + max(10*time.Millisecond, nearest/4)
}

// nearest are the hubs with the lowest latency, all of them where nothing is known. What the operator's table says of a region and a hub counts as
// it stands; for others it is what this node has measured from itself, and there a device stays where it is as long as that is about as near.
func nearest(hubs []LinkedHub, regions []Region, p placement) []LinkedHub {
	region := regionOf(regions, p.address)
	least, found := time.Duration(0), []LinkedHub(nil)
	for _, hub := range hubs {
		latency, _, known := latencyTo(hub, region, p.measured)
		switch {
		case !known || found != nil && latency > least:
		case found != nil && latency == least:
			found = append(found, hub)
		default:
			least, found = latency, []LinkedHub{hub}
		}
	}
	if found == nil {
		return hubs
	}
	for _, hub := range hubs {
		latency, measured, known := latencyTo(hub, region, p.measured)
		if hub.Name == p.current && known && measured && latency <= sameLatency(least) {
			return []LinkedHub{hub}
		}
	}
	return found
}

// latencyTo is how far a hub is from a region, which may be nil, and whether that was measured from here.
func latencyTo(hub LinkedHub, region *Region, measure func(hub string) (time.Duration, bool)) (latency time.Duration, measured, known bool) {
	if region != nil {
		if ms, told := region.Latency[hub.Name]; told {
			return time.Duration(ms) * time.Millisecond, false, true
		}
		if hub.Region != "" && strings.EqualFold(hub.Region, region.Name) {
			return 0, false, true
		}
	}
	if measure == nil {
		return 0, false, false
	}
	latency, known = measure(hub.Name)
	return latency, true, known
}

// regionOf is the region with the longest prefix that an address is in; nil if it is in none. Of equal ones the first counts.
func regionOf(regions []Region, address netip.Addr) *Region {
	address = address.Unmap().WithZone("")
	var found *Region
	longest := -1
	for i := range regions {
		for _, network := range regions[i].Networks {
			if network.Bits() > longest && network.Contains(address) {
				found, longest = &regions[i], network.Bits()
			}
		}
	}
	return found
}
