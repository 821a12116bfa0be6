package keyring

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	maxFile = 64 << 10
	maxKeys = 100
)

// contents is the file: {"primary":"k1","keys":[{"id":"k1","created":"…","key":"…"}]}.
// Keys stand in the order in which they were made.
type contents struct {
	Primary string  `json:"primary"`
	Keys    []entry `json:"keys"`
}

type entry struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Key     []byte    `json:"key"` // 32 bytes, base64 in the file
}

func newEntry(id string, now time.Time) entry {
	key := make([]byte, chacha20poly1305.KeySize)
	rand.Read(key) // ends the process if the system has no randomness
	return entry{ID: id, Created: now.UTC().Truncate(time.Second), Key: key}
}

// nextID is k and the number after the highest in use, so that the id of a key
// that was taken out of the middle is not given again.
func (c *contents) nextID() (string, error) {
	if len(c.Keys) >= maxKeys {
		return "", fmt.Errorf("keyring: the ring holds %d keys already; take old ones out first", maxKeys)
	}
	highest := 0
	for _, k := range c.Keys {
		if n, err := strconv.Atoi(strings.TrimPrefix(k.ID, "k")); err == nil && n > highest {
			highest = n
		}
	}
	return "k" + strconv.Itoa(highest+1), nil
}

func (c *contents) ring() *ring {
	r := &ring{primary: c.Primary, aeads: make(map[string]cipher.AEAD, len(c.Keys))}
	for _, k := range c.Keys {
		r.aeads[k.ID] = newAEAD(k.Key)
		r.roots = append(r.roots, root(k.Key))
		r.infos = append(r.infos, Info{ID: k.ID, Created: k.Created, Primary: k.ID == c.Primary})
	}
	return r
}

// read opens, checks and decodes a ring file. Errors never show its bytes.
func read(path string) (contents, error) {
	var c contents
	info, err := os.Stat(path) // before opening: opening a pipe would wait
	if err != nil {
		return c, fmt.Errorf("keyring: %w", err)
	}
	if !info.Mode().IsRegular() {
		return c, fmt.Errorf("keyring: %s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return c, fmt.Errorf("keyring: %w", err)
	}
	defer f.Close()
	if err := checkMode(f, path); err != nil {
		return c, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return c, fmt.Errorf("keyring: %w", err)
	}
	if len(raw) > maxFile {
		return c, fmt.Errorf("keyring: %s is larger than a key ring can be", path)
	}
	if err := c.decode(raw); err != nil {
		return contents{}, fmt.Errorf("keyring: %s: %w", path, err)
	}
	return c, nil
}

func (c *contents) decode(raw []byte) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return errors.New("the file is cut short or is not a key ring") // the decoder's text could quote a key
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the key ring")
	}
	return c.check()
}

func (c *contents) check() error {
	if len(c.Keys) == 0 || len(c.Keys) > maxKeys {
		return fmt.Errorf("a key ring holds 1 to %d keys", maxKeys)
	}
	ids := make(map[string]bool)
	keys := make(map[string]bool)
	for i, k := range c.Keys {
		switch {
		case !validID(k.ID):
			return fmt.Errorf("key %d has no valid id", i+1)
		case ids[k.ID]:
			return fmt.Errorf("key id %s is there twice", k.ID)
		case len(k.Key) != chacha20poly1305.KeySize:
			return fmt.Errorf("key %s does not have %d bytes", k.ID, chacha20poly1305.KeySize)
		case keys[string(k.Key)]:
			return fmt.Errorf("key %s repeats another key", k.ID)
		case bytes.Equal(k.Key, make([]byte, len(k.Key))):
			return fmt.Errorf("key %s is all zero", k.ID)
		}
		ids[k.ID], keys[string(k.Key)] = true, true
	}
	if !ids[c.Primary] {
		return errors.New("the primary key is not among the keys")
	}
	return nil
}

// validID admits 1 to 32 of a-z, 0-9 and dash.
func validID(id string) bool {
	if len(id) < 1 || len(id) > 32 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// create puts a complete file where none is. The link makes it appear whole or
// not at all, and fails if something is there, dangling links included.
func (c *contents) create(path string) error {
	tmp, err := c.writeTemp(path)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("keyring: %s exists and is not overwritten: %w", path, fs.ErrExist)
		}
		return fmt.Errorf("keyring: %w", err)
	}
	return syncDir(path)
}

// replace swaps the file for a new one; a crash leaves the old or the new one,
// never a mixture.
func (c *contents) replace(path string) error {
	tmp, err := c.writeTemp(path)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("keyring: %w", err)
	}
	return syncDir(path)
}

// writeTemp writes and syncs a file of mode 0600 beside path.
func (c *contents) writeTemp(path string) (name string, err error) {
	if err := c.check(); err != nil {
		return "", fmt.Errorf("keyring: %w", err)
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", fmt.Errorf("keyring: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return "", fmt.Errorf("keyring: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("keyring: %w", err)
	}
	return f.Name(), nil
}
