package registration

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"latchkey.example/latchkey/dps"
)

// Challenge keys are derived, not stored: there is nothing to evict, so a flood of first contacts cannot push the real
// device's challenge out. The key is
//
//	HMAC-SHA256(scope root, "latchkey challenge v2" ‖ scope ‖ id ‖ name(EK) ‖ name(SRK) ‖ slot ‖ generation ‖ enrolled)
//
// with every variable part length-prefixed, so that no two inputs meet. Single use follows from the generation, which the redeeming
// transition moves. When the generation of an id that is gone is forgotten is a matter of clocks, and one that jumps forgets it while old
// challenges are open; so the enrollment's creation, in microseconds since 1970, is in the key too: no challenge of one enrollment counts for another of the same id.
const (
	slotLength = 5 * time.Minute
	// slotsAccepted is the current slot and the one before: a challenge lives between 5 and 10 minutes by the clock it was made by, and between 3 and
	// 12 by one that is up to clockSkew away from it. A slot that begins within clockSkew is accepted too: another node may be in it already.
	slotsAccepted = 2
)

func slotOf(at time.Time) int64 { return at.Unix() / int64(slotLength/time.Second) }

// challengeSubject is all that a challenge is bound to besides the root and the slot.
type challengeSubject struct {
	scope, id       string // id folded
	ekName, srkName []byte
	generation      uint64
	enrolled        time.Time // Enrollment.Created; zero where an enrollment is stood in for
	closing         bool      // the challenge is for closing the registration, and for nothing else
}

func (s challengeSubject) key(root []byte, slot int64) []byte {
	mac := hmac.New(sha256.New, root)
	buf := make([]byte, 0, 256)
	for _, part := range [][]byte{[]byte("latchkey challenge v2"), []byte(s.scope), []byte(s.id), s.ekName, s.srkName} {
		buf = binary.BigEndian.AppendUint16(buf, uint16(len(part)))
		buf = append(buf, part...)
	}
	buf = binary.BigEndian.AppendUint64(buf, uint64(slot))
	buf = binary.BigEndian.AppendUint64(buf, s.generation)
	buf = binary.BigEndian.AppendUint64(buf, uint64(s.enrolled.UnixMicro()))
	if s.closing { // without it the input ends here, so that the two never meet
		buf = append(buf, "close"...)
	}
	mac.Write(buf)
	return mac.Sum(nil)
}

// open finds the accepted slot whose key verifies the token.
func (s challengeSubject) open(root []byte, arrived time.Time, token dps.Token) ([]byte, bool) {
	oldest := slotOf(arrived) - slotsAccepted + 1
	for slot := slotOf(arrived.Add(clockSkew)); slot >= oldest; slot-- {
		if key := s.key(root, slot); token.Verify(key) {
			return key, true
		}
	}
	return nil, false
}
