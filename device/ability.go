package device

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Abilities are what of this protocol a TPM can do.
type Abilities struct {
	// Algorithms that keys can be made with, of those that this package makes.
	Algorithms []Algorithm

	// Missing names the algorithms and commands that the protocol needs and the
	// TPM does not have, such as "SHA256" or "TPM2_HMAC". Empty: it has all.
	Missing []string
}

// What this protocol needs of a TPM. TPM2_HMAC shares its code with TPM2_MAC,
// and HMAC_Start with MAC_Start.
var (
	neededAlgorithms = map[tpm2.TPMAlgID]string{
		tpm2.TPMAlgSHA256: "SHA256", tpm2.TPMAlgAES: "AES", tpm2.TPMAlgCFB: "CFB",
		tpm2.TPMAlgKeyedHash: "KEYEDHASH", tpm2.TPMAlgHMAC: "HMAC",
	}
	neededCommands = map[tpm2.TPMCC]string{
		tpm2.TPMCCCreatePrimary: "TPM2_CreatePrimary", tpm2.TPMCCReadPublic: "TPM2_ReadPublic",
		tpm2.TPMCCStartAuthSession: "TPM2_StartAuthSession", tpm2.TPMCCPolicySecret: "TPM2_PolicySecret",
		tpm2.TPMCCActivateCredential: "TPM2_ActivateCredential", tpm2.TPMCCImport: "TPM2_Import",
		tpm2.TPMCCLoad: "TPM2_Load", tpm2.TPMCCHMAC: "TPM2_HMAC", tpm2.TPMCCFlushContext: "TPM2_FlushContext",
	}
)

// ReadAbilities asks a TPM what it can do. It needs no authorisation.
func ReadAbilities(tpm transport.TPM) (*Abilities, error) {
	algorithms, err := algorithmIDs(tpm)
	if err != nil {
		return nil, err
	}
	commands, err := commandCodes(tpm)
	if err != nil {
		return nil, err
	}
	var a Abilities
	for id, name := range neededAlgorithms {
		if !slices.Contains(algorithms, id) {
			a.Missing = append(a.Missing, name)
		}
	}
	for code, name := range neededCommands {
		if !slices.Contains(commands, code) {
			a.Missing = append(a.Missing, name)
		}
	}
	slices.Sort(a.Missing)
	for _, algorithm := range []Algorithm{RSA2048, ECCP256, RSA3072} {
		able, err := canMake(tpm, algorithm)
		if err != nil {
			return nil, err
		}
		if able {
			a.Algorithms = append(a.Algorithms, algorithm)
		}
	}
	return &a, nil
}

// canMake asks with TPM2_TestParms. TPM_RC_COMMAND_CODE means that the TPM cannot
// be asked; then it is not taken as able.
func canMake(tpm transport.TPM, a Algorithm) (bool, error) {
	template := ekTemplate(a)
	_, err := tpm2.TestParms{Parameters: tpm2.TPMTPublicParms{Type: template.Type, Parameters: template.Parameters}}.Execute(tpm)
	var code tpm2.TPMRC
	if err != nil && !errors.As(err, &code) {
		return false, tpmError("TPM2_TestParms", err)
	}
	return err == nil, nil
}

func algorithmIDs(tpm transport.TPM) (ids []tpm2.TPMAlgID, err error) {
	err = capability(tpm, tpm2.TPMCapAlgs, func(data tpm2.TPMUCapabilities) (next uint32, count int, err error) {
		list, err := data.Algorithms()
		if err != nil {
			return 0, 0, err
		}
		for _, p := range list.AlgProperties {
			ids = append(ids, p.Alg)
			next = uint32(p.Alg) + 1
		}
		return next, len(list.AlgProperties), nil
	})
	return ids, err
}

func commandCodes(tpm transport.TPM) (codes []tpm2.TPMCC, err error) {
	err = capability(tpm, tpm2.TPMCapCommands, func(data tpm2.TPMUCapabilities) (next uint32, count int, err error) {
		list, err := data.Command()
		if err != nil {
			return 0, 0, err
		}
		for _, c := range list.CommandAttributes {
			if c.V { // a vendor's own
				next = 1<<29 | uint32(c.CommandIndex) + 1
				continue
			}
			codes = append(codes, tpm2.TPMCC(c.CommandIndex))
			next = uint32(c.CommandIndex) + 1
		}
		return next, len(list.CommandAttributes), nil
	})
	return codes, err
}

// capability reads a list that may come in pieces. read tells where the next
// piece begins and how many entries this one had.
func capability(tpm transport.TPM, kind tpm2.TPMCap, read func(tpm2.TPMUCapabilities) (uint32, int, error)) error {
	const pieces, atOnce = 16, 256
	var next uint32
	for range pieces {
		answer, err := tpm2.GetCapability{Capability: kind, Property: next, PropertyCount: atOnce}.Execute(tpm)
		if err != nil {
			return tpmError("TPM2_GetCapability", err)
		}
		after, count, err := read(answer.CapabilityData.Data)
		if err != nil {
			return tpmError("TPM2_GetCapability", err)
		}
		if !answer.MoreData || count == 0 || after <= next {
			return nil
		}
		next = after
	}
	return nil
}

// TryHMAC has a TPM import an HMAC key and sign with it, which this protocol
// rests on and some TPMs cannot do. The parent is a transient key of the NULL
// hierarchy and the HMAC key is worth nothing, so it needs no authorisation and
// no secret crosses. Nothing stays in the TPM.
func TryHMAC(tpm transport.TPM) (err error) {
	parent, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHNull, InPublic: tpm2.New2B(srkTemplate(trialAlgorithm(tpm)))}.Execute(tpm)
	if err != nil {
		return tpmError("TPM2_CreatePrimary", err)
	}
	defer func() { err = errors.Join(err, flush(tpm, parent.ObjectHandle)) }()
	secret, seed := make([]byte, sha256.Size), make([]byte, sha256.Size)
	rand.Read(secret)
	rand.Read(seed)
	public := tpm2.New2B(trialKey(secret, seed))
	under := tpm2.NamedHandle{Handle: parent.ObjectHandle, Name: parent.Name}
	imported, err := tpm2.Import{ParentHandle: under, ObjectPublic: public, Duplicate: trialDuplicate(secret, seed),
		Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull}}.Execute(tpm)
	if err != nil {
		return tpmError("TPM2_Import", err)
	}
	loaded, err := tpm2.Load{ParentHandle: under, InPrivate: imported.OutPrivate, InPublic: public}.Execute(tpm)
	if err != nil {
		return tpmError("TPM2_Load", err)
	}
	defer func() { err = errors.Join(err, flush(tpm, loaded.ObjectHandle)) }()
	return compareHMAC(tpm, tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: tpm2.PasswordAuth(nil)}, secret)
}

func compareHMAC(tpm transport.TPM, key tpm2.AuthHandle, secret []byte) error {
	message := []byte("trial")
	answer, err := tpm2.Hmac{Handle: key, Buffer: tpm2.TPM2BMaxBuffer{Buffer: message}, HashAlg: tpm2.TPMAlgSHA256}.Execute(tpm)
	if err != nil {
		return tpmError("TPM2_HMAC", err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(message)
	if !hmac.Equal(mac.Sum(nil), answer.OutHMAC.Buffer) {
		return fmt.Errorf("TPM2_HMAC: the TPM reckons wrongly")
	}
	return nil
}

// trialAlgorithm is ECC, which is quick, where the TPM has it.
func trialAlgorithm(tpm transport.TPM) Algorithm {
	if able, err := canMake(tpm, ECCP256); err == nil && able {
		return ECCP256
	}
	return RSA2048
}

func trialKey(secret, seed []byte) tpm2.TPMTPublic {
	unique := sha256.Sum256(append(append([]byte(nil), seed...), secret...))
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{UserWithAuth: true, NoDA: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{
			Scheme:  tpm2.TPMAlgHMAC,
			Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA256}),
		}}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: unique[:]}),
	}
}

// trialDuplicate is a duplicate without any wrapper.
func trialDuplicate(secret, seed []byte) tpm2.TPM2BPrivate {
	return tpm2.TPM2BPrivate{Buffer: tpm2.Marshal(tpm2.New2B(tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgKeyedHash,
		SeedValue:     tpm2.TPM2BDigest{Buffer: seed},
		Sensitive:     tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BSensitiveData{Buffer: secret}),
	}))}
}
