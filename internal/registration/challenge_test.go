package registration

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"
)

var goldenSubject = challengeSubject{
	scope: "0ne00000001", id: "pump-7", ekName: append([]byte{0, 11}, bytes.Repeat([]byte{0xEE}, 32)...),
	srkName: append([]byte{0, 11}, bytes.Repeat([]byte{0x55}, 32)...), generation: 3, enrolled: time.UnixMicro(1_772_366_400_000_001),
}

var goldenRoot = bytes.Repeat([]byte{0xA5}, 32)

// The derivation is shared by all nodes and by releases that run side by side: a change of it is a change of every open challenge.
// The expected value was computed apart, with Python's hmac.
func TestChallengeKeyIsTheDocumentedOne(t *testing.T) {
	const want = "75a1baacd3f3d12ac1a484266589406662f5f9db2d760c7ee83f129e5b21155c"
	if got := hex.EncodeToString(goldenSubject.key(goldenRoot, 5_905_000)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEveryInputChangesTheChallengeKey(t *testing.T) {
	seen := map[string]string{}
	try := func(name string, root []byte, slot int64, change func(*challengeSubject)) {
		subject := goldenSubject
		change(&subject)
		key := string(subject.key(root, slot))
		if len(key) != 32 {
			t.Errorf("%s: a key of %d bytes", name, len(key))
		}
		if other, twice := seen[key]; twice {
			t.Errorf("%s gives the key of %s", name, other)
		}
		seen[key] = name
	}
	same := func(*challengeSubject) {}
	try("the base", goldenRoot, 7, same)
	try("another root", bytes.Repeat([]byte{0xA6}, 32), 7, same)
	try("another slot", goldenRoot, 8, same)
	try("another scope", goldenRoot, 7, func(s *challengeSubject) { s.scope = "0ne00000002" })
	try("another id", goldenRoot, 7, func(s *challengeSubject) { s.id = "pump-8" })
	try("another EK", goldenRoot, 7, func(s *challengeSubject) { s.ekName = goldenSubject.srkName })
	try("another SRK", goldenRoot, 7, func(s *challengeSubject) { s.srkName = goldenSubject.ekName })
	try("EK and SRK in each other's place", goldenRoot, 7, func(s *challengeSubject) { s.ekName, s.srkName = s.srkName, s.ekName })
	try("another generation", goldenRoot, 7, func(s *challengeSubject) { s.generation++ })
	try("an enrollment made later", goldenRoot, 7, func(s *challengeSubject) { s.enrolled = s.enrolled.Add(time.Microsecond) })
	try("slot and generation in each other's place", goldenRoot, 3, func(s *challengeSubject) { s.generation = 7 })
}

// Without length prefixes the end of one part could be read as the start of the next.
func TestPartsOfAChallengeDoNotRunIntoEachOther(t *testing.T) {
	parts := func(scope, id, ek, srk string) string {
		return string(challengeSubject{scope, id, []byte(ek), []byte(srk), 1, time.Time{}, false}.key(goldenRoot, 1))
	}
	all := map[string]bool{}
	text := "abcdef"
	n := 0
	for i := 0; i <= len(text); i++ {
		for j := i; j <= len(text); j++ {
			for k := j; k <= len(text); k++ {
				all[parts(text[:i], text[i:j], text[j:k], text[k:])] = true
				n++
			}
		}
	}
	if len(all) != n {
		t.Errorf("%d ways to cut one text into parts gave %d keys", n, len(all))
	}
}

func TestSlotsAreFiveMinutesLong(t *testing.T) {
	at := time.Unix(1_772_366_400, 0)
	for offset, want := range map[time.Duration]int64{0: 5_907_888, slotLength - 1: 5_907_888, slotLength: 5_907_889, -1: 5_907_887} {
		if got := slotOf(at.Add(offset)); got != want {
			t.Errorf("slot at %s is %d, not %d", offset, got, want)
		}
	}
}
