package authority

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What CheckIssue lets pass a client that trusts the CA accepts, and what it refuses no client would.
func TestNamesAreCheckedAsClientsWouldJudgeThem(t *testing.T) {
	now := time.Now()
	dir := create(t, now)
	for name, good := range map[string]bool{
		"dps.example.net": true, "plant2.dps.example.net": true, "a.b.dps.example.org": true,
		"xdps.example.net": false, "example.net": false, "net.dps": false, "dps.example.net.example.com": false, "plant2.example.com": false,
	} {
		err := CheckIssue(dir, []string{names[0], name})
		if (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (errors.Unwrap(err) != nil || !strings.Contains(err.Error(), "at or below dps.example.net, dps.example.org only, and "+name+" is not one")) {
			t.Errorf("%s is refused with %v", name, err)
		}
		pair, _, err := IssuePair(dir, []string{name}, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(t, dir, parse(t, pair)[0], name, now); (err == nil) != good {
			t.Errorf("a client judges %s: %v", name, err)
		}
	}
}

// Whoever asked is not told what is wrong with the files of the CA; the log can be.
func TestAnAuthorityThatCannotBeReadIsNamedInsideAlone(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone":           os.Remove,
		"not to be read": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"broken":         func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
	} {
		for _, file := range []string{CAFile, caKeyFile} {
			dir := create(t, time.Now())
			path := filepath.Join(dir, file)
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			err := CheckIssue(dir, names)
			if err == nil || !strings.Contains(err.Error(), "no private CA at hand") || strings.Contains(err.Error(), file) {
				t.Errorf("%s %s: %v", file, name, err)
			}
			if inside := errors.Unwrap(err); inside == nil || !strings.Contains(inside.Error(), path) {
				t.Errorf("%s %s: inside is %v", file, name, inside)
			}
			if errors.Is(err, fs.ErrNotExist) != (name == "gone") {
				t.Errorf("%s %s: not told from others: %v", file, name, err)
			}
		}
	}
}

// A pair is whole: leaf, CA and the leaf's key. Names of every length have one, though no common name may be longer than 64 characters, and one that is
// issued on the last day of the CA ends with it.
func TestAPairServesLongNamesAndEndsWithTheAuthority(t *testing.T) {
	start := time.Now()
	dir := create(t, start)
	fits := strings.Repeat("a", 64-len(".dps.example.net")) + ".dps.example.net"
	for name, common := range map[string]string{fits: fits, "a" + fits: "", strings.Repeat("b", 63) + "." + fits: ""} {
		for _, at := range []time.Time{start, start.Add(caLife - 24*time.Hour)} {
			pair, key, err := IssuePair(dir, []string{name, names[1]}, at)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tls.X509KeyPair(pair, key); err != nil {
				t.Error(err)
			}
			certs, ca := parse(t, pair), chain(t, filepath.Join(dir, CAFile))[0]
			if len(certs) != 2 || !certs[1].Equal(ca) {
				t.Fatalf("the chain is not leaf and CA: %d certificates", len(certs))
			}
			leaf := certs[0]
			for _, name := range []string{name, names[1]} {
				if err := verify(t, dir, leaf, name, at.Add(time.Hour)); err != nil {
					t.Error(err)
				}
			}
			if leaf.Subject.CommonName != common {
				t.Errorf("the common name of %s is %q", name, leaf.Subject.CommonName)
			}
			if leaf.NotAfter.After(ca.NotAfter) || leaf.NotAfter.Sub(at) > serverLife {
				t.Errorf("issued %v: certificate until %v, authority until %v", at, leaf.NotAfter, ca.NotAfter)
			}
		}
	}
	wantFiles(t, dir, CAFile, caKeyFile, ServerFile, ServerKeyFile)
}
