package registration

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"

	"latchkey.example/latchkey/dps"
)

// symmetricKeys are the two keys of an entry, or those that a group gives one device. Secrets.
type symmetricKeys struct{ primary, secondary []byte }

// LogValue, String and GoString hide the keys.
func (symmetricKeys) LogValue() slog.Value { return slog.StringValue("[symmetric keys]") }
func (symmetricKeys) String() string       { return "[symmetric keys]" }
func (symmetricKeys) GoString() string     { return "[symmetric keys]" }

// generatedKey is the size of a key that the service makes, as the imitated one does.
const generatedKey = 64

// standInSecret takes the place of keys that are not there. Nobody can sign with it: what verifies under it is not looked at.
var standInSecret = make([]byte, generatedKey)

// verify gives the key that made the token, nil if neither did. Both are tried, always.
func (k symmetricKeys) verify(token dps.Token) []byte {
	primary, secondary := token.Verify(k.primary), token.Verify(k.secondary)
	switch {
	case primary:
		return k.primary
	case secondary:
		return k.secondary
	}
	return nil
}

// holds says whether a key is one of the two.
func (k symmetricKeys) holds(key []byte) bool {
	return subtle.ConstantTimeCompare(k.primary, key)|subtle.ConstantTimeCompare(k.secondary, key) == 1
}

// derive gives the keys of a device of a group. The id counts as the device spells it, as it does in the tools that derive keys.
func (k symmetricKeys) derive(id string) symmetricKeys {
	return symmetricKeys{dps.DeriveKey(k.primary, id), dps.DeriveKey(k.secondary, id)}
}

// credential is what the hub of such a device holds: the very keys, either of which the device may use there too.
func (k symmetricKeys) credential() Credential {
	return Credential{Primary: k.primary, Secondary: k.secondary}
}

// keyContext is ContextEnrollmentKey or ContextGroupKey.
type keyContext func(scope, foldedID, slot string) string

func (c *Core) openKeys(context keyContext, scope, foldedID string, sealed SealedKeys) (k symmetricKeys, err error) {
	if k.primary, err = c.sealer.Open(context(scope, foldedID, "primary"), sealed.Primary); err != nil {
		return symmetricKeys{}, fmt.Errorf("opening the primary key of %s: %w", foldedID, err)
	}
	if k.secondary, err = c.sealer.Open(context(scope, foldedID, "secondary"), sealed.Secondary); err != nil {
		return symmetricKeys{}, fmt.Errorf("opening the secondary key of %s: %w", foldedID, err)
	}
	return k, nil
}

func (c *Core) sealKeys(context keyContext, scope, foldedID string, k symmetricKeys) (sealed SealedKeys, err error) {
	if sealed.Primary, err = c.sealer.Seal(context(scope, foldedID, "primary"), k.primary); err != nil {
		return SealedKeys{}, err
	}
	sealed.Secondary, err = c.sealer.Seal(context(scope, foldedID, "secondary"), k.secondary)
	return sealed, err
}

// wire shows the keys; nil if there are none.
func (k symmetricKeys) wire() *dps.SymmetricKeys {
	if k.primary == nil {
		return nil
	}
	return &dps.SymmetricKeys{Primary: k.primary, Secondary: k.secondary}
}

// settleKeys decides the keys of an entry that is written: those given; for one not given that of the entry it replaces; a new one
// where there is none. So an entry that was read, whose answer hides its keys, can be changed and written back. Keys that stay are not sealed
// anew.
func (c *Core) settleKeys(context keyContext, scope, foldedID string, given *dps.SymmetricKeys, before SealedKeys) (SealedKeys, symmetricKeys, error) {
	var was symmetricKeys
	if len(before.Primary) > 0 {
		var err error
		if was, err = c.openKeys(context, scope, foldedID, before); err != nil {
			return SealedKeys{}, symmetricKeys{}, err
		}
	}
	k := was
	if given != nil && len(given.Primary) > 0 {
		k.primary = given.Primary
	}
	if given != nil && len(given.Secondary) > 0 {
		k.secondary = given.Secondary
	}
	for _, key := range []*[]byte{&k.primary, &k.secondary} {
		if len(*key) > 0 {
			continue
		}
		*key = make([]byte, generatedKey)
		if _, err := io.ReadFull(c.rand, *key); err != nil {
			return SealedKeys{}, symmetricKeys{}, err
		}
	}
	if was.primary != nil && k.equal(was) {
		return before, k, nil
	}
	sealed, err := c.sealKeys(context, scope, foldedID, k)
	return sealed, k, err
}

func (k symmetricKeys) equal(o symmetricKeys) bool {
	return subtle.ConstantTimeCompare(k.primary, o.primary)&subtle.ConstantTimeCompare(k.secondary, o.secondary) == 1
}
