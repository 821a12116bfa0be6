package attest

// EK is a public area that may serve as an endorsement key. Values come from
// ParseEK; the zero value is refused by Seal.
type EK struct {
	Public
	judged bool
}

// SRK is a public area that may serve as a storage root key. Values come from
// ParseSRK; the zero value is refused by Seal.
type SRK struct {
	Public
	judged bool
}

// ParseEK decodes a TPM2B_PUBLIC and applies every rule an endorsement key must
// keep. Every error is a *Refusal about ObjectEK.
func ParseEK(tpm2b []byte) (*EK, error) {
	p, err := parseStorageKey(ObjectEK, tpm2b)
	if err != nil {
		return nil, err
	}
	return &EK{Public: *p, judged: true}, nil
}

// ParseSRK decodes a TPM2B_PUBLIC and applies every rule a storage root key
// must keep. Every error is a *Refusal about ObjectSRK.
func ParseSRK(tpm2b []byte) (*SRK, error) {
	p, err := parseStorageKey(ObjectSRK, tpm2b)
	if err != nil {
		return nil, err
	}
	return &SRK{Public: *p, judged: true}, nil
}

// JudgePair refuses an SRK that is the EK itself, compared as keys. The two
// have different owners: the EK is the chip's for life, the SRK goes with the
// owner. One key in both roles would survive a clear, and with it every HMAC
// key that a previous owner kept wrapped.
func JudgePair(ek *EK, srk *SRK) error {
	if ek.sameKey(&srk.Public) {
		return refuse(ObjectSRK, RuleSameKey, "the storage root key is the endorsement key")
	}
	return nil
}

func parseStorageKey(o Object, tpm2b []byte) (*Public, error) {
	p, err := parse(o, tpm2b)
	if err != nil {
		return nil, err
	}
	if err := judgeAttributes(o, p.Attributes); err != nil {
		return nil, err
	}
	if err := judgeAlgorithms(o, p); err != nil {
		return nil, err
	}
	return p, nil
}

// judgeAttributes is where residency is decided.
//
// Nothing signs an SRK. What binds it is this: the blob's credential opens only
// in the TPM of the EK (which the operator vouches for), only when an object
// with exactly this name is loaded there, and only when the caller may use that
// object in the ADMIN role. The name covers the attributes. So the question is
// which attributes an object can have only if its private half was made by that
// TPM and never left it. There are four ways to get an object with a name of
// the attacker's choosing into a TPM:
//
//  1. TPM2_LoadExternal, public part only. Any attributes are accepted, but
//     such an object has no authorisation of any kind: TPM2_ActivateCredential
//     refuses it (Part 1, 19; Part 3, 12.3 and 12.5).
//  2. TPM2_LoadExternal with the private part. The TPM demands fixedTPM,
//     fixedParent and restricted CLEAR "so that it does not appear to be a key
//     created by this TPM" (Part 3, 12.3).
//  3. TPM2_Import, then TPM2_Load. Import demands fixedTPM and fixedParent CLEAR
//     (Part 3, 13.3). The same holds for every descendant: below a parent with
//     fixedTPM CLEAR no object may have it SET (Part 1, 25.2), so a forged
//     private blob under a parent whose seed the attacker knows gains nothing.
//  4. Making it there from data of the caller's: an asymmetric key cannot take
//     its private half from the caller, except by derivation
//     (TPM2_CreateLoaded under a derivation parent, Part 1, 28). A derived key
//     has sensitiveDataOrigin CLEAR.
//
// What remains is a key that this TPM generated. Each attribute carries a part:
//
//   - fixedTPM closes 2 and 3: the private half came from no other place and
//     cannot be duplicated to one, nor can any ancestor.
//   - fixedParent is implied by fixedTPM in a conforming TPM; asking for it
//     costs nothing and stays right if one of the two checks were lost in a TPM.
//   - sensitiveDataOrigin closes 4. The reference code refuses a fixedTPM
//     derivation parent with a chosen secret, and derived storage keys too, but
//     treats both as its own choice. Where a TPM allows them, such keys are
//     fixedTPM and known outside.
//   - restricted keeps the TPM from being used as an oracle. With it CLEAR,
//     TPM2_RSA_Decrypt or TPM2_ECDH_ZGen would open the duplication seed for
//     anybody on the device, and the HMAC key would end in software.
//   - decrypt with restricted makes it a storage key, the only kind that
//     TPM2_Import takes as a parent.
//   - sign CLEAR: restricted with both sign and decrypt is no key a TPM makes,
//     so a public area that shows it was invented.
//
// What rests on the TPM alone: that no storage key with fixedTPM SET has a seed
// known outside. Below such a key any private blob could be forged, with all
// the attributes above, and no public area would show it.
//
// userWithAuth, adminWithPolicy, noDA and stClear say who on the device may use
// the key and for how long, not where it lives, so they are left to the owner.
//
// The EK is held to the same attributes. They prove nothing about it, its
// residency being the operator's word, but a key that TPM2_ActivateCredential
// would not take, or that TPM2_RSA_Decrypt would, must not be used as one.
func judgeAttributes(o Object, a Attributes) error {
	switch {
	case !a.Has(FixedTPM):
		return refuse(o, RuleFixedTPM, "fixedTPM is clear: the key may live elsewhere too")
	case !a.Has(FixedParent):
		return refuse(o, RuleFixedParent, "fixedParent is clear: the key may be moved")
	case !a.Has(SensitiveDataOrigin):
		return refuse(o, RuleSensitiveDataOrigin, "sensitiveDataOrigin is clear: the TPM did not generate the key")
	case a.Has(SignEncrypt):
		return refuse(o, RuleSign, "sign is set: this is not a storage key")
	case !a.Has(Decrypt):
		return refuse(o, RuleDecrypt, "decrypt is clear: this is not a storage key")
	case !a.Has(Restricted):
		return refuse(o, RuleRestricted, "restricted is clear: the key decrypts for anybody")
	}
	return nil
}

// judgeAlgorithms holds a storage key to what TPM 2.0 Part 1, 24 and Part 2,
// 12.2.3 demand of one. AES-192 exists in the specification and in no profile.
func judgeAlgorithms(o Object, p *Public) error {
	s := p.Symmetric
	switch {
	case s.Alg != AlgAES:
		return refuse(o, RuleSymmetric, "symmetric algorithm is %s, want AES", s.Alg)
	case s.Bits != 128 && s.Bits != 256:
		return refuse(o, RuleSymmetric, "AES of %d bits, want 128 or 256", s.Bits)
	case s.Mode != AlgCFB:
		return refuse(o, RuleSymmetric, "AES mode is %s, want CFB", s.Mode)
	case p.Scheme.Alg != AlgNull:
		return refuse(o, RuleScheme, "scheme is %s, want NULL", p.Scheme.Alg)
	case p.ECC != nil && p.ECC.KDF.Alg != AlgNull:
		return refuse(o, RuleKDF, "KDF is %s, want NULL", p.ECC.KDF.Alg)
	}
	return nil
}
