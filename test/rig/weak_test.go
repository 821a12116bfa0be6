package rig

import "testing"

// A weakness that no longer fits the sources must not pass for one that was
// found.
func TestWeaknessThatDoesNotFitIsToldLoudly(t *testing.T) {
	for name, w := range map[string]Weakness{
		"no such line":   {File: "internal/registration/challenge.go", Good: "no such line", Bad: "x"},
		"several places": {File: "internal/registration/challenge.go", Good: "return", Bad: "x"},
		"no such file":   {File: "internal/registration/none.go", Good: "x", Bad: "y"},
	} {
		if path, err := w.overlay(t.TempDir()); err == nil {
			t.Errorf("%s: made %s", name, path)
		}
	}
}
