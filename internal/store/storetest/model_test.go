package storetest

import "testing"

// The model is believed because it passes what it is to judge others by.
func TestTheModelKeepsTheContract(t *testing.T) {
	t.Parallel()
	Sentences(t, func(*testing.T) Store { return NewModel() })
}
