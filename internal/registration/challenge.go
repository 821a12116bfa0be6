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
//	HMAC-SHA256(scope root, "latchkey challenge v1" ‖ scope ‖ id ‖ name(EK) ‖ name(SRK) ‖ slot ‖ generation)
//
// with every variable part length-prefixed, so that no two inputs meet. Single use follows from the generation, which the redeeming
// transition moves.
const (
	slotLength = 5 * time.Minute
	// slotsAccepted is the current slot and the one before: a challenge lives between 5 and 10 minutes.
	slotsAccepted = 2
)

func slotOf(at time.Time) int64 { return at.Unix() / int64(slotLength/time.Second) }

// challengeSubject is all that a challenge is bound to besides the root and the slot.
type challengeSubject struct {
	scope, id       string // id folded
	ekName, srkName []byte
	generation      uint64
}

func (s challengeSubject) key(root []byte, slot int64) []byte {
	mac := hmac.New(sha256.New, root)
	buf := make([]byte, 0, 256)
	for _, part := range [][]byte{[]byte("latchkey challenge v1"), []byte(s.scope), []byte(s.id), s.ekName, s.srkName} {
		buf = binary.BigEndian.AppendUint16(buf, uint16(len(part)))
		buf = append(buf, part...)
	}
	buf = binary.BigEndian.AppendUint64(buf, uint64(slot))
	buf = binary.BigEndian.AppendUint64(buf, s.generation)
	mac.Write(buf)
	return mac.Sum(nil)
}

// open finds the accepted slot whose key verifies the token.
func (s challengeSubject) open(root []byte, slot int64, token dps.Token) ([]byte, bool) {
	for age := range int64(slotsAccepted) {
		if key := s.key(root, slot-age); token.Verify(key) {
			return key, true
		}
	}
	return nil, false
}
