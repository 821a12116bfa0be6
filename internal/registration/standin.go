package registration

import "encoding/hex"

// standInKey is the TPM2B_PUBLIC of a storage key over the base point of P-256. It takes the place of a key that is not there, so that a
// token for an unknown id costs what one for a known id costs. Everybody knows its private half; nothing is ever wrapped to it.
var standInKey = mustHex("005a0023000b00030072000000060080004300100003001000206b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" +
	"00204fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")

func mustHex(text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return b
}

// ownersTried is how many owners findChallenge tries before it gives up, always: the one in the body, the last proven one, and those
// remembered.
const ownersTried = 2 + MaxOwners

// padOwners fills the list up with the stand-in.
func padOwners(owners [][]byte) [][]byte {
	for len(owners) < ownersTried {
		owners = append(owners, standInKey)
	}
	return owners
}
