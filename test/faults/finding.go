package faults

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Kind says what is wrong.
type Kind string

// The kinds of findings.
const (
	Lost     Kind = "lost"     // acknowledged, and not there any more
	Doubled  Kind = "doubled"  // one proof that counted twice, one id that has two devices
	Invented Kind = "invented" // stored, and never asked for
	Wrong    Kind = "wrong"    // there, and not as it was told
	Refused  Kind = "refused"  // a device that did nothing wrong was turned away
	Stalled  Kind = "stalled"  // the load did not flow: the run shows nothing
)

// Finding is one thing that is not as it must be.
type Finding struct {
	Kind   Kind
	Object string
	What   string
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Kind, f.Object, f.What) }

// maxFindings bounds what is kept: the first ones tell the story.
const maxFindings = 100

// findings is safe for many goroutines.
type findings struct {
	mu   sync.Mutex
	list []Finding
}

func (f *findings) add(kind Kind, object, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) < maxFindings {
		f.list = append(f.list, Finding{kind, object, fmt.Sprintf(format, args...)})
	}
}

func (f *findings) all() []Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.list)
}

// Judge makes an error of findings.
func Judge(found []Finding) error {
	var all []error
	for _, f := range found {
		all = append(all, errors.New(f.String()))
	}
	return errors.Join(all...)
}
