package registration

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"
)

// trackingIDs mints tracking ids that carry the reason of an answer inside them, readable only with the scope's key: one
// AES-128 block over
//
//	0    4     5          10      16
//	0000 reason unix-time  random
//
// written as a GUID. To anybody else it is a random number, and the operator can explain every refusal by its id alone, however many
// came after it and on whichever node: no flood can push it out of memory.
type trackingIDs struct{ block cipher.Block }

func newTrackingIDs(root []byte) (trackingIDs, error) {
	key, err := hkdf.Key(sha256.New, root, nil, "latchkey tracking ids v1", 16)
	if err != nil {
		return trackingIDs{}, fmt.Errorf("deriving the tracking id key: %w", err)
	}
	block, err := aes.NewCipher(key)
	return trackingIDs{block}, err
}

func (t trackingIDs) mint(random io.Reader, reason Reason, at time.Time) (string, error) {
	var plain, sealed [16]byte
	if _, err := io.ReadFull(random, plain[10:]); err != nil {
		return "", err
	}
	binary.BigEndian.PutUint64(plain[2:10], uint64(at.Unix())) // the time needs five bytes; the rest is overwritten
	plain[2], plain[3], plain[4] = 0, 0, byte(reason)
	t.block.Encrypt(sealed[:], plain[:])
	h := hex.EncodeToString(sealed[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
}

// read says what an id carries; ok is false for an id that was not minted with this key.
func (t trackingIDs) read(id string) (reason Reason, at time.Time, ok bool) {
	sealed, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(sealed) != 16 {
		return 0, time.Time{}, false
	}
	var plain [16]byte
	t.block.Decrypt(plain[:], sealed)
	if binary.BigEndian.Uint32(plain[:4]) != 0 || Reason(plain[4]) >= reasonCount {
		return 0, time.Time{}, false
	}
	var unix [8]byte
	copy(unix[3:], plain[5:10])
	return Reason(plain[4]), time.Unix(int64(binary.BigEndian.Uint64(unix[:])), 0).UTC(), true
}

// Track gives the tracking id of an answer that no operation of the core made. The scope may be unknown.
func (c *Core) Track(scopeID string, reason Reason) string {
	s, _ := c.scope(scopeID)
	return c.track(s, reason)
}
