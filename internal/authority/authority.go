// Package authority is the private certificate authority of an installation: it makes the CA once and issues the server's certificate.
// ECDSA P-256 throughout: an RSA certificate would cost a server four times as much per handshake.
//
// Keys are PEM files of mode 0600. Who trusts the CA file trusts every name it is asked to sign, so the CA carries a name
// constraint: it can only vouch for the names it was made for and names below them.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Files of an authority, below its folder.
const (
	CAFile         = "ca.crt"
	caKeyFile      = "ca.key"
	ServerFile     = "server.crt"
	ServerKeyFile  = "server.key"
	caLife         = 20 * 365 * 24 * time.Hour
	serverLife     = 397 * 24 * time.Hour // the longest that common verifiers accept
	backdate       = time.Hour            // for clients whose clock is behind
	maxCommonName  = 64                   // RFC 5280, appendix A.1
	RenewalWarning = 30 * 24 * time.Hour  // before a server certificate's end
)

// Create makes the CA and a first server certificate for the names in dir, which must not hold one yet.
func Create(dir string, names []string, now time.Time) error {
	if _, err := os.Stat(filepath.Join(dir, CAFile)); err == nil {
		return fmt.Errorf("%s exists already", filepath.Join(dir, CAFile))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template, err := template(now, caLife)
	if err != nil {
		return err
	}
	template.Subject = pkix.Name{CommonName: "Latchkey private CA " + names[0]}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.PermittedDNSDomainsCritical, template.PermittedDNSDomains = true, names
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if err := writeKey(filepath.Join(dir, caKeyFile), key); err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, CAFile), 0o644, "CERTIFICATE", der); err != nil {
		return err
	}
	return Issue(dir, names, now)
}

// Issue makes a new server certificate for the names, signed by dir's CA, and puts it in the place of the old one, whole. The server's key is kept
// if there is a usable one: two files cannot be replaced at once, and a service that restarts between the two would not start.
func Issue(dir string, names []string, now time.Time) error {
	ca, caKey, err := load(dir)
	if err != nil {
		return err
	}
	key, err := serverKey(filepath.Join(dir, ServerKeyFile))
	if err != nil {
		return err
	}
	der, err := serverCertificate(ca, caKey, key, names, now)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, ServerFile), 0o644, "CERTIFICATE", der, ca.Raw)
}

// IssuePair makes a server certificate for the names with a key of its own, and writes nothing: chain and key (PKCS #8) in PEM.
func IssuePair(dir string, names []string, now time.Time) (chain, keyPEM []byte, err error) {
	ca, caKey, err := load(dir)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := serverCertificate(ca, caKey, key, names, now)
	if err != nil {
		return nil, nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	for _, certificate := range [][]byte{der, ca.Raw} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})...)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), nil
}

// unusable is a CA that cannot be read: what is inside is for the log alone.
type unusable struct{ inside error }

func (unusable) Error() string {
	return "this installation has no private CA at hand that could issue a certificate for them; give the service a certificate that covers the names, and try again"
}

func (u unusable) Unwrap() error { return u.inside }

// CheckIssue says why the CA in dir could not vouch for the names, which CheckName has passed. The error's text may be shown to whoever asked for
// them; if the CA could not be read, the cause is wrapped in it and not in the text.
func CheckIssue(dir string, names []string) error {
	ca, _, err := load(dir)
	if err != nil {
		return unusable{err}
	}
	for _, name := range names {
		if !slices.ContainsFunc(ca.PermittedDNSDomains, func(domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) }) {
			return fmt.Errorf("the private CA vouches for names at or below %s only, and %s is not one; choose such a name, or give the service a certificate that covers it",
				strings.Join(ca.PermittedDNSDomains, ", "), name)
		}
	}
	return nil
}

func serverCertificate(ca *x509.Certificate, caKey, key *ecdsa.PrivateKey, names []string, now time.Time) ([]byte, error) {
	template, err := template(now, serverLife)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: names[0]}
	if len(names[0]) > maxCommonName {
		template.Subject = pkix.Name{}
	}
	template.DNSNames = names
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	return x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
}

// serverKey is the key at path, or a new one that is written there.
func serverKey(path string) (*ecdsa.PrivateKey, error) {
	if der, err := readPEM(path); err == nil {
		if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
			if ec, ok := key.(*ecdsa.PrivateKey); ok {
				return ec, nil
			}
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, writeKey(path, key)
}

// Names are the DNS names of the server certificate in dir, or, if it cannot be read, those that the CA was made for: losing the
// certificate must not stop its renewal.
func Names(dir string) ([]string, error) {
	if cert, err := readCertificate(filepath.Join(dir, ServerFile)); err == nil {
		return cert.DNSNames, nil
	}
	ca, err := readCertificate(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, err
	}
	return ca.PermittedDNSDomains, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

// Fingerprint is the SHA-256 of the CA certificate's DER, in hex, to compare by eye.
func Fingerprint(dir string) (string, error) {
	der, err := readPEM(filepath.Join(dir, CAFile))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

func template(now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-backdate), NotAfter: now.Add(life)}, nil
}

func load(dir string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	ca, err := readCertificate(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, nil, err
	}
	der, err := readPEM(filepath.Join(dir, caKeyFile))
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("the CA key is not an ECDSA key")
	}
	return ca, ec, nil
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not a PEM file", path)
	}
	return block.Bytes, nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, 0o600, "PRIVATE KEY", der)
}

// writePEM replaces a file whole: temporary file, fsync, rename, fsync of the folder.
func writePEM(path string, mode os.FileMode, kind string, ders ...[]byte) error {
	var data []byte
	for _, der := range ders {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	if err := errors.Join(f.Chmod(mode), write(f, data), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

func write(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return err
}
