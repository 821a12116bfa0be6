package device

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-tpm/tpm2"
)

// EKCertificate is a certificate that sits in the TPM's NV memory at an index
// that the TCG set aside for EK certificates. It is shown, not verified: no root
// is trusted here, and whoever may write to the index may write anything.
type EKCertificate struct {
	Index uint32 // NV index; of the chain's certificates the index at which they begin
	Raw   []byte // DER, without what pads the index

	// X509 is the certificate as crypto/x509 reads it, and nil if crypto/x509
	// refuses it. Then the other fields hold what could be read all the same:
	// makers of TPMs take liberties. Irregular says what is wrong with it.
	X509      *x509.Certificate
	Irregular error

	Issuer, Subject     string // as in RFC 4514, cleaned for display
	Serial              string // hex
	NotBefore, NotAfter time.Time

	// What the maker says of the TPM in the subject alternative name
	// (TCG EK Credential Profile 2.4, 3.2.9), such as "id:49465800".
	Manufacturer, Model, Version string

	IssuerURLs []string // where the issuer's certificate is to be had; not fetched

	Matches bool // it is for a key that this TPM showed

	// Issuers are the certificates of the chain in NV that lead upwards from
	// this one, each of which signed the one before it.
	Issuers []*EKCertificate

	// Closed says that the last of Issuers signed itself: the chain in NV is whole.
	Closed bool

	key                     [32]byte // SHA-256 of its SubjectPublicKeyInfo; zero if there is no key we know
	issuerName, subjectName []byte
	selfSigned              bool
}

// ManufacturerName is Manufacturer in letters, if it has any: "IFX" for
// "id:49465800".
func (c *EKCertificate) ManufacturerName() string {
	digits, found := strings.CutPrefix(strings.ToLower(c.Manufacturer), "id:")
	letters, err := hex.DecodeString(digits)
	if name := printable(letters); found && err == nil && name != "" {
		return name
	}
	return c.Manufacturer
}

// vouchesFor tells whether the certificate is for this key.
func (c *EKCertificate) vouchesFor(key [32]byte) bool {
	return c.key != [32]byte{} && c.key == key
}

// maxPrintable bounds a text from a certificate.
const maxPrintable = 256

var (
	errNoCertificate = errors.New("no certificate is in it")
	errPadding       = fmt.Errorf("%w: nothing but padding", errNoCertificate)
	errCutShort      = errors.New("the certificate is longer than what was read")
)

// readCertificate finds the certificate in the content of an NV index.
func readCertificate(index uint32, content []byte) (*EKCertificate, error) {
	der, _, err := nextDER(unwrapped(content))
	if err != nil {
		return nil, err
	}
	return parseCertificate(index, der)
}

// readChain finds the certificates that follow one another in content.
func readChain(index uint32, content []byte) (found []*EKCertificate, err error) {
	for len(found) < maxIssuers {
		der, rest, err := nextDER(content)
		if errors.Is(err, errPadding) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		c, err := parseCertificate(index, der)
		if err != nil {
			return found, err
		}
		found, content = append(found, c), rest
	}
	return found, nil
}

// maxIssuers bounds the certificates of a chain that we look at.
const maxIssuers = 16

// unwrapped takes off the header that PC Client TPMs of the 1.2 family put
// before a certificate and some makers kept: tag 0x1001, certificate type 0 for
// a full one, its size, tag 0x1002 (TCG PC Client Specific Implementation
// Specification 1.21, 7.3.2).
func unwrapped(content []byte) []byte {
	header := []byte{0x10, 0x01, 0x00}
	if len(content) < 5 || !bytes.HasPrefix(content, header) {
		return content
	}
	size := int(binary.BigEndian.Uint16(content[3:]))
	content = content[5:min(5+size, len(content))]
	return bytes.TrimPrefix(content, []byte{0x10, 0x02})
}

// nextDER cuts the first DER SEQUENCE off. What pads an index to its size, zeros
// or 0xff, is skipped.
func nextDER(content []byte) (der, rest []byte, err error) {
	content = bytes.TrimLeft(content, "\x00\xff")
	if len(content) == 0 {
		return nil, nil, errPadding
	}
	const sequence = 0x30
	if content[0] != sequence || len(content) < 2 {
		return nil, nil, fmt.Errorf("%w: it begins with 0x%02x", errNoCertificate, content[0])
	}
	head, size := 2, int(content[1])
	if size >= 0x80 {
		digits := size & 0x7f
		if digits == 0 || digits > 3 || len(content) < 2+digits {
			return nil, nil, fmt.Errorf("%w: it has no length that makes sense", errNoCertificate)
		}
		head, size = 2+digits, 0
		for _, digit := range content[2:head] {
			size = size<<8 | int(digit)
		}
	}
	if size > len(content)-head {
		return nil, nil, fmt.Errorf("%w: it says %d bytes, %d are there", errCutShort, size, len(content)-head)
	}
	return content[:head+size], content[head+size:], nil
}

// derCertificate and derTBS take a certificate apart as little as can be, so
// that what a maker did wrong in one field does not hide the others (RFC 5280, 4.1).
type derCertificate struct {
	TBS       derTBS
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

type derTBS struct {
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     asn1.RawValue
	Algorithm  asn1.RawValue
	Issuer     asn1.RawValue
	Validity   derValidity
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	IssuerID   asn1.BitString `asn1:"optional,tag:1"`
	SubjectID  asn1.BitString `asn1:"optional,tag:2"`
	Extensions []derExtension `asn1:"optional,explicit,tag:3"`
}

type derValidity struct{ NotBefore, NotAfter asn1.RawValue }

type derExtension struct {
	ID       asn1.ObjectIdentifier
	Critical bool `asn1:"optional"`
	Value    []byte
}

func parseCertificate(index uint32, der []byte) (*EKCertificate, error) {
	var parts derCertificate
	rest, err := asn1.Unmarshal(der, &parts)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: it is DER but not that of a certificate (%v)", errNoCertificate, err)
	}
	t := &parts.TBS
	c := &EKCertificate{
		Index: index, Raw: bytes.Clone(der),
		Issuer: nameOf(t.Issuer.FullBytes), Subject: nameOf(t.Subject.FullBytes), Serial: hex.EncodeToString(t.Serial.Bytes[:min(len(t.Serial.Bytes), 64)]),
		NotBefore: timeOf(t.Validity.NotBefore), NotAfter: timeOf(t.Validity.NotAfter),
		issuerName: t.Issuer.FullBytes, subjectName: t.Subject.FullBytes,
	}
	for _, extension := range t.Extensions {
		switch extension.ID.String() {
		case "2.5.29.17":
			c.readAlternativeName(extension.Value)
		case "1.3.6.1.5.5.7.1.1":
			c.readAuthorityAccess(extension.Value)
		}
	}
	c.X509, c.Irregular = x509.ParseCertificate(c.Raw)
	if c.key, err = keyOf(t.PublicKey.FullBytes); c.Irregular == nil {
		c.Irregular = err
	}
	c.selfSigned = bytes.Equal(c.issuerName, c.subjectName) && c.signedBy(c)
	return c, nil
}

// keyOf is SHA-256 of the key's SubjectPublicKeyInfo, as attest reckons it of
// the TPM's. Certificates of older chips name RSAES-OAEP as the key's algorithm
// (TCG EK Credential Profile 2.4, 3.2.7), which crypto/x509 does not know.
func keyOf(spki []byte) (id [32]byte, err error) {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		var info struct {
			Algorithm struct {
				ID         asn1.ObjectIdentifier
				Parameters asn1.RawValue `asn1:"optional"`
			}
			Key asn1.BitString
		}
		oaep := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
		if _, bad := asn1.Unmarshal(spki, &info); bad != nil || !info.Algorithm.ID.Equal(oaep) {
			return id, err
		}
		if key, err = x509.ParsePKCS1PublicKey(info.Key.RightAlign()); err != nil {
			return id, err
		}
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return id, err
	}
	return sha256.Sum256(der), nil
}

// keyID is the same of a key in the TPM, and zero for a kind that we do not know.
func keyID(p *primary) (id [32]byte) {
	key, err := tpm2.Pub(*p.area)
	if err != nil {
		return id
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return id
	}
	return sha256.Sum256(der)
}

// signedBy checks the signature, which tells what belongs together in a chain
// and nothing of trust.
func (c *EKCertificate) signedBy(issuer *EKCertificate) bool {
	if c.X509 == nil || issuer.X509 == nil {
		return false
	}
	return issuer.X509.CheckSignature(c.X509.SignatureAlgorithm, c.X509.RawTBSCertificate, c.X509.Signature) == nil
}

// climb finds the certificate's issuers among those of the chain.
func (c *EKCertificate) climb(chain []*EKCertificate) {
	at := c
	for range maxIssuers {
		if at.selfSigned {
			c.Closed = at != c
			return
		}
		up := at.issuerAmong(chain)
		if up == nil {
			return
		}
		c.Issuers, at = append(c.Issuers, up), up
	}
}

func (c *EKCertificate) issuerAmong(chain []*EKCertificate) *EKCertificate {
	for _, candidate := range chain {
		if candidate != c && bytes.Equal(candidate.subjectName, c.issuerName) && c.signedBy(candidate) {
			return candidate
		}
	}
	return nil
}

// Object identifiers of a TPM's attributes (TCG EK Credential Profile 2.4, 4).
const (
	oidManufacturer = "2.23.133.2.1"
	oidModel        = "2.23.133.2.2"
	oidVersion      = "2.23.133.2.3"
)

type derAttribute struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

type derAttributeSET []derAttribute

// readAlternativeName takes the TPM's make from the directory names of a
// subject alternative name (RFC 5280, 4.2.1.6).
func (c *EKCertificate) readAlternativeName(value []byte) {
	const directoryName = 4
	for _, name := range elements(value) {
		if name.Class != asn1.ClassContextSpecific || name.Tag != directoryName {
			continue
		}
		for _, attribute := range attributes(name.Bytes) {
			text := printable(attribute.Value.Bytes)
			switch attribute.ID.String() {
			case oidManufacturer:
				c.Manufacturer = text
			case oidModel:
				c.Model = text
			case oidVersion:
				c.Version = text
			}
		}
	}
}

// readAuthorityAccess takes the addresses at which the issuer's certificate is
// kept (RFC 5280, 4.2.2.1).
func (c *EKCertificate) readAuthorityAccess(value []byte) {
	const address, most = 6, 4
	for _, element := range elements(value) {
		var access struct {
			Method   asn1.ObjectIdentifier
			Location asn1.RawValue
		}
		if _, err := asn1.Unmarshal(element.FullBytes, &access); err != nil {
			continue
		}
		if access.Method.String() == "1.3.6.1.5.5.7.48.2" && access.Location.Tag == address && len(c.IssuerURLs) < most {
			c.IssuerURLs = append(c.IssuerURLs, printable(access.Location.Bytes))
		}
	}
}

// elements are the members of a SEQUENCE, as far as they can be read.
func elements(der []byte) (found []asn1.RawValue) {
	var all asn1.RawValue
	if _, err := asn1.Unmarshal(der, &all); err != nil {
		return nil
	}
	for rest := all.Bytes; len(rest) > 0; {
		var one asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &one); err != nil {
			return found
		}
		found = append(found, one)
	}
	return found
}

// attributes are those of a distinguished name, in its order.
func attributes(der []byte) (found []derAttribute) {
	for _, set := range elements(der) {
		var some derAttributeSET
		if _, err := asn1.UnmarshalWithParams(set.FullBytes, &some, "set"); err == nil {
			found = append(found, some...)
		}
	}
	return found
}

var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
	oidManufacturer: "TPMManufacturer", oidModel: "TPMModel", oidVersion: "TPMVersion",
}

// nameOf writes a distinguished name for people, its last attribute first as
// RFC 4514 has it.
func nameOf(der []byte) string {
	var text string
	for _, attribute := range attributes(der) {
		name, known := attributeNames[attribute.ID.String()]
		if !known {
			name = attribute.ID.String()
		}
		if text != "" {
			text = "," + text
		}
		text = name + "=" + printable(attribute.Value.Bytes) + text
		if len(text) > 4*maxPrintable {
			break
		}
	}
	return text
}

func timeOf(value asn1.RawValue) (t time.Time) {
	if _, err := asn1.Unmarshal(value.FullBytes, &t); err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// printable keeps of a text what a terminal may print.
func printable(text []byte) string {
	clean := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, string(text[:min(len(text), maxPrintable)]))
	return strings.TrimSpace(clean)
}
