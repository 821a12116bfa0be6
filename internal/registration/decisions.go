package registration

import (
	"strings"
	"sync"
	"time"
)

// Decisions is the memory of refusals before proof: strangers write here, so it has a fixed size and a fixed cost, and a flood
// only makes counts rise. Same scope, id and reason share an entry; when the ring is full the entry whose turn it is goes.
type Decisions struct {
	mu      sync.Mutex
	ring    []DecisionEntry
	index   map[decisionKey]int
	next    int
	dropped uint64
}

// DecisionEntry is one aggregated line.
type DecisionEntry struct {
	Decision // of the latest
	First    time.Time
	Count    uint64
}

type decisionKey struct {
	scope, id string
	reason    Reason
}

// newDecisions makes a ring of the given number of entries.
func newDecisions(size int) *Decisions {
	return &Decisions{ring: make([]DecisionEntry, 0, size), index: make(map[decisionKey]int, size)}
}

const (
	decisionEntries = 4096
	decisionText    = 200 // longest note or id kept
)

func (d *Decisions) add(x Decision) {
	x.ID, x.Scope, x.Note = clip(x.ID), clip(x.Scope), clip(x.Note)
	key := decisionKey{x.Scope, x.ID, x.Reason}
	d.mu.Lock()
	defer d.mu.Unlock()
	if i, ok := d.index[key]; ok {
		first := d.ring[i].First
		d.ring[i] = DecisionEntry{x, first, d.ring[i].Count + 1}
		return
	}
	entry := DecisionEntry{x, x.At, 1}
	if len(d.ring) < cap(d.ring) {
		d.index[key] = len(d.ring)
		d.ring = append(d.ring, entry)
		return
	}
	old := d.ring[d.next]
	delete(d.index, decisionKey{old.Scope, old.ID, old.Reason})
	d.ring[d.next], d.index[key] = entry, d.next
	d.next = (d.next + 1) % len(d.ring)
	d.dropped++
}

// has says whether a decision of this kind is remembered that is younger than an operation's window.
func (d *Decisions) has(x Decision) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, ok := d.index[decisionKey{clip(x.Scope), clip(x.ID), x.Reason}]
	if !ok {
		return false
	}
	age := x.At.Sub(d.ring[i].At)
	return age > -operationWindow && age < operationWindow // one that seems to come is of a clock that went back
}

// find returns the entry whose latest decision has the tracking id.
func (d *Decisions) find(scope, trackingID string) (DecisionEntry, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.ring {
		if e.TrackingID == trackingID && (e.Scope == scope || e.Reason == ReasonUnknownScope) {
			return e, true
		}
	}
	return DecisionEntry{}, false
}

func clip(s string) string {
	if len(s) > decisionText {
		s = strings.ToValidUTF8(s[:decisionText], "")
	}
	return strings.Clone(s) // a part of a request line would keep the whole of it alive
}
