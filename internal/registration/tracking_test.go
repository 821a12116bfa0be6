package registration

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

func trackingOf(t *testing.T, root byte) trackingIDs {
	t.Helper()
	ids, err := newTrackingIDs(bytes.Repeat([]byte{root}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func TestATrackingIDCarriesEveryReasonAndItsTime(t *testing.T) {
	ids, other := trackingOf(t, 1), trackingOf(t, 2)
	random := rand.NewChaCha8([32]byte{9})
	seen := map[string]bool{}
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(1_772_366_400, 999), time.Unix(1<<40-1, 0)} {
		for _, reason := range AllReasons() {
			id, err := ids.mint(random, reason, at)
			if err != nil {
				t.Fatal(err)
			}
			if !guid.MatchString(id) || seen[id] {
				t.Errorf("%s: id %q", reason, id)
			}
			seen[id] = true
			for _, spelled := range []string{id, strings.ToUpper(id), strings.ReplaceAll(id, "-", "")} {
				if got, when, ok := ids.read(spelled); !ok || got != reason || when.Unix() != at.Unix() {
					t.Errorf("%s at %s reads as %s at %s, %t", reason, at, got, when, ok)
				}
			}
			if got, _, ok := other.read(id); ok {
				t.Errorf("another key reads %s", got)
			}
		}
	}
}

func TestWhatIsNoTrackingIDIsNotRead(t *testing.T) {
	ids := trackingOf(t, 1)
	good, err := ids.mint(rand.NewChaCha8([32]byte{}), ReasonOtherEK, time.Unix(1_772_366_400, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "-", good[1:], good + "0", "g" + good[1:], "00000000-0000-0000-0000-000000000000", strings.Repeat("f", 1<<20)} {
		if reason, _, ok := ids.read(id); ok {
			t.Errorf("%.40q reads as %s", id, reason)
		}
	}
	for i := range good { // an id that was mistyped
		changed := []byte(good)
		changed[i] = "0123456789abcdef0"[(strings.IndexByte("0123456789abcdef", changed[i]) + 1)]
		if good[i] == '-' {
			continue
		}
		if reason, _, ok := ids.read(string(changed)); ok {
			t.Errorf("with digit %d changed the id reads as %s", i, reason)
		}
	}
}

// A reason that was added by a newer release, whose ids this one may be asked about.
func TestAReasonOfANewerReleaseIsNotRead(t *testing.T) {
	ids := trackingOf(t, 1)
	id, err := ids.mint(rand.NewChaCha8([32]byte{}), reasonCount, time.Unix(1_772_366_400, 0))
	if err != nil {
		t.Fatal(err)
	}
	if reason, _, ok := ids.read(id); ok {
		t.Errorf("reads as %s", reason)
	}
}

type noChance struct{}

func (noChance) Read([]byte) (int, error) { return 0, errors.New("no chance") }

func TestNoTrackingIDIsMintedWithoutChance(t *testing.T) {
	if id, err := trackingOf(t, 1).mint(noChance{}, ReasonNone, time.Unix(0, 0)); err == nil || id != "" {
		t.Errorf("minted %q", id)
	}
}
