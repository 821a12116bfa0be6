package attest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// stream is a random source that always yields the same bytes: SHA-256 of a
// counter. It stands for crypto/rand where a test needs the blob to be a known
// one. After limit bytes (0: never) it fails once and then goes on, so that only
// a caller who looks at every error notices.
type stream struct {
	block []byte
	n     uint64
	given int
	limit int
}

var errDry = errors.New("the random source ran dry")

func (s *stream) Read(p []byte) (int, error) {
	for i := range p {
		if s.limit > 0 && s.given == s.limit {
			s.limit = 0
			return i, errDry
		}
		if len(s.block) == 0 {
			sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, s.n))
			s.block, s.n = sum[:], s.n+1
		}
		p[i], s.block = s.block[0], s.block[1:]
		s.given++
	}
	return len(p), nil
}
