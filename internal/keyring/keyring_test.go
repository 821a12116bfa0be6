package keyring_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/keyring"
)

var (
	now    = time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	secret = []byte("the hub key of press-07")
)

const context = "scope/press-07/hub-key/3"

func newRing(t *testing.T) (*keyring.Ring, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "master.keys")
	r, err := keyring.Create(path, now)
	if err != nil {
		t.Fatal(err)
	}
	return r, path
}

func seal(t *testing.T, r *keyring.Ring) []byte {
	t.Helper()
	sealed, err := r.Seal(context, secret)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func mustOpen(t *testing.T, r *keyring.Ring, sealed []byte) {
	t.Helper()
	if got, err := r.Open(context, sealed); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("opened %q, error %v", got, err)
	}
}

func TestSealedOpensAgainAlsoAfterARestart(t *testing.T) {
	r, path := newRing(t)
	sealed := seal(t, r)
	mustOpen(t, r, sealed)
	later, err := keyring.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	mustOpen(t, later, sealed)
	if bytes.Contains(sealed, secret) {
		t.Error("the secret can be read")
	}
	if bytes.Equal(sealed, seal(t, r)) {
		t.Error("two sealings of one secret are the same bytes")
	}
	if id, err := keyring.KeyID(sealed); id != "k1" || err != nil {
		t.Errorf("key id %q, error %v", id, err)
	}
	if empty, err := r.Seal("", nil); err != nil {
		t.Error(err)
	} else if got, err := r.Open("", empty); err != nil || len(got) != 0 {
		t.Errorf("an empty secret opens as %q, error %v", got, err)
	}
}

func TestSealedOpensOnlyUnderItsContext(t *testing.T) {
	r, _ := newRing(t)
	sealed := seal(t, r)
	for _, other := range []string{"", context + " ", context[:len(context)-1], "scope/press-08/hub-key/3", "k1" + context, "\x01\x02k1" + context} {
		if got, err := r.Open(other, sealed); !errors.Is(err, keyring.ErrTampered) || got != nil {
			t.Errorf("%q: %q, error %v", other, got, err)
		}
	}
}

func TestEveryChangedByteAndEveryCutIsNoticed(t *testing.T) {
	r, _ := newRing(t)
	if _, err := r.Add(now); err != nil { // so that a changed key id can name another key that exists
		t.Fatal(err)
	}
	sealed := seal(t, r)
	refused := func(what string, bytes []byte) {
		if got, err := r.Open(context, bytes); got != nil || !errors.Is(err, keyring.ErrTampered) && !errors.Is(err, keyring.ErrUnknownKey) {
			t.Errorf("%s: %q, error %v", what, got, err)
		}
	}
	for i := range sealed {
		for flip := 1; flip < 256; flip++ {
			changed := bytes.Clone(sealed)
			changed[i] ^= byte(flip)
			refused(fmt.Sprintf("byte %d xor %d", i, flip), changed)
		}
		refused(fmt.Sprintf("cut to %d bytes", i), sealed[:i])
	}
	refused("one byte more", append(bytes.Clone(sealed), 0))
	refused("nothing", nil)
}

func TestKeyIDOfBytesThatNobodySealed(t *testing.T) {
	for _, forged := range []string{"", "\x01", "\x02\x02k1", "\x00\x02k1", "\x01\x03k1", "\x01\x00", "\x01\x03k\n1", "\x01\x21" + strings.Repeat("k", 33), "\x01\xff" + strings.Repeat("k", 300)} {
		if id, err := keyring.KeyID([]byte(forged)); !errors.Is(err, keyring.ErrTampered) || id != "" {
			t.Errorf("%q: id %q, error %v", forged, id, err)
		}
	}
}

func TestChangesGoThroughALink(t *testing.T) {
	_, path := newRing(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	r, err := keyring.Open(link)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Add(now); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link became %v, error %v", info.Mode(), err)
	}
	if behind, err := keyring.Open(path); err != nil || len(behind.Keys()) != 2 {
		t.Errorf("the file behind the link did not change: %v", err)
	}
}

func TestUnknownKeyIsNamed(t *testing.T) {
	r, _ := newRing(t)
	other, _ := newRing(t)
	for range 2 {
		if _, err := other.Add(now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Rotate(); err != nil {
		t.Fatal(err)
	}
	_, err := r.Open(context, seal(t, other))
	if !errors.Is(err, keyring.ErrUnknownKey) || !strings.Contains(err.Error(), `"k3"`) {
		t.Errorf("error %v", err)
	}
	sameName, _ := newRing(t)
	if _, err := r.Open(context, seal(t, sameName)); !errors.Is(err, keyring.ErrTampered) {
		t.Errorf("another key of the same name: %v", err)
	}
}

func TestKeysAreRotatedWithoutLosingAnything(t *testing.T) {
	node1, path := newRing(t)
	node2, err := keyring.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	old := seal(t, node1)
	if id, err := node1.Rotate(); !errors.Is(err, keyring.ErrNewestIsPrimary) || id != "" {
		t.Errorf("rotated to %q: %v", id, err)
	}
	id, err := node1.Add(now.Add(time.Hour))
	if err != nil || id != "k2" || node1.Primary() != "k1" {
		t.Fatalf("added %q, primary %q, error %v", id, node1.Primary(), err)
	}
	if node1.NeedsReseal(old) {
		t.Error("needs resealing although its key is primary")
	}
	if err := node2.Reload(); err != nil {
		t.Fatal(err)
	}
	if id, err = node1.Rotate(); err != nil || id != "k2" || node1.Primary() != "k2" {
		t.Fatalf("rotated to %q, primary %q, error %v", id, node1.Primary(), err)
	}
	fresh := seal(t, node1)
	mustOpen(t, node2, fresh) // it has read the key, though for it k1 is still primary
	mustOpen(t, node1, old)
	if !node1.NeedsReseal(old) || node1.NeedsReseal(fresh) || !node1.NeedsReseal(nil) {
		t.Error("the wrong ones need resealing")
	}
	if err := node2.Reload(); err != nil || node2.Primary() != "k2" {
		t.Errorf("primary %q, error %v", node2.Primary(), err)
	}
	want := []keyring.Info{{ID: "k1", Created: now.Truncate(time.Second)}, {ID: "k2", Created: now.Add(time.Hour).Truncate(time.Second), Primary: true}}
	if got := node2.Keys(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("keys %v, want %v", got, want)
	}
	node2.Keys()[0].ID = "changed"
	if node2.Keys()[0].ID != "k1" {
		t.Error("a caller can change the ring's list")
	}
}

// TestTwoProcessesAddKeysAndNoneIsLost: each process holds its own, older
// reading of the file.
func TestTwoProcessesAddKeysAndNoneIsLost(t *testing.T) {
	_, path := newRing(t)
	const processes, each = 8, 5
	var wg sync.WaitGroup
	for range processes {
		r, err := keyring.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range each {
				if _, err := r.Add(now); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r, err := keyring.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(r.Keys()); got != 1+processes*each {
		t.Errorf("%d keys, want %d", got, 1+processes*each)
	}
}

func TestSealAndOpenWhileTheFileChanges(t *testing.T) {
	r, _ := newRing(t)
	first := seal(t, r)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				sealed, err := r.Seal(context, secret)
				if err != nil {
					t.Error(err)
					return
				}
				for _, s := range [][]byte{first, sealed} {
					if got, err := r.Open(context, s); err != nil || !bytes.Equal(got, secret) {
						t.Errorf("opened %q, error %v", got, err)
						return
					}
				}
			}
		})
	}
	for range 20 {
		_, err1 := r.Add(now)
		_, err2 := r.Rotate()
		if err := errors.Join(err1, err2, r.Reload()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestCreateNeverOverwrites(t *testing.T) {
	_, path := newRing(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Create(path, now); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Error("the file changed")
	}
	dangling := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), dangling); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Create(dangling, now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a link to nowhere is followed: %v", err)
	}
	if _, err := keyring.Create(filepath.Join(t.TempDir(), "missing", "keys"), now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	onlyFile(t, path)
}

// onlyFile wants no temporary file left beside the ring.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files beside the ring, error %v", len(entries)-1, err)
	}
}

func TestOnlyTheOwnerMayReadTheFile(t *testing.T) {
	r, path := newRing(t)
	checkMode := func() {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, error %v", info.Mode(), err)
		}
	}
	checkMode()
	if _, err := r.Add(now); err != nil {
		t.Fatal(err)
	}
	checkMode()
	onlyFile(t, path)
	sealed := seal(t, r)
	for bit := range 9 {
		mode := fs.FileMode(0o600 | 1<<bit)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := keyring.Open(path)
		if open := mode&0o077 != 0; open != (err != nil) {
			t.Errorf("mode %04o: error %v", mode, err)
		} else if open && !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: the error does not say what to do: %v", mode, err)
		}
		if (r.Reload() != nil) != (err != nil) {
			t.Errorf("mode %04o: Reload judges differently", mode)
		}
		mustOpen(t, r, sealed)
	}
}

// TestDamagedFileIsRefusedAndTheRingGoesOn cuts the file at every byte, as a
// half-written one would be, and damages it in other ways.
func TestDamagedFileIsRefusedAndTheRingGoesOn(t *testing.T) {
	r, path := newRing(t)
	if _, err := r.Add(now); err != nil {
		t.Fatal(err)
	}
	sealed := seal(t, r)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Keys []struct{ Key string } `json:"keys"`
	}
	if err := json.Unmarshal(good, &file); err != nil {
		t.Fatal(err)
	}
	key1, key2 := file.Keys[0].Key, file.Keys[1].Key
	replaced := func(old, new string) []byte {
		changed := strings.Replace(string(good), old, new, 1)
		if changed == string(good) {
			t.Fatalf("the file has no %q", old)
		}
		return []byte(changed)
	}
	damaged := map[string][]byte{
		"primary is not there":    replaced(`"primary": "k1"`, `"primary": "k9"`),
		"no primary":              replaced(`"primary": "k1"`, `"primary": ""`),
		"unknown member":          replaced(`"primary"`, `"passphrase": "x", "primary"`),
		"id twice":                replaced(`"id": "k2"`, `"id": "k1"`),
		"id not legal":            replaced(`"id": "k2"`, `"id": "K 2"`),
		"id too long":             replaced(`"id": "k2"`, `"id": "`+strings.Repeat("k", 33)+`"`),
		"key twice":               replaced(key2, key1),
		"key too short":           replaced(key2, base64.StdEncoding.EncodeToString(make([]byte, 31))),
		"key all zero":            replaced(key2, base64.StdEncoding.EncodeToString(make([]byte, 32))),
		"key not base64":          replaced(key2, "%"+key2[1:]),
		"date not a date":         replaced("2030-01-02T", "yesterday"),
		"no keys":                 []byte(`{"primary":"k1","keys":[]}`),
		"something behind":        append(bytes.Clone(good), "{}"...),
		"larger than a ring is":   append(bytes.Clone(good), bytes.Repeat([]byte(" "), 64<<10)...),
		"not even JSON":           []byte("k1:" + key1),
		"null":                    []byte("null"),
		"quotes a key in a wrong": []byte(`{"primary":` + `"` + key1 + `"` + `,"keys":"` + key1 + `"}`),
	}
	for n := range len(good) - 2 { // without the last brace and line feed it is still cut
		damaged[fmt.Sprintf("cut to %d bytes", n)] = good[:n]
	}
	for name, text := range damaged {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := keyring.Open(path)
		if err == nil || r.Reload() == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), key1) || strings.Contains(err.Error(), key2) {
			t.Errorf("%s: the error shows a key", name)
		}
		if _, err := r.Add(now); err == nil {
			t.Errorf("%s: a key was added", name)
		}
		if left, _ := os.ReadFile(path); !bytes.Equal(left, text) {
			t.Errorf("%s: the damaged file was written over", name)
		}
	}
	mustOpen(t, r, sealed)
	mustOpen(t, r, seal(t, r))
	onlyFile(t, path)
}

func TestOpenWantsARegularFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := keyring.Open(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := keyring.Open(dir); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("directory: %v", err)
	}
}

func TestRingIsBounded(t *testing.T) {
	r, _ := newRing(t)
	var err error
	for range 100 {
		if _, err = r.Add(now); err != nil {
			break
		}
	}
	if err == nil || len(r.Keys()) != 100 {
		t.Errorf("%d keys, error %v", len(r.Keys()), err)
	}
	if err := r.Reload(); err != nil {
		t.Error("a full ring cannot be read again:", err)
	}
}

func TestRingNeverPrintsItsKeys(t *testing.T) {
	r, path := newRing(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Keys []struct{ Key []byte } `json:"keys"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	for _, v := range []any{r, r.Keys(), []*keyring.Ring{r}, struct{ R *keyring.Ring }{r}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			fmt.Fprintf(&log, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "ring", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "ring", v)
	}
	key := file.Keys[0].Key
	for _, form := range []string{fmt.Sprintf("%x", key), fmt.Sprintf("%v", key), base64.StdEncoding.EncodeToString(key), string(key)} {
		if strings.Contains(log.String(), form) {
			t.Errorf("printed: %s", form)
		}
	}
	if !strings.Contains(log.String(), "primary k1") {
		t.Error("nothing was printed at all")
	}
}

func FuzzOpenSealed(f *testing.F) {
	path := filepath.Join(f.TempDir(), "master.keys")
	r, err := keyring.Create(path, now)
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := r.Seal(context, secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(context, sealed[2:])
	f.Add(context, []byte{})
	f.Add("", append([]byte{1, 2}, "k1"...))
	f.Fuzz(func(t *testing.T, ctx string, forged []byte) {
		// Nobody without the ring can make bytes that open.
		if got, err := r.Open(ctx, forged); err == nil || got != nil {
			t.Fatalf("forged bytes open as %q", got)
		}
		id, err := keyring.KeyID(forged)
		if err == nil && !bytes.HasPrefix(forged[2:], []byte(id)) {
			t.Fatalf("key id %q", id)
		}
		own, err := r.Seal(ctx, forged)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := r.Open(ctx, own); err != nil || !bytes.Equal(back, forged) {
			t.Fatalf("sealed %x, opened %x, error %v", forged, back, err)
		}
	})
}

func BenchmarkSealOpen(b *testing.B) {
	r, err := keyring.Create(filepath.Join(b.TempDir(), "master.keys"), now)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		sealed, err := r.Seal(context, secret)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.Open(context, sealed); err != nil {
			b.Fatal(err)
		}
	}
}
