package iothub

import (
	"strconv"
	"strings"
)

// Mark is what Latchkey keeps of its own in the statusReason of an identity at a hub that it does not run: which proof of the device the
// identity was last made for, and what of that is still to be done. Operators see it and may read it.
type Mark struct {
	Generation uint64 // rises with each proof; what is older is never written over what is newer
	Stage      Stage
}

// Stage is how far an identity has been made.
type Stage string

// The stages. Whoever finds one that is not Made goes on from there.
const (
	Made    Stage = ""
	New     Stage = "new"     // the twin is still to be written
	Rekeyed Stage = "rekeyed" // it holds a new credential; what the owner before has left is still to be cleared
)

const markPrefix = "latchkey generation "

// String is the mark as statusReason holds it, such as "latchkey generation 42 new".
func (m Mark) String() string {
	s := markPrefix + strconv.FormatUint(m.Generation, 10)
	if m.Stage != Made {
		s += " " + string(m.Stage)
	}
	return s
}

// ParseMark reads a statusReason. False if it is anything but a mark: an identity that somebody else made, or whose reason an operator has
// written over.
func ParseMark(statusReason string) (Mark, bool) {
	rest, marked := strings.CutPrefix(statusReason, markPrefix)
	digits, stage, _ := strings.Cut(rest, " ")
	generation, err := strconv.ParseUint(digits, 10, 64)
	m := Mark{Generation: generation, Stage: Stage(stage)}
	known := m.Stage == Made || m.Stage == New || m.Stage == Rekeyed
	if !marked || err != nil || !known || m.String() != statusReason {
		return Mark{}, false
	}
	return m, true
}
