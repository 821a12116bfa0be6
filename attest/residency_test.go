package attest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// The tests in this file attack the claim in judge.go with the reference TPM:
// somebody who owns a genuine TPM tries to have a blob sealed to a storage key
// whose private half is in a file. For every way in, either the TPM refuses the
// attributes that ParseSRK demands, or ParseSRK refuses the attributes that the
// TPM takes.

// The attacker's key: its private half is under testdata, in software.
func attackerKey(t *testing.T) *testKey { return newTestKey(t, "srk", "ecc-p256", lowRange) }

// with changes attributes of a public area.
func (k testKey) with(change func(*tpm2.TPMAObject)) *testKey {
	change(&k.public.ObjectAttributes)
	return &k
}

func (k *testKey) sensitive() tpm2.TPMTSensitive {
	return tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgECC,
		SeedValue:     tpm2.TPM2BDigest{Buffer: bytes.Repeat([]byte{5}, 32)},
		Sensitive:     tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: k.ecc.Bytes()}),
	}
}

// loadExternal gives the outcome of TPM2_LoadExternal, with the private part
// if asked. The object goes when the test ends.
func (d *device) loadExternal(k *testKey, hierarchy tpm2.TPMHandle, private bool) (*loadedKey, error) {
	cmd := tpm2.LoadExternal{InPublic: tpm2.New2B(k.public), Hierarchy: hierarchy}
	if private {
		cmd.InPrivate = tpm2.New2B(k.sensitive())
	}
	rsp, err := cmd.Execute(d.tpm)
	if err != nil {
		return nil, err
	}
	l := &loadedKey{rsp.ObjectHandle, rsp.Name, k.bytes(), tpm2.PasswordAuth(nil)}
	d.flushLater(l)
	return l, nil
}

// credentialFor makes a credential to ek for any name, judged or not, so that a
// test can ask whether the TPM would release it.
func credentialFor(t *testing.T, ek *loadedKey, name []byte) (id, secret []byte) {
	t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](ek.public)
	must(t, err)
	contents, err := public.Contents()
	must(t, err)
	key, err := tpm2.ImportEncapsulationKey(contents)
	must(t, err)
	id, secret, err = tpm2.CreateCredential(rand.Reader, key, name, []byte("sixteen byte key"))
	must(t, err)
	return id, secret
}

// wantReleased fails unless the TPM opens a credential for this object: without
// a refusal by ParseSRK, the attack would work.
func (d *device) wantReleased(ek, k *loadedKey) {
	d.t.Helper()
	id, secret := credentialFor(d.t, ek, k.name.Buffer)
	got, err := d.activate(ek, k, id, secret)
	if err != nil || string(got) != "sixteen byte key" {
		d.t.Fatalf("the TPM releases %q, %v; the attack should work up to here", got, err)
	}
}

func wantSRKRefused(t *testing.T, tpm2b []byte, rule Rule) {
	t.Helper()
	_, err := ParseSRK(tpm2b)
	wantRefusal(t, err, ObjectSRK, rule)
}

func TestPublicOnlyObjectsPassOurRulesAndGetNoAuthorisation(t *testing.T) {
	d := newDevice(t)
	ek := d.primary(tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate)
	key := attackerKey(t)
	for name, c := range map[string]struct {
		hierarchy tpm2.TPMHandle
		change    func(*tpm2.TPMAObject)
	}{
		"by password in the null hierarchy":  {tpm2.TPMRHNull, func(*tpm2.TPMAObject) {}},
		"by password in the owner hierarchy": {tpm2.TPMRHOwner, func(*tpm2.TPMAObject) {}},
		"with noDA clear":                    {tpm2.TPMRHOwner, func(a *tpm2.TPMAObject) { a.NoDA = false }},
		"with userWithAuth clear":            {tpm2.TPMRHOwner, func(a *tpm2.TPMAObject) { a.UserWithAuth = false }},
	} {
		t.Run(name, func(t *testing.T) {
			d := &device{t, d.tpm}
			fake, err := d.loadExternal(key.with(c.change), c.hierarchy, false)
			must(t, err) // the TPM takes any attributes here
			p, err := splitBlob(d.seal(ek, fake, randomKey(32)))
			must(t, err) // and so do we: nothing in the bytes tells them apart
			_, err = d.activate(ek, fake, p.IDObject, p.IDSecret)
			wantTPMError(t, "ActivateCredential", err, tpm2.TPMRCAuthUnavailable)
		})
	}
	t.Run("by a policy of its own choosing", func(t *testing.T) {
		d := &device{t, d.tpm}
		session, done, err := tpm2.PolicySession(d.tpm, tpm2.TPMAlgSHA256, 16)
		must(t, err)
		defer func() { must(t, done()) }()
		_, err = tpm2.PolicyCommandCode{PolicySession: session.Handle(), Code: tpm2.TPMCCActivateCredential}.Execute(d.tpm)
		must(t, err)
		digest, err := tpm2.PolicyGetDigest{PolicySession: session.Handle()}.Execute(d.tpm)
		must(t, err)
		withPolicy := key.with(func(a *tpm2.TPMAObject) { a.AdminWithPolicy = true })
		withPolicy.public.AuthPolicy = digest.PolicyDigest

		// The control: the very same session opens a credential when the TPM
		// does hold the private half.
		external := withPolicy.with(func(a *tpm2.TPMAObject) { a.FixedTPM, a.FixedParent, a.Restricted = false, false, false })
		external = external.unrestricted(t)
		held, err := d.loadExternal(external, tpm2.TPMRHNull, true)
		must(t, err)
		held.auth = session
		d.wantReleased(ek, held)
		d.flush(held)

		_, err = tpm2.PolicyCommandCode{PolicySession: session.Handle(), Code: tpm2.TPMCCActivateCredential}.Execute(d.tpm)
		must(t, err)
		fake, err := d.loadExternal(withPolicy, tpm2.TPMRHOwner, false)
		must(t, err)
		fake.auth = session
		p, err := splitBlob(d.seal(ek, fake, randomKey(32)))
		must(t, err)
		_, err = d.activate(ek, fake, p.IDObject, p.IDSecret)
		wantTPMError(t, "ActivateCredential", err, tpm2.TPMRCAuthUnavailable)
	})
}

// unrestricted gives the key the NULL symmetric algorithm that the TPM demands
// of a key that is no parent.
func (k testKey) unrestricted(t *testing.T) *testKey {
	t.Helper()
	d, err := k.public.Parameters.ECCDetail()
	must(t, err)
	k.public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, CurveID: d.CurveID,
	})
	return &k
}

func TestKeysLoadedWithAPrivatePartAreRefusedByOneOrTheOther(t *testing.T) {
	d := newDevice(t)
	ek := d.primary(tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate)
	key := attackerKey(t)

	_, err := d.loadExternal(key, tpm2.TPMRHNull, true)
	wantTPMError(t, "all that ParseSRK demands", err, tpm2.TPMRCAttributes)
	for name, set := range map[string]func(*tpm2.TPMAObject){
		"fixedTPM":    func(a *tpm2.TPMAObject) { a.FixedTPM = true },
		"fixedParent": func(a *tpm2.TPMAObject) { a.FixedParent = true },
		"restricted":  func(a *tpm2.TPMAObject) { a.Restricted = true },
	} {
		one := key.with(func(a *tpm2.TPMAObject) { a.FixedTPM, a.FixedParent, a.Restricted = false, false, false; set(a) })
		_, err := d.loadExternal(one, tpm2.TPMRHNull, true)
		wantTPMError(t, name, err, tpm2.TPMRCAttributes)
	}

	taken := key.with(func(a *tpm2.TPMAObject) { a.FixedTPM, a.FixedParent, a.Restricted = false, false, false }).unrestricted(t)
	held, err := d.loadExternal(taken, tpm2.TPMRHNull, true)
	must(t, err)
	d.wantReleased(ek, held)
	wantSRKRefused(t, held.public, RuleFixedTPM)
}

func TestImportedKeysAreRefusedByOneOrTheOther(t *testing.T) {
	d := newDevice(t)
	ek, srk := d.primary(tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate), d.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	key := attackerKey(t)

	for name, change := range map[string]func(*tpm2.TPMAObject){
		"all that ParseSRK demands": func(*tpm2.TPMAObject) {},
		"fixedTPM alone":            func(a *tpm2.TPMAObject) { a.FixedParent = false },
		"fixedParent alone":         func(a *tpm2.TPMAObject) { a.FixedTPM = false },
	} {
		_, err := d.importAttacker(srk, key.with(change))
		wantTPMError(t, "Import with "+name, err, tpm2.TPMRCAttributes)
	}

	loose := key.with(func(a *tpm2.TPMAObject) { a.FixedTPM, a.FixedParent = false, false })
	private, err := d.importAttacker(srk, loose)
	must(t, err)
	parent, err := d.load(srk, tpm2.New2B(loose.public), *private)
	must(t, err)
	d.wantReleased(ek, parent)
	wantSRKRefused(t, parent.public, RuleFixedTPM)

	// The attacker knows the imported parent's seed, so the private blob of any
	// child of it can be forged.
	d.flush(srk)
	child := newTestKey(t, "ek", "ecc-p256", lowRange)
	_, err = d.load(parent, tpm2.New2B(child.public), forgePrivate(t, loose.sensitive().SeedValue.Buffer, child))
	wantTPMError(t, "Load of a forged fixedTPM child", err, tpm2.TPMRCAttributes)
	looseChild := child.with(func(a *tpm2.TPMAObject) { a.FixedTPM = false })
	held, err := d.load(parent, tpm2.New2B(looseChild.public), forgePrivate(t, loose.sensitive().SeedValue.Buffer, looseChild))
	must(t, err) // the forgery itself is sound
	d.wantReleased(ek, held)
	wantSRKRefused(t, held.public, RuleFixedTPM)
}

// importAttacker duplicates a software key to srk, without an inner wrapper.
func (d *device) importAttacker(srk *loadedKey, key *testKey) (*tpm2.TPM2BPrivate, error) {
	d.t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](srk.public)
	must(d.t, err)
	contents, err := public.Contents()
	must(d.t, err)
	wrapping, err := tpm2.ImportEncapsulationKey(contents)
	must(d.t, err)
	name, err := tpm2.ObjectName(&key.public)
	must(d.t, err)
	dup, seed, err := tpm2.CreateDuplicate(rand.Reader, wrapping, name.Buffer, tpm2.Marshal(key.sensitive()))
	must(d.t, err)
	rsp, err := tpm2.Import{
		ParentHandle: srk.authorised(), ObjectPublic: tpm2.New2B(key.public),
		Duplicate: tpm2.TPM2BPrivate{Buffer: dup}, InSymSeed: tpm2.TPM2BEncryptedSecret{Buffer: seed},
		Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
	}.Execute(d.tpm)
	if err != nil {
		return nil, err
	}
	return &rsp.OutPrivate, nil
}

// forgePrivate makes the private blob TPM2_Load takes (TPM 2.0 Part 1, 22) for
// a child of a SHA-256, AES-128 parent with a known seed.
func forgePrivate(t *testing.T, parentSeed []byte, child *testKey) tpm2.TPM2BPrivate {
	t.Helper()
	h, err := tpm2.TPMAlgSHA256.Hash()
	must(t, err)
	name, err := tpm2.ObjectName(&child.public)
	must(t, err)
	block, err := aes.NewCipher(tpm2.KDFa(h, parentSeed, "STORAGE", name.Buffer, nil, 128))
	must(t, err)
	iv := randomKey(16)
	secret := tpm2.Marshal(tpm2.New2B(child.sensitive()))
	//lint:ignore SA1019 the TPM's mode
	cipher.NewCFBEncrypter(block, iv).XORKeyStream(secret, secret)
	body := append(append([]byte{0, 16}, iv...), secret...)
	m := hmac.New(sha256.New, tpm2.KDFa(h, parentSeed, "INTEGRITY", nil, nil, 256))
	m.Write(body)
	m.Write(name.Buffer)
	return tpm2.TPM2BPrivate{Buffer: append(m.Sum([]byte{0, 32}), body...)}
}

// A derived key can have a secret that its owner computed beforehand.
func TestDerivedKeysAreRefusedByOneOrTheOther(t *testing.T) {
	d := newDevice(t)
	ek := d.primary(tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate)

	_, err := d.derivationParent(true, randomKey(32))
	wantTPMError(t, "a fixedTPM derivation parent with a known secret", err, tpm2.TPMRCAttributes)

	loose, err := d.derivationParent(false, randomKey(32))
	must(t, err)
	_, err = d.derive(loose, func(*tpm2.TPMAObject) {})
	wantTPMError(t, "a fixedTPM key derived from a known secret", err, tpm2.TPMRCAttributes)
	_, err = d.derive(loose, func(a *tpm2.TPMAObject) { a.FixedTPM = false })
	wantTPMError(t, "a storage key derived from a known secret", err, tpm2.TPMRCSymmetric)
	known, err := d.derive(loose, func(a *tpm2.TPMAObject) { a.FixedTPM, a.Restricted = false, false })
	must(t, err)
	d.wantReleased(ek, known)
	wantSRKRefused(t, known.public, RuleFixedTPM)
	d.flush(known)
	d.flush(loose)

	// fixedTPM alone does not tell a generated key from a derived one. Whether
	// the secret behind a fixedTPM derivation parent can be known, and whether
	// derived keys can be storage keys, is up to the implementation, so
	// sensitiveDataOrigin has to tell them apart.
	fixed, err := d.derivationParent(true, nil)
	must(t, err)
	_, err = d.derive(fixed, func(a *tpm2.TPMAObject) { a.SensitiveDataOrigin = true })
	wantTPMError(t, "a derived key that claims to be generated", err, tpm2.TPMRCAttributes)
	resident, err := d.derive(fixed, func(a *tpm2.TPMAObject) { a.Restricted = false })
	must(t, err)
	d.wantReleased(ek, resident)
	wantSRKRefused(t, resident.public, RuleSensitiveDataOrigin)
}

// derivationParent makes a restricted keyed hash that derives keys, from the
// given secret or, if nil, one of the TPM's.
func (d *device) derivationParent(fixed bool, secret []byte) (*loadedKey, error) {
	create := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{
				FixedTPM: fixed, FixedParent: fixed, SensitiveDataOrigin: secret == nil,
				UserWithAuth: true, NoDA: true, Restricted: true, Decrypt: true,
			},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
				Scheme: tpm2.TPMTKeyedHashScheme{
					Scheme: tpm2.TPMAlgXOR,
					Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgXOR, &tpm2.TPMSSchemeXOR{
						HashAlg: tpm2.TPMAlgSHA256, KDF: tpm2.TPMAlgKDF1SP800108,
					}),
				},
			}),
		}),
	}
	if secret != nil {
		create.InSensitive = tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
		}}
	}
	rsp, err := create.Execute(d.tpm)
	if err != nil {
		return nil, err
	}
	k := &loadedKey{rsp.ObjectHandle, rsp.Name, tpm2.Marshal(rsp.OutPublic), tpm2.PasswordAuth(nil)}
	d.flushLater(k)
	return k, nil
}

// derive makes a key below a derivation parent: a storage key, unless change
// clears restricted.
func (d *device) derive(parent *loadedKey, change func(*tpm2.TPMAObject)) (*loadedKey, error) {
	t := tpm2.ECCSRKTemplate
	t.ObjectAttributes.SensitiveDataOrigin = false
	change(&t.ObjectAttributes)
	if !t.ObjectAttributes.Restricted {
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, CurveID: tpm2.TPMECCNistP256,
		})
	}
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	label := tpm2.New2B(tpm2.TPMSDerive{Label: tpm2.TPM2BLabel{Buffer: []byte("srk")}})
	rsp, err := tpm2.CreateLoaded{
		ParentHandle: parent.authorised(),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&label),
		}},
		InPublic: tpm2.New2BTemplate(&t),
	}.Execute(d.tpm)
	if err != nil {
		return nil, err
	}
	k := &loadedKey{rsp.ObjectHandle, rsp.Name, tpm2.Marshal(rsp.OutPublic), tpm2.PasswordAuth(nil)}
	d.flushLater(k)
	return k, nil
}

// A key that is resident but unrestricted opens the duplication seed for
// anybody who may use it; the HMAC key then falls out in software.
func TestUnrestrictedKeysWouldOpenTheSeedOutside(t *testing.T) {
	d := newDevice(t)
	oracle := template(tpm2.TPMAlgECC, tpm2.TPMECCNistP256, lowRange)
	oracle.ObjectAttributes.Restricted = false
	oracle.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, CurveID: tpm2.TPMECCNistP256,
	})
	for name, c := range map[string]struct {
		template tpm2.TPMTPublic
		opens    bool
	}{
		"unrestricted": {oracle, true},
		"restricted":   {tpm2.ECCSRKTemplate, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := &device{t, d.tpm}
			k := d.primary(tpm2.TPMRHOwner, c.template)
			p, err := ParsePublic(k.public)
			must(t, err)
			secret, seed, err := shareSeed(rand.Reader, make([]byte, 0, 64), p, labelDuplicate)
			must(t, err)
			got, err := d.seedByZGen(k, p, secret)
			if !c.opens {
				wantTPMError(t, "ECDH_ZGen", err, tpm2.TPMRCAttributes)
				return
			}
			must(t, err)
			if !bytes.Equal(got, seed) {
				t.Error("the oracle gives another seed; the attack should work up to here")
			}
			wantSRKRefused(t, k.public, RuleRestricted)
		})
	}
}

func (d *device) seedByZGen(k *loadedKey, p *Public, secret []byte) ([]byte, error) {
	point, err := tpm2.Unmarshal[tpm2.TPMSECCPoint](secret)
	must(d.t, err)
	rsp, err := tpm2.ECDHZGen{KeyHandle: k.authorised(), InPoint: tpm2.New2B(*point)}.Execute(d.tpm)
	if err != nil {
		return nil, err
	}
	z, err := rsp.OutPoint.Contents()
	must(d.t, err)
	h, err := tpm2.TPMAlgSHA256.Hash()
	must(d.t, err)
	return tpm2.KDFe(h, z.X.Buffer, "DUPLICATE", point.X.Buffer, p.ECC.X, 256), nil
}

// The attributes that remain: no TPM makes such keys, so a public area that
// shows them is invented.
func TestTPMMakesNoStorageKeysThatTheOtherRulesRefuse(t *testing.T) {
	d := newDevice(t)
	for name, change := range map[string]func(*tpm2.TPMAObject){
		"sign besides decrypt":        func(a *tpm2.TPMAObject) { a.SignEncrypt = true },
		"neither sign nor decrypt":    func(a *tpm2.TPMAObject) { a.Decrypt = false },
		"fixedTPM without its parent": func(a *tpm2.TPMAObject) { a.FixedParent = false },
		"a private half from outside": func(a *tpm2.TPMAObject) { a.SensitiveDataOrigin = false },
	} {
		template := tpm2.ECCSRKTemplate
		change(&template.ObjectAttributes)
		_, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(d.tpm)
		wantTPMError(t, name, err, tpm2.TPMRCAttributes)
	}
}

// What residency buys: the attacker's own key can take part in everything but
// the credential. Had the TPM released the inner key for it, the HMAC key would
// be in a file: this is the fall that judgeAttributes prevents.
func TestWithoutResidencyTheHMACKeyWouldBeInSoftware(t *testing.T) {
	ek, fake := newTestKey(t, "ek", "ecc-p256", lowRange), attackerKey(t)
	key := randomKey(32)
	blob, err := Seal(rand.Reader, ek.ek(t), fake.srk(t), key)
	must(t, err)
	p, err := splitBlob(blob)
	must(t, err)
	innerKey, err := modelActivate(p, ek, fake) // stands for a TPM that releases it
	must(t, err)
	got, err := modelImport(p, fake, innerKey)
	if err != nil || !bytes.Equal(got, key) {
		t.Errorf("got %x, %v", got, err)
	}
}
