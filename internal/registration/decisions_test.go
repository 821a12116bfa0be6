package registration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func decision(id string, reason Reason, trackingID string, at time.Time) Decision {
	return Decision{At: at, Scope: "s", ID: id, Address: "192.0.2.1:1", Reason: reason, TrackingID: trackingID, Note: "note"}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestDecisionsOfOneKindShareAnEntry(t *testing.T) {
	d := newDecisions(8)
	for i := range 1000 {
		d.add(decision("pump", ReasonUnknownID, fmt.Sprint("t", i), noon.Add(time.Duration(i)*time.Second)))
	}
	d.add(decision("pump", ReasonOtherEK, "other reason", noon))
	d.add(decision("valve", ReasonUnknownID, "other id", noon))
	entry, found := d.find("s", "t999")
	if !found || entry.Count != 1000 || !entry.First.Equal(noon) || !entry.At.Equal(noon.Add(999*time.Second)) || entry.Note != "note" {
		t.Errorf("found %t: %+v", found, entry)
	}
	if _, found := d.find("s", "t998"); found {
		t.Error("an entry is found by an id that is not its latest")
	}
	if len(d.ring) != 3 || len(d.index) != 3 || d.dropped != 0 {
		t.Errorf("%d entries, %d keys, %d dropped", len(d.ring), len(d.index), d.dropped)
	}
}

func TestTheRingIsBoundedAndTheOldestGoes(t *testing.T) {
	const size = 16
	d := newDecisions(size)
	for i := range 10 * size {
		d.add(decision(fmt.Sprint("id", i), ReasonUnknownID, fmt.Sprint("t", i), noon))
	}
	if len(d.ring) != size || cap(d.ring) != size || len(d.index) != size || d.dropped != 9*size {
		t.Errorf("%d entries of %d, %d keys, %d dropped", len(d.ring), cap(d.ring), len(d.index), d.dropped)
	}
	for i := range 10 * size {
		if _, found := d.find("s", fmt.Sprint("t", i)); found != (i >= 9*size) {
			t.Errorf("entry %d found: %t", i, found)
		}
	}
	for key, i := range d.index {
		if e := d.ring[i]; key != (decisionKey{e.Scope, e.ID, e.Reason}) {
			t.Errorf("the index leads from %v to %v", key, e)
		}
	}
}

func TestLongTextsOfStrangersAreCut(t *testing.T) {
	d := newDecisions(2)
	long := strings.Repeat("x", 1<<20)
	d.add(Decision{Scope: long, ID: long, Note: long, Reason: ReasonUnknownScope, TrackingID: "t"})
	e, found := d.find("any", "t")
	if !found || len(e.Scope) != decisionText || len(e.ID) != decisionText || len(e.Note) != decisionText {
		t.Errorf("found %t: %d, %d and %d bytes", found, len(e.Scope), len(e.ID), len(e.Note))
	}
}

func TestAnotherScopesDecisionsAreNotFoundButUnknownScopesAre(t *testing.T) {
	d := newDecisions(4)
	d.add(Decision{Scope: "theirs", ID: "pump", Reason: ReasonUnknownID, TrackingID: "t1"})
	d.add(Decision{Scope: "no such scope", ID: "pump", Reason: ReasonUnknownScope, TrackingID: "t2"})
	if _, found := d.find("mine", "t1"); found {
		t.Error("found another scope's decision")
	}
	if _, found := d.find("mine", "t2"); !found {
		t.Error("did not find the decision about an unknown scope")
	}
}

func TestDecisionsAreSafeTogether(t *testing.T) {
	d := newDecisions(8)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 500 {
				d.add(decision(fmt.Sprint(i%20), ReasonUnknownID, fmt.Sprint(g, i), noon))
				d.find("s", fmt.Sprint(g, i))
			}
		})
	}
	all.Wait()
	total := d.dropped
	for _, e := range d.ring {
		total += e.Count
	}
	if len(d.ring) != 8 || total > 4000 {
		t.Errorf("%d entries, %d counted", len(d.ring), total)
	}
}
