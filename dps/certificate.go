package dps

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1" // a thumbprint that clients compare by eye, never a judgement
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"time"
)

// X509Attestation names certificates: the client certificates of one device, or
// the CAs of a group, themselves or by name.
type X509Attestation struct {
	Client       *CertificatePair // clientCertificates; of individual enrollments only
	Signing      *CertificatePair // signingCertificates; of groups only, as CAReferences
	CAReferences *CAReferences
}

// CertificatePair holds one or two certificates.
type CertificatePair struct{ Primary, Secondary *Certificate }

// List gives those that are there.
func (p *CertificatePair) List() []*Certificate {
	if p == nil {
		return nil
	}
	var list []*Certificate
	for _, c := range []*Certificate{p.Primary, p.Secondary} {
		if c != nil {
			list = append(list, c)
		}
	}
	return list
}

// CAReferences are the names of verified CA certificates; Secondary may be empty.
type CAReferences struct{ Primary, Secondary string }

// List gives the names that are there; none of nil.
func (r *CAReferences) List() (names []string) {
	if r == nil {
		return nil
	}
	for _, name := range []string{r.Primary, r.Secondary} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Certificate is a certificate of an enrollment. DER is nil if only its Info was
// given, as by a client that writes back what it has read: answers never show
// certificates.
type Certificate struct {
	DER  []byte
	Info CertificateInfo
}

// CertificateInfo is what answers show of a certificate. Thumbprints are hex in
// upper case, of the DER.
type CertificateInfo struct {
	SubjectName, SHA1Thumbprint, SHA256Thumbprint, IssuerName string
	NotBefore, NotAfter                                       time.Time
	SerialNumber                                              string // hex, upper case
	Version                                                   int
}

// Fingerprint is the SHA-256 of the DER; false if SHA256Thumbprint is not one.
func (i *CertificateInfo) Fingerprint() (sum [sha256.Size]byte, ok bool) {
	raw, err := hex.DecodeString(i.SHA256Thumbprint)
	return sum, err == nil && copy(sum[:], raw) == len(sum) && len(raw) == len(sum)
}

// Sizes of certificates and of the keys in them.
const (
	MaxCertificate   = 16 << 10 // bytes of DER
	minRSABits       = 2048
	maxRSABits       = 8192
	maxEncodedCert   = 2 * (MaxCertificate*4/3 + 1024) // PEM, wrapped in base64 again
	thumbprintDigits = 2 * sha256.Size
)

// ParseCertificate judges one certificate, DER, and tells what answers show of
// it. Errors are *FieldError without a place.
func ParseCertificate(der []byte) (*Certificate, error) {
	if len(der) > MaxCertificate {
		return nil, refuse("", "is longer than %d bytes", MaxCertificate)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse("", "is not an X.509 certificate in DER or PEM")
	}
	if err := checkKey(parsed.PublicKey); err != nil {
		return nil, err
	}
	return &Certificate{DER: bytes.Clone(der), Info: InfoOf(parsed)}, nil
}

// InfoOf tells of a certificate what answers show.
func InfoOf(c *x509.Certificate) CertificateInfo {
	sum1, sum256 := sha1.Sum(c.Raw), sha256.Sum256(c.Raw)
	return CertificateInfo{
		SubjectName: c.Subject.String(), IssuerName: c.Issuer.String(),
		SHA1Thumbprint: strings.ToUpper(hex.EncodeToString(sum1[:])), SHA256Thumbprint: strings.ToUpper(hex.EncodeToString(sum256[:])),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		SerialNumber: strings.ToUpper(hex.EncodeToString(c.SerialNumber.Bytes())), Version: c.Version,
	}
}

func checkKey(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return refuse("", "has an RSA key of %d bits; %d to %d are accepted", bits, minRSABits, maxRSABits)
		}
		return nil
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	}
	return refuse("", "has a key that is neither RSA, ECDSA nor Ed25519")
}

// certificateText reads the three forms that clients send: base64 of DER, base64
// of PEM, or PEM itself.
func certificateText(text string) (*Certificate, error) {
	if len(text) > maxEncodedCert {
		return nil, refuse("", "is longer than %d bytes", MaxCertificate)
	}
	data := []byte(text)
	if !strings.Contains(text, "-----BEGIN") {
		var err error
		if data, err = base64.StdEncoding.DecodeString(strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(text)); err != nil {
			return nil, refuse("", "must be base64 of DER, or PEM")
		}
	}
	if bytes.Contains(data, []byte("-----BEGIN")) {
		block, rest := pem.Decode(data)
		switch {
		case block == nil || block.Type != "CERTIFICATE":
			return nil, refuse("", "is not an X.509 certificate in DER or PEM")
		case bytes.Contains(rest, []byte("-----BEGIN")):
			return nil, refuse("", "holds more than one PEM block; send one certificate")
		}
		data = block.Bytes
	}
	return ParseCertificate(data)
}

// under puts a place before a refusal.
func under(path string, err error) error {
	if field, ok := err.(*FieldError); ok {
		return refuse(path, "%s", field.Problem)
	}
	return err
}
