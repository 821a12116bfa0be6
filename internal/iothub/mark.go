package iothub

import (
	"strconv"
	"strings"
)

// Mark is what Latchkey keeps of its own in the statusReason of an identity at a hub that it does not run: which proof of the device the
// identity was last made for, and whether it is still being made. Operators see it and may read it.
type Mark struct {
	Generation uint64 // rises with each proof; what is older is never written over what is newer
	Unfinished bool   // the identity is there, its twin not yet
}

const (
	markPrefix     = "latchkey generation "
	markUnfinished = " new"
)

// String is the mark as statusReason holds it, such as "latchkey generation 42 new".
func (m Mark) String() string {
	s := markPrefix + strconv.FormatUint(m.Generation, 10)
	if m.Unfinished {
		s += markUnfinished
	}
	return s
}

// ParseMark reads a statusReason. False if it is anything but a mark: an identity that somebody else made, or whose reason an operator has
// written over.
func ParseMark(statusReason string) (Mark, bool) {
	digits, marked := strings.CutPrefix(statusReason, markPrefix)
	digits, unfinished := strings.CutSuffix(digits, markUnfinished)
	generation, err := strconv.ParseUint(digits, 10, 64)
	m := Mark{Generation: generation, Unfinished: unfinished}
	if !marked || err != nil || m.String() != statusReason {
		return Mark{}, false
	}
	return m, true
}
