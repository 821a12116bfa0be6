package attest

import "fmt"

// Object says which of a device's keys a refusal is about.
type Object string

// The objects that can be refused. ObjectPublic appears only when ParsePublic
// is called for a key whose role is not known.
const (
	ObjectPublic Object = "public area"
	ObjectEK     Object = "EK"
	ObjectSRK    Object = "SRK"
)

// Rule names the one check that a public area failed. The set is closed: the
// operator's tools show these strings and metrics may use them as labels.
type Rule string

// Rules of form, checked by ParsePublic, in the order they are met.
const (
	RuleOversized      Rule = "oversized"              // longer than MaxPublicSize
	RuleTruncated      Rule = "truncated"              // a field runs past the end
	RuleSizePrefix     Rule = "size-prefix-mismatch"   // prefix and length disagree
	RuleTrailing       Rule = "trailing-bytes"         // the structure ends before the bytes do
	RuleType           Rule = "unknown-type"           // neither RSA nor ECC
	RuleNameAlg        Rule = "unknown-name-algorithm" // not SHA-256, SHA-384 or SHA-512
	RuleReserved       Rule = "reserved-attributes"    // a reserved TPMA_OBJECT bit is set
	RulePolicySize     Rule = "policy-size"            // authPolicy neither empty nor a digest of the name algorithm
	RuleSymmetricAlg   Rule = "unknown-symmetric"      // symmetric algorithm neither AES nor NULL
	RuleSchemeAlg      Rule = "unknown-scheme"         // scheme not of this key type
	RuleKDFAlg         Rule = "unknown-kdf"            // KDF scheme not known
	RuleRSASize        Rule = "rsa-size"               // not 2048, 3072 or 4096 bits
	RuleModulusLength  Rule = "modulus-length"         // modulus is not as many bytes as the key size says
	RuleModulusShort   Rule = "modulus-short"          // top bit of the modulus is clear
	RuleModulusEven    Rule = "modulus-even"           //
	RuleExponent       Rule = "exponent"               // neither 0 (meaning 65537) nor 65537
	RuleCurve          Rule = "curve"                  // neither P-256 nor P-384
	RuleCoordinateSize Rule = "coordinate-size"        // a coordinate longer than the field
	RulePoint          Rule = "point-off-curve"        //
)

// Rules of role, checked by ParseEK, ParseSRK and JudgePair.
const (
	RuleFixedTPM            Rule = "fixedTPM-clear"
	RuleFixedParent         Rule = "fixedParent-clear"
	RuleSensitiveDataOrigin Rule = "sensitiveDataOrigin-clear"
	RuleRestricted          Rule = "restricted-clear"
	RuleDecrypt             Rule = "decrypt-clear"
	RuleSign                Rule = "sign-set"
	RuleSymmetric           Rule = "symmetric"       // not AES-128 or AES-256 in CFB mode
	RuleScheme              Rule = "scheme-not-null" //
	RuleKDF                 Rule = "kdf-not-null"    //
	RuleSameKey             Rule = "srk-is-ek"       // EK and SRK are one key
)

// Refusal says which rule a public area failed. It is the only error type of
// the parsing and judging functions. Detail is for the operator: it quotes
// sizes and algorithm numbers, never key material.
type Refusal struct {
	Object Object
	Rule   Rule
	Detail string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("attest: %s refused: %s: %s", r.Object, r.Rule, r.Detail)
}

func refuse(o Object, rule Rule, format string, args ...any) *Refusal {
	return &Refusal{Object: o, Rule: rule, Detail: fmt.Sprintf(format, args...)}
}
