package keyring

import (
	"crypto/hkdf"
	"crypto/sha256"
)

// rootSalt keeps what is derived apart from what the keys themselves do, sealing.
const rootSalt = "latchkey key ring, derived keys"

// Derive makes from each key of the ring another one for a purpose: HKDF with SHA-256 (RFC 5869). The primary key's comes first, then the
// others', newest first. Whoever holds the same ring derives the same keys; whoever holds a derived key learns nothing of the ring or of
// the keys for other purposes.
func (r *Ring) Derive(purpose string) [][32]byte {
	current := r.current.Load()
	derived := make([][32]byte, 0, len(current.roots))
	for i, info := range current.infos {
		if info.Primary {
			derived = append(derived, expand(current.roots[i], purpose))
		}
	}
	for i := len(current.infos) - 1; i >= 0; i-- {
		if !current.infos[i].Primary {
			derived = append(derived, expand(current.roots[i], purpose))
		}
	}
	return derived
}

func root(key []byte) []byte {
	prk, err := hkdf.Extract(sha256.New, key, []byte(rootSalt))
	if err != nil {
		panic("keyring: " + err.Error()) // no length is wrong
	}
	return prk
}

func expand(root []byte, purpose string) (key [32]byte) {
	made, err := hkdf.Expand(sha256.New, root, purpose, len(key))
	if err != nil {
		panic("keyring: " + err.Error())
	}
	copy(key[:], made)
	return key
}
