// Package keyring keeps secrets at rest sealed under a small ring of master
// keys that lives in a file of its own, apart from the database.
//
// It guarantees that what Seal returns is unreadable and unchangeable without
// the ring, that it opens only under the context it was sealed for (so that a
// row cannot be moved to another device or column), and that keys can be added
// and rotated while the service runs: everything sealed names its key, old keys
// go on opening, and NeedsReseal finds what still waits for the new one.
//
// It trusts the file system to keep a file of mode 0600 from other users, and
// the operator not to lose the file: without it nothing can be opened again.
//
// Sealing is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03). Its nonce of 24
// bytes is drawn at random for each sealing, so many nodes can share a key and
// count nothing.
package keyring

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

var (
	// ErrUnknownKey says that the sealed bytes name a key that the ring does
	// not hold; the error's text names it.
	ErrUnknownKey = errors.New("keyring: the ring does not hold the key")
	// ErrTampered says that the sealed bytes were changed, cut short, or sealed
	// for another context.
	ErrTampered = errors.New("keyring: sealed bytes were changed or belong elsewhere")
	// ErrNewestIsPrimary is Rotate's refusal when there is nothing to rotate to.
	ErrNewestIsPrimary = errors.New("keyring: the newest key is primary already; add a key first")
)

// sealedVersion is the first byte of everything sealed: version, length of the
// key id, key id, nonce, ciphertext with tag.
const sealedVersion = 1

// Info describes a key of the ring; the key itself never leaves it.
type Info struct {
	ID      string
	Created time.Time
	Primary bool
}

// Ring is a key ring read from a file. Its methods are safe for concurrent use.
// It prints and logs without keys.
type Ring struct {
	path    string
	current atomic.Pointer[ring]
	change  sync.Mutex // serialises Add, Rotate and Reload of this process
}

// ring is one immutable reading of the file.
type ring struct {
	primary string
	infos   []Info
	aeads   map[string]cipher.AEAD
	roots   [][]byte // of what is derived, in the order of infos
}

// Create makes a new ring file with one key, which is primary. It refuses to
// overwrite a file. When it returns without error the file is durable.
func Create(path string, now time.Time) (*Ring, error) {
	c := contents{Primary: "k1", Keys: []entry{newEntry("k1", now)}}
	if err := c.create(path); err != nil {
		return nil, err
	}
	return Open(path)
}

// Open reads a ring file. On Unix it refuses a file that anybody but its owner
// can use.
func Open(path string) (*Ring, error) {
	c, err := read(path)
	if err != nil {
		return nil, err
	}
	r := &Ring{path: path}
	r.current.Store(c.ring())
	return r, nil
}

// Seal encrypts plaintext with the primary key for context, which says what the
// secret is and whose, and must be given to Open again.
func (r *Ring) Seal(context string, plaintext []byte) ([]byte, error) {
	cur := r.current.Load()
	aead := cur.aeads[cur.primary]
	header := appendHeader(make([]byte, 0, 2+len(cur.primary)+aead.NonceSize()+len(plaintext)+aead.Overhead()), cur.primary)
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("keyring: no randomness: %w", err)
	}
	sealed := append(header, nonce...)
	return aead.Seal(sealed, nonce, plaintext, associated(header, context)), nil
}

// Open decrypts what Seal made for context. Its errors are ErrUnknownKey and
// ErrTampered.
func (r *Ring) Open(context string, sealed []byte) ([]byte, error) {
	id, err := KeyID(sealed)
	if err != nil {
		return nil, err
	}
	aead, ok := r.current.Load().aeads[id]
	if !ok {
		return nil, fmt.Errorf("%w %q", ErrUnknownKey, id)
	}
	header, body := sealed[:2+len(id)], sealed[2+len(id):]
	if len(body) < aead.NonceSize()+aead.Overhead() {
		return nil, ErrTampered
	}
	nonce, ciphertext := body[:aead.NonceSize()], body[aead.NonceSize():]
	plaintext, err := aead.Open(nil, nonce, ciphertext, associated(header, context))
	if err != nil {
		return nil, ErrTampered
	}
	return plaintext, nil
}

func appendHeader(b []byte, id string) []byte {
	b = append(b, sealedVersion, byte(len(id)))
	return append(b, id...)
}

// associated is what the tag covers besides the ciphertext. The header carries
// its own length, so header and context cannot be cut in two ways.
func associated(header []byte, context string) []byte {
	return append(append(make([]byte, 0, len(header)+len(context)), header...), context...)
}

// KeyID reads, without opening, which key sealed the bytes. Its only error is
// ErrTampered.
func KeyID(sealed []byte) (string, error) {
	if len(sealed) < 2 || sealed[0] != sealedVersion || len(sealed) < 2+int(sealed[1]) {
		return "", ErrTampered
	}
	id := string(sealed[2 : 2+int(sealed[1])])
	if !validID(id) {
		return "", ErrTampered
	}
	return id, nil
}

// NeedsReseal reports whether bytes were sealed by a key that is not primary,
// or by none that can be read.
func (r *Ring) NeedsReseal(sealed []byte) bool {
	id, err := KeyID(sealed)
	return err != nil || id != r.Primary()
}

// Primary is the id of the key that Seal uses.
func (r *Ring) Primary() string { return r.current.Load().primary }

// Keys lists the ring's keys, oldest first.
func (r *Ring) Keys() []Info { return append([]Info(nil), r.current.Load().infos...) }

// Add makes a new key, not yet primary, and writes the file. Every node must
// have read the file before Rotate makes the key primary, or a node meets bytes
// it cannot open.
func (r *Ring) Add(now time.Time) (id string, err error) {
	err = r.update(func(c *contents) error {
		id, err = c.nextID()
		if err != nil {
			return err
		}
		c.Keys = append(c.Keys, newEntry(id, now))
		return nil
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// Rotate makes the newest key primary and writes the file.
func (r *Ring) Rotate() (id string, err error) {
	err = r.update(func(c *contents) error {
		id = c.Keys[len(c.Keys)-1].ID
		if id == c.Primary {
			return ErrNewestIsPrimary
		}
		c.Primary = id
		return nil
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// update changes the file as it is on disk now, not as this process last read
// it, under a lock that other processes heed: a key that another process has
// just added must not be lost.
func (r *Ring) update(change func(*contents) error) error {
	r.change.Lock()
	defer r.change.Unlock()
	path, err := filepath.EvalSymlinks(r.path) // the rename must not turn a link into a file
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	unlock, err := lockDir(path)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := read(path)
	if err != nil {
		return err
	}
	if err := change(&c); err != nil {
		return err
	}
	if err := c.replace(path); err != nil {
		return err
	}
	r.current.Store(c.ring())
	return nil
}

// Reload reads the file again and from then on uses what it says. If the file
// cannot be used, the ring stays as it was.
func (r *Ring) Reload() error {
	r.change.Lock()
	defer r.change.Unlock()
	c, err := read(r.path)
	if err != nil {
		return err
	}
	r.current.Store(c.ring())
	return nil
}

// String names the file and the primary key.
func (r *Ring) String() string { return fmt.Sprintf("key ring %s, primary %s", r.path, r.Primary()) }

// Format prints no key, whatever the verb.
func (r *Ring) Format(f fmt.State, _ rune) { io.WriteString(f, r.String()) }

// LogValue logs no key.
func (r *Ring) LogValue() slog.Value { return slog.StringValue(r.String()) }

func newAEAD(key []byte) cipher.AEAD {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic("keyring: " + err.Error()) // only a wrong length, which check has refused
	}
	return aead
}
