package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var names = []string{"dps.example.net", "dps.example.org"}

// create makes an authority for the names, as of now.
func create(t *testing.T, now time.Time) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "tls")
	if err := Create(dir, names, now); err != nil {
		t.Fatal(err)
	}
	return dir
}

// chain reads a PEM file of certificates.
func chain(t *testing.T, path string) (certs []*x509.Certificate) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, data)
}

func parse(t *testing.T, data []byte) (certs []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
	return certs
}

// verify judges a leaf as a client would that trusts the authority alone.
func verify(t *testing.T, dir string, leaf *x509.Certificate, name string, at time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(chain(t, filepath.Join(dir, CAFile))[0])
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

func TestTheCertificateVerifiesForItsNamesAlone(t *testing.T) {
	now := time.Now()
	dir := create(t, now)
	certs := chain(t, filepath.Join(dir, ServerFile))
	if len(certs) != 2 || !certs[1].Equal(chain(t, filepath.Join(dir, CAFile))[0]) {
		t.Fatalf("the chain is not leaf and CA: %d certificates", len(certs))
	}
	for _, name := range names {
		if err := verify(t, dir, certs[0], name, now); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"example.net", "hub.dps.example.net", "other.example.org"} {
		if verify(t, dir, certs[0], name, now) == nil {
			t.Errorf("it verifies for %s", name)
		}
	}
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, ServerFile), filepath.Join(dir, ServerKeyFile)); err != nil {
		t.Error(err)
	}
}

func TestTheCertificateHoldsForClocksThatAreBehindAndNoLongerThanVerifiersAccept(t *testing.T) {
	now := time.Now()
	dir := create(t, now)
	leaf := chain(t, filepath.Join(dir, ServerFile))[0]
	for at, good := range map[time.Duration]bool{-50 * time.Minute: true, 396 * 24 * time.Hour: true, -2 * time.Hour: false, 398 * 24 * time.Hour: false} {
		if err := verify(t, dir, leaf, names[0], now.Add(at)); (err == nil) != good {
			t.Errorf("at %v: %v", at, err)
		}
	}
}

// Who trusts the CA must not have to trust it for the rest of the world: even
// its own key cannot vouch for another name, for an address or for a mailbox.
func TestTheAuthorityCannotVouchForOtherNames(t *testing.T) {
	now := time.Now()
	dir := create(t, now)
	ca, caKey, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !ca.PermittedDNSDomainsCritical || !slices.Equal(ca.PermittedDNSDomains, names) {
		t.Errorf("constraints: critical %v, %v", ca.PermittedDNSDomainsCritical, ca.PermittedDNSDomains)
	}
	for name, good := range map[string]bool{
		"dps.example.net": true, "hub.dps.example.org": true, // below a name of its own
		"example.net": false, "www.example.com": false, "xdps.example.net": false, "dps.example.net.evil.com": false,
	} {
		leaf := forge(t, ca, caKey, name, now)
		if err := verify(t, dir, leaf, name, now); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// forge makes a server certificate with the CA's own key, past Issue.
func forge(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, name string, now time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template, err := template(now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	template.DNSNames, template.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestTheAuthorityMakesNoFurtherAuthorities(t *testing.T) {
	ca := chain(t, filepath.Join(create(t, time.Now()), CAFile))[0]
	if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("CA %v, path length %d, usage %b", ca.IsCA, ca.MaxPathLen, ca.KeyUsage)
	}
}

func TestOnlyTheOwnerReadsKeys(t *testing.T) {
	dir := create(t, time.Now())
	if err := Issue(dir, names, time.Now()); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]fs.FileMode{".": 0o700, CAFile: 0o644, caKeyFile: 0o600, ServerFile: 0o644, ServerKeyFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", file, info.Mode().Perm(), want)
		}
	}
	wantFiles(t, dir, CAFile, caKeyFile, ServerFile, ServerKeyFile)
}

// wantFiles: these and no others, so no temporary file stayed behind.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("files are %v, want %v", have, want)
	}
}

func TestARenewedCertificateVerifiesUnderTheSameAuthority(t *testing.T) {
	start := time.Now()
	dir := create(t, start)
	before := chain(t, filepath.Join(dir, ServerFile))[0]
	year := start.Add(396 * 24 * time.Hour)
	if err := Issue(dir, names, year); err != nil {
		t.Fatal(err)
	}
	after := chain(t, filepath.Join(dir, ServerFile))[0]
	if err := verify(t, dir, after, names[1], year.Add(300*24*time.Hour)); err != nil {
		t.Error(err)
	}
	if before.SerialNumber.Cmp(after.SerialNumber) == 0 {
		t.Error("the serial number was used again")
	}
	if !before.PublicKey.(*ecdsa.PublicKey).Equal(after.PublicKey) {
		t.Error("another key: between the two files a restart would find a pair that does not match")
	}
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, ServerFile), filepath.Join(dir, ServerKeyFile)); err != nil {
		t.Error(err)
	}
}

func TestACertificateNeverOutlivesItsAuthority(t *testing.T) {
	start := time.Now()
	dir := create(t, start)
	if err := Issue(dir, names, start.Add(caLife-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	leaf, ca := chain(t, filepath.Join(dir, ServerFile))[0], chain(t, filepath.Join(dir, CAFile))[0]
	if leaf.NotAfter.After(ca.NotAfter) {
		t.Errorf("certificate until %v, authority until %v", leaf.NotAfter, ca.NotAfter)
	}
}

// Readers see the old file or the new one: it is replaced, never written into.
func TestIssuePutsNewFilesInThePlaceOfTheOldOnes(t *testing.T) {
	dir := create(t, time.Now())
	path := filepath.Join(dir, ServerFile)
	open, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Issue(dir, names, time.Now()); err != nil {
		t.Fatal(err)
	}
	old := make([]byte, 2*len(before))
	n, _ := open.Read(old)
	if string(old[:n]) != string(before) {
		t.Error("the old file was written into")
	}
}

// A key that was put there by hand is taken, and one that is gone is made anew.
func TestIssueMendsAHalfDoneIssue(t *testing.T) {
	dir := create(t, time.Now())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeKey(filepath.Join(dir, ServerKeyFile), key); err != nil {
		t.Fatal(err)
	}
	pair := func() error {
		_, err := tls.LoadX509KeyPair(filepath.Join(dir, ServerFile), filepath.Join(dir, ServerKeyFile))
		return err
	}
	if pair() == nil {
		t.Fatal("the pair matches: the test proves nothing")
	}
	if err := Issue(dir, names, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := pair(); err != nil {
		t.Error(err)
	}
}

func TestNamesAreKnownEvenWithoutAServerCertificate(t *testing.T) {
	dir := create(t, time.Now())
	for _, spoil := range []func(path string) error{
		func(string) error { return nil },
		func(path string) error { return os.WriteFile(path, []byte("no PEM"), 0o644) },
		func(path string) error {
			return os.WriteFile(path, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o644)
		},
		os.Remove,
	} {
		if err := spoil(filepath.Join(dir, ServerFile)); err != nil {
			t.Fatal(err)
		}
		got, err := Names(dir)
		if err != nil || !slices.Equal(got, names) {
			t.Errorf("%v, error %v", got, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, CAFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Names(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without any certificate: %v", err)
	}
}

func TestCreateLeavesAnAuthorityAlone(t *testing.T) {
	dir := create(t, time.Now())
	before, err := Fingerprint(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(dir, names, time.Now()); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("error %v", err)
	}
	if after, _ := Fingerprint(dir); after != before || len(after) != 64 {
		t.Errorf("fingerprint %s became %s", before, after)
	}
}

func TestIssueRefusesWithoutAUsableAuthority(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"no CA certificate": func(dir string) error { return os.Remove(filepath.Join(dir, CAFile)) },
		"no CA key":         func(dir string) error { return os.Remove(filepath.Join(dir, caKeyFile)) },
		"broken CA key":     func(dir string) error { return os.WriteFile(filepath.Join(dir, caKeyFile), []byte("x"), 0o600) },
		"another CA's key": func(dir string) error {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			return writeKey(filepath.Join(dir, caKeyFile), key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := create(t, time.Now())
			before, err := os.ReadFile(filepath.Join(dir, ServerFile))
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			if err := Issue(dir, names, time.Now()); err == nil {
				t.Fatal("it issued")
			}
			if after, _ := os.ReadFile(filepath.Join(dir, ServerFile)); string(after) != string(before) {
				t.Error("the certificate in use was touched")
			}
		})
	}
}
