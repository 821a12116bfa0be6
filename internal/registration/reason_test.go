package registration

import (
	"regexp"
	"testing"
)

func TestEveryReasonHasANameAndAnExplanation(t *testing.T) {
	shape := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	names, texts := map[string]Reason{}, map[string]Reason{}
	for _, r := range AllReasons() {
		if !shape.MatchString(r.String()) {
			t.Errorf("reason %d is called %q", r, r)
		}
		if len(r.Explain()) < 20 || r.Explain()[len(r.Explain())-1] != '.' {
			t.Errorf("%s is explained as %q", r, r.Explain())
		}
		if other, twice := names[r.String()]; twice {
			t.Errorf("reasons %d and %d share the name %s", r, other, r)
		}
		if other, twice := texts[r.Explain()]; twice {
			t.Errorf("%s and %s share their explanation", r, other)
		}
		names[r.String()], texts[r.Explain()] = r, r
	}
	if reasonCount.String() != "unknown" || reasonCount.Explain() != "" {
		t.Error("a number that is no reason has a name")
	}
}

// Tracking ids and the audit carry the numbers: they may be added to and never change.
func TestNumbersOfReasonsDoNotMove(t *testing.T) {
	for number, name := range map[Reason]string{
		0: "none", 1: "challenged", 2: "registered", 5: "unknown-scope", 6: "unknown-id", 7: "other-ek", 22: "token-signature", 23: "token-spent",
		25: "disabled", 26: "pinned-srk", 29: "store-down", 35: "admin-token", 42: "conflict", 45: "superseded", 48: "owner-changed", 49: "managed",
	} {
		if number.String() != name {
			t.Errorf("reason %d is %s, was %s", number, number, name)
		}
	}
}
