package attest

import (
	"bytes"
	"encoding/binary"
)

// ParsePublic decodes a TPM2B_PUBLIC, size prefix included (TPM 2.0 Part 2,
// 12.2.5), and checks that it holds a well-formed RSA or ECC key. It judges no
// role: attributes, scheme and symmetric algorithm may still be a signing
// key's. Every error is a *Refusal. Input longer than MaxPublicSize is refused
// unread, so memory and time are bounded. The result does not alias the input.
func ParsePublic(tpm2b []byte) (*Public, error) {
	p, err := parse(ObjectPublic, tpm2b)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func parse(o Object, tpm2b []byte) (*Public, error) {
	if len(tpm2b) > MaxPublicSize {
		return nil, refuse(o, RuleOversized, "%d bytes, at most %d", len(tpm2b), MaxPublicSize)
	}
	p := &Public{raw: bytes.Clone(tpm2b)}
	r := reader{object: o, rest: p.raw}
	size := int(r.uint16("size prefix"))
	if r.err == nil && size != len(r.rest) {
		return nil, refuse(o, RuleSizePrefix, "prefix says %d bytes, %d follow", size, len(r.rest))
	}
	area := r.rest
	r.header(p)
	switch p.Type {
	case AlgRSA:
		r.rsa(p)
	case AlgECC:
		r.ecc(p)
	}
	if r.err == nil && len(r.rest) > 0 {
		r.fail(RuleTrailing, "%d bytes after the end of the public area", len(r.rest))
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := p.checkKey(o); err != nil {
		return nil, err
	}
	p.name = p.NameAlg.appendSum(binary.BigEndian.AppendUint16(make([]byte, 0, 2+64), uint16(p.NameAlg)), area)
	return p, nil
}

func (p *Public) checkKey(o Object) (err error) {
	if p.Type == AlgRSA {
		p.rsaKey, err = rsaPublic(o, p.RSA)
	} else {
		p.eccKey, err = eccPublic(o, p.ECC)
	}
	return err
}

// reader takes fields off the front of a public area. The first refusal
// sticks: later reads return zero values and change nothing.
type reader struct {
	object Object
	rest   []byte
	err    *Refusal
}

func (r *reader) fail(rule Rule, format string, args ...any) {
	if r.err == nil {
		r.err = refuse(r.object, rule, format, args...)
	}
}

func (r *reader) take(n int, field string) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.rest) {
		r.fail(RuleTruncated, "%s needs %d bytes, %d left", field, n, len(r.rest))
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint16(field string) uint16 {
	if b := r.take(2, field); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32(field string) uint32 {
	if b := r.take(4, field); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) sized(field string) []byte {
	return r.take(int(r.uint16(field)), field)
}

// header reads what every TPMT_PUBLIC begins with (TPM 2.0 Part 2, 12.2.4).
func (r *reader) header(p *Public) {
	p.Type = Alg(r.uint16("type"))
	if p.Type != AlgRSA && p.Type != AlgECC {
		r.fail(RuleType, "type is %s", p.Type)
	}
	p.NameAlg = Alg(r.uint16("nameAlg"))
	if p.NameAlg.digestSize() == 0 {
		r.fail(RuleNameAlg, "name algorithm is %s", p.NameAlg)
	}
	p.Attributes = Attributes(r.uint32("objectAttributes"))
	if reserved := p.Attributes &^ knownAttributes; reserved != 0 {
		r.fail(RuleReserved, "reserved bits 0x%08x are set", uint32(reserved))
	}
	p.AuthPolicy = r.sized("authPolicy")
	if n := len(p.AuthPolicy); n != 0 && n != p.NameAlg.digestSize() {
		r.fail(RulePolicySize, "policy of %d bytes under name algorithm %s", n, p.NameAlg)
	}
}

// rsa reads TPMS_RSA_PARMS and the modulus (TPM 2.0 Part 2, 12.2.3.5).
func (r *reader) rsa(p *Public) {
	r.symmetric(p)
	p.Scheme = r.scheme("scheme", RuleSchemeAlg, rsaSchemes)
	p.RSA = &RSA{Bits: r.uint16("keyBits")}
	switch p.RSA.Bits {
	case 2048, 3072, 4096:
	default:
		r.fail(RuleRSASize, "RSA of %d bits, want 2048, 3072 or 4096", p.RSA.Bits)
	}
	p.RSA.Exponent = r.uint32("exponent")
	p.RSA.Modulus = r.sized("modulus")
}

// ecc reads TPMS_ECC_PARMS and the point (TPM 2.0 Part 2, 12.2.3.6).
func (r *reader) ecc(p *Public) {
	r.symmetric(p)
	p.Scheme = r.scheme("scheme", RuleSchemeAlg, eccSchemes)
	p.ECC = &ECC{Curve: Curve(r.uint16("curveID"))}
	if p.ECC.Curve != CurveP256 && p.ECC.Curve != CurveP384 {
		r.fail(RuleCurve, "curve 0x%04x, want P-256 or P-384", uint16(p.ECC.Curve))
	}
	p.ECC.KDF = r.scheme("kdf", RuleKDFAlg, kdfSchemes)
	p.ECC.X = r.sized("x")
	p.ECC.Y = r.sized("y")
}

func (r *reader) symmetric(p *Public) {
	p.Symmetric.Alg = Alg(r.uint16("symmetric"))
	switch p.Symmetric.Alg {
	case AlgNull:
	case AlgAES:
		p.Symmetric.Bits = r.uint16("symmetric keyBits")
		p.Symmetric.Mode = Alg(r.uint16("symmetric mode"))
	default:
		r.fail(RuleSymmetricAlg, "symmetric algorithm is %s", p.Symmetric.Alg)
	}
}

// A schemeSet lists the schemes a selector may name, with the number of bytes
// of detail that follow each: a hash algorithm, and for ECDAA a count.
type schemeSet map[Alg]int

var (
	rsaSchemes = schemeSet{AlgNull: 0, AlgRSASSA: 2, AlgRSAES: 0, AlgRSAPSS: 2, AlgOAEP: 2}
	eccSchemes = schemeSet{AlgNull: 0, AlgECDSA: 2, AlgECDH: 2, AlgECDAA: 4, AlgSM2: 2, AlgECSchnorr: 2, AlgECMQV: 2}
	kdfSchemes = schemeSet{AlgNull: 0, AlgMGF1: 2, AlgKDF1SP80056A: 2, AlgKDF2: 2, AlgKDF1SP800108: 2}
)

func (r *reader) scheme(field string, unknown Rule, known schemeSet) Scheme {
	s := Scheme{Alg: Alg(r.uint16(field))}
	detail, ok := known[s.Alg]
	if !ok {
		r.fail(unknown, "%s is %s", field, s.Alg)
	}
	if detail >= 2 {
		s.Hash = Alg(r.uint16(field + " hash"))
	}
	if detail == 4 {
		s.Count = r.uint16(field + " count")
	}
	return s
}
