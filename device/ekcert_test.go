package device_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// maker signs certificates as a maker of TPMs does.
type maker struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func newMaker(t *testing.T, name string, issuer *maker) *maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"TPM Makers"}},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(4e9, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	m := &maker{template, key}
	if issuer == nil {
		issuer = m
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.certificate, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	if m.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return m
}

// certify makes an EK certificate as the TCG has it: no subject, and the TPM's
// make in a critical alternative name.
func (m *maker) certify(t *testing.T, key crypto.PublicKey, extensions ...pkix.Extension) []byte {
	t.Helper()
	attribute := func(last int, value string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 23, 133, 2, last}, Value: value}
	}
	name, err := asn1.Marshal(pkix.RDNSequence{{attribute(1, "id:49465800")}, {attribute(2, "SLB\x1b[2J9670")}, {attribute(3, "id:0755")}})
	if err != nil {
		t.Fatal(err)
	}
	names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(0x4711), NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0),
		KeyUsage: x509.KeyUsageKeyEncipherment, IssuingCertificateURL: []string{"http://makers.example/ca.crt"},
		ExtraExtensions: append([]pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: names}}, extensions...)}
	der, err := x509.CreateCertificate(rand.Reader, template, m.certificate, key, m.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certificateFor(t *testing.T, key crypto.PublicKey) []byte {
	t.Helper()
	return newMaker(t, "Maker", nil).certify(t, key)
}

// publicKeyOf is the key in a TPM2B_PUBLIC.
func publicKeyOf(t *testing.T, public []byte) crypto.PublicKey {
	t.Helper()
	wrapped, err := tpm2.Unmarshal[tpm2.TPM2BPublic](public)
	if err != nil {
		t.Fatal(err)
	}
	area, err := wrapped.Contents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*area)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rsaKeyOf is the key that the maker of a TPM certifies: of template L-1.
func rsaKeyOf(t *testing.T, tpm transport.TPM) crypto.PublicKey {
	t.Helper()
	return publicKeyOf(t, made(t, tpm, tpm2.TPMRHEndorsement, tpm2.RSAEKTemplate))
}

func certificateAt(t *testing.T, found *device.EKs, index uint32) *device.EKCertificate {
	t.Helper()
	i := slices.IndexFunc(found.Certificates, func(c *device.EKCertificate) bool { return c.Index == index })
	if i < 0 {
		t.Fatalf("no certificate at 0x%08x; not read: %v", index, found.Unread)
	}
	return found.Certificates[i]
}

// swtpm_setup makes EKs and certificates as a factory does, with code that is
// not ours.
func TestTPMsOfAFactory(t *testing.T) {
	needSwtpm(t)
	factory := simtpm.NewFactory(t)
	t.Run("RSA 2048 and P-384", func(t *testing.T) {
		tpm := factory.Make(t)
		found := readEKs(t, tpm)
		mustBeCertified(t, factory, found, map[uint32]device.EK{
			0x01c00002: {Algorithm: "rsa2048", Templates: []string{"L-1"}, Handles: []uint32{0x81010001}},
			0x01c00016: {Algorithm: "ecc-p384", Templates: []string{"H-3"}, Handles: []uint32{0x81010016}},
		})
		toolsMustAgree(t, tpm, found)
	})
	t.Run("RSA 3072 and P-384", func(t *testing.T) {
		mustBeCertified(t, factory, readEKs(t, factory.Make(t, "--rsa-keysize", "3072"), device.WithSlowEKs()), map[uint32]device.EK{
			0x01c0001c: {Algorithm: "rsa3072", Templates: []string{"H-6"}, Handles: []uint32{0x8101001c}},
			0x01c00016: {Algorithm: "ecc-p384", Templates: []string{"H-3"}, Handles: []uint32{0x81010016}},
		})
	})
	// With --allow-signing the factory makes EKs that no default template makes,
	// and puts their templates into NV.
	t.Run("templates of its own", func(t *testing.T) {
		found := readEKs(t, factory.Make(t, "--allow-signing"))
		mustBeCertified(t, factory, found, map[uint32]device.EK{
			0x01c00002: {Algorithm: "rsa2048", Templates: []string{"NV 0x01c00004"}, Handles: []uint32{0x81010001}},
			0x01c00016: {Algorithm: "ecc-p384", Templates: []string{"NV 0x01c00017"}, Handles: []uint32{0x81010016}},
		})
		for _, key := range found.Keys {
			if key.Certificate != nil && key.Unfit == nil {
				t.Errorf("%v: a key that signs passes for an EK of this protocol", key.Templates)
			}
		}
	})
}

// mustBeCertified checks the certificates by their NV index, and the keys that
// they are for.
func mustBeCertified(t *testing.T, factory *simtpm.Factory, found *device.EKs, want map[uint32]device.EK) {
	t.Helper()
	mustDiffer(t, found)
	pemText, _ := factory.CA(t)
	block, _ := pem.Decode(pemText)
	issuer, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Certificates) != len(want) {
		t.Errorf("%d certificates", len(found.Certificates))
	}
	for index, want := range want {
		c := certificateAt(t, found, index)
		if c.Issuer != "CN=swtpm-localca" || c.Model != "swtpm" || c.Manufacturer != "id:00001014" || c.ManufacturerName() != "id:00001014" ||
			c.Irregular != nil || c.NotAfter.Year() < 2100 || c.X509.CheckSignatureFrom(issuer) != nil || !c.Matches {
			t.Errorf("0x%08x: got %+v", index, c)
		}
		i := slices.IndexFunc(found.Keys, func(k device.EK) bool { return k.Certificate == c })
		if i < 0 {
			t.Errorf("0x%08x is for none of the keys", index)
			continue
		}
		if key := found.Keys[i]; key.Algorithm != want.Algorithm || !slices.Equal(key.Templates, want.Templates) || !slices.Equal(key.Handles, want.Handles) ||
			key.Hierarchy != "endorsement" || !key.SurvivesClear {
			t.Errorf("0x%08x: got %+v", index, key)
		}
	}
}

func TestACertificateTellsTheTPMsMake(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		writeNV(t, tpm, 0x01c00002, readableByAll, certificateFor(t, rsaKeyOf(t, tpm)))
		ecc := made(t, tpm, tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate)
		writeNV(t, tpm, 0x01c0000a, readableByAll, certificateFor(t, publicKeyOf(t, ecc)))
		found := readEKs(t, tpm)
		if key := keyOf(found, ecc); key == nil || key.Certificate != certificateAt(t, found, 0x01c0000a) {
			t.Errorf("the certificate at 0x01c0000a is not for the P-256 EK: %+v", key)
		}
		c := certificateAt(t, found, 0x01c00002)
		if c.Issuer != "O=TPM Makers,CN=Maker" && c.Issuer != "CN=Maker,O=TPM Makers" || c.Subject != "" || c.Serial != "4711" || !c.Matches || c.Irregular != nil ||
			c.ManufacturerName() != "IFX" || c.Model != "SLB[2J9670" || c.Version != "id:0755" ||
			!slices.Equal(c.IssuerURLs, []string{"http://makers.example/ca.crt"}) || c.NotBefore.Unix() != 1e9 || c.NotAfter.Unix() != 4e9 {
			t.Errorf("got %+v", c)
		}
	})
}

// A certificate copied from another chip is worth nothing.
func TestACertificateOfAnotherEKDoesNotMatch(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		other, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		writeNV(t, tpm, 0x01c00002, readableByAll, certificateFor(t, other.Public()))
		found := readEKs(t, tpm)
		if certificateAt(t, found, 0x01c00002).Matches {
			t.Error("another chip's certificate matches")
		}
		for _, key := range found.Keys {
			if key.Certificate != nil {
				t.Errorf("%s has another chip's certificate", key.RegistrationID)
			}
		}
	})
}

// Makers pad, wrap and bend certificates.
func TestCertificatesAsMakersStoreThem(t *testing.T) {
	sim := simulator(t)
	defer mustBeEmpty(t, sim)
	good := certificateFor(t, rsaKeyOf(t, sim))
	header := append([]byte{0x10, 0x01, 0x00, byte((len(good) + 2) >> 8), byte(len(good) + 2), 0x10, 0x02}, good...)
	oaep := bytes.Replace(bytes.Clone(good), []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1}, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7}, 1)
	negative := bytes.Replace(bytes.Clone(good), []byte{0x02, 0x02, 0x47, 0x11}, []byte{0x02, 0x02, 0xc7, 0x11}, 1)
	critical := newMaker(t, "Maker", nil).certify(t, rsaKeyOf(t, sim),
		pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 9}, Critical: true, Value: []byte{0x30, 0}}) // subject directory attributes
	index := uint32(0x01c00012)
	for name, c := range map[string]struct {
		content []byte
		regular bool
	}{
		"as it is":             {good, true},
		"padded with zeros":    {append(bytes.Clone(good), make([]byte, 300)...), true},
		"padded with 0xff":     {append(bytes.Clone(good), bytes.Repeat([]byte{0xff}, 300)...), true},
		"with a header of 1.2": {append(header, 0xff, 0xff), true},
		"critical extensions":  {critical, true},
		"key named RSAES-OAEP": {oaep, true},
		"negative serial":      {negative, false},
	} {
		writeNV(t, sim, index, readableByAll, c.content)
		found := readEKs(t, sim)
		got := certificateAt(t, found, index)
		if !got.Matches || got.ManufacturerName() != "IFX" || (got.Irregular == nil) != c.regular || (got.X509 != nil) != c.regular {
			t.Errorf("%s: got %+v", name, got)
		}
		undefineNV(t, sim, index)
	}
}

func undefineNV(t *testing.T, tpm transport.TPM, index uint32) {
	t.Helper()
	public, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.NVUndefineSpace{AuthHandle: tpm2.TPMRHOwner, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: public.NVName}}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
}

// The chain lies over as many indices as it takes, and closes if its root is there.
func TestTheChainInNV(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		root := newMaker(t, "Root", nil)
		middle := newMaker(t, "Middle", root)
		issuing := newMaker(t, "Issuing", middle)
		namesake := newMaker(t, "Issuing", nil) // same name, other key
		writeNV(t, tpm, 0x01c00002, readableByAll, issuing.certify(t, rsaKeyOf(t, tpm)))
		chain := slices.Concat(namesake.certificate.Raw, issuing.certificate.Raw, middle.certificate.Raw)
		writeNV(t, tpm, 0x01c00100, readableByAll, chain[:700])
		writeNV(t, tpm, 0x01c00101, readableByAll, append(chain[700:], bytes.Repeat([]byte{0xff}, 100)...))

		c := certificateAt(t, readEKs(t, tpm), 0x01c00002)
		if len(c.Issuers) != 2 || c.Closed || !bytes.Equal(c.Issuers[0].Raw, issuing.certificate.Raw) || !bytes.Equal(c.Issuers[1].Raw, middle.certificate.Raw) {
			t.Errorf("without its root: %d issuers, closed %t", len(c.Issuers), c.Closed)
		}
		writeNV(t, tpm, 0x01c00102, readableByAll, root.certificate.Raw)
		if c := certificateAt(t, readEKs(t, tpm), 0x01c00002); len(c.Issuers) != 3 || !c.Closed {
			t.Errorf("with its root: %d issuers, closed %t", len(c.Issuers), c.Closed)
		}
		writeNV(t, tpm, 0x01c00104, readableByAll, []byte("behind a gap"))
		writeNV(t, tpm, 0x01c00103, readableByAll, []byte("junk"))
		found := readEKs(t, tpm)
		mustSay(t, unreadWhy(found, "rest of the chain of EK certificates from NV index 0x01c00100 on"), "junk", "begins with 0x6a")
		if c := certificateAt(t, found, 0x01c00002); !c.Closed {
			t.Error("junk behind the chain opened it")
		}
	})
}

func FuzzEKsFromNV(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "EK"},
		IssuingCertificateURL: []string{"http://makers.example/ca.crt"}}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(append([]byte{0x10, 0x01, 0x00, byte(len(der) >> 8), byte(len(der)), 0x10, 0x02}, der...))
	f.Add(tpm2.Marshal(tpm2.RSAEKTemplate))
	f.Add(tpm2.Marshal(tpm2.ECCEKTemplate))
	f.Add([]byte{0xff, 0x30, 0x80})
	f.Fuzz(func(t *testing.T, content []byte) {
		if c, err := device.ReadCertificate(1, content); err == nil {
			if c.ManufacturerName(); len(c.Raw) > len(content) || len(c.Issuer) > 8<<10 || len(c.IssuerURLs) > 4 {
				t.Errorf("%d bytes gave %+v", len(content), c)
			}
		}
		if chain, _ := device.ReadChain(1, content); len(chain) > 16 {
			t.Errorf("a chain of %d", len(chain))
		}
		if template, err := device.ParseTemplate(content); err == nil {
			again, err := device.ParseTemplate(tpm2.Marshal(template))
			if err != nil || !bytes.Equal(tpm2.Marshal(again), tpm2.Marshal(template)) {
				t.Errorf("a template changed: %v", err)
			}
		}
	})
}
