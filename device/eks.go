package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/attest"
)

// EK is one of the endorsement keys that a chip can show. SDKs and tools derive
// different ones from the same chip, so an enrollment that knows one of them
// may refuse the device that shows another.
type EK struct {
	Public         []byte // TPM2B_PUBLIC with its size prefix
	RegistrationID string // what the device is called by default if it shows this EK
	Algorithm      Algorithm

	// Hierarchy is where the key lives: "endorsement", "owner", "platform" or
	// "unknown", seen from its qualified name.
	Hierarchy string

	// SurvivesClear says that the same key can be made again after TPM2_Clear,
	// as a device does that changes hands; without Templates only by the program
	// that made it. TPM2_ChangeEPS ends every EK.
	SurvivesClear bool

	Templates []string // names of the templates that make it; none: made by a template not known here
	Handles   []uint32 // persistent handles at which it is kept
	SDKs      []string // programs that show it, as far as is known

	// Certificate is the one in NV that is for this key, or nil.
	Certificate *EKCertificate

	// Unfit says why this protocol's services cannot use the key; nil if they can.
	Unfit error

	id [32]byte // by which keys are compared; zero of a kind that attest does not know
}

// At tells whether the key is kept at a persistent handle.
func (k *EK) At(handle uint32) bool { return slices.Contains(k.Handles, handle) }

// EKs is what was found of a chip's EKs.
type EKs struct {
	Keys         []EK             // the one at HandleEK first, if there is one; no two are the same key
	Certificates []*EKCertificate // all that NV holds for EKs, whether or not they match a key
	Chain        []*EKCertificate // the makers' certificates in NV (TCG EK Credential Profile 2.4, 2.2.1.5.2)

	// Unread is what may be there but could not be read, and why. The error of a
	// template that needs a password is a *TPMError of TPM2_CreatePrimary.
	Unread []Unread
}

// Unread is one thing that could not be read.
type Unread struct {
	What string // such as "EK of template L-1 in the endorsement hierarchy"
	Err  error

	// Hierarchy is the one whose password would open it: "endorsement" or
	// "owner". Empty: no password is what it takes.
	Hierarchy string
}

// ErrSkipped is why a key that a chip needs long for was not made: nobody asked for it.
var ErrSkipped = errors.New("not made because a chip may take minutes for it; ask for all of them if you need it")

// EKOption changes how EKs are read.
type EKOption func(*ekOptions)

type ekOptions struct {
	auth     Auth
	slow     bool
	progress Progress
}

// WithEKAuth gives the passwords of the hierarchies: that of the endorsement
// hierarchy makes EKs, that of the owner the EKs there; it also reads NV.
func WithEKAuth(a Auth) EKOption { return func(o *ekOptions) { o.auth = a } }

// WithSlowEKs has RSA keys of 3072 and 4096 bits made too.
func WithSlowEKs() EKOption { return func(o *ekOptions) { o.slow = true } }

// WithEKProgress has each step reported to p.
func WithEKProgress(p Progress) EKOption { return func(o *ekOptions) { o.progress = p } }

// ReadEKs reads every EK that a chip can show: those kept at persistent handles,
// those that known templates make, and those of templates in NV; and the EK
// certificates. It changes nothing in the TPM: keys are made one at a time and
// flushed at once. It needs one free slot for a key, two while there are
// passwords.
//
// What cannot be read is listed in Unread; the error is of a TPM that does not
// answer. When ctx ends, the rest is listed as unread, too. A chip takes
// seconds for each RSA key.
func ReadEKs(ctx context.Context, tpm transport.TPM, opts ...EKOption) (*EKs, error) {
	var o ekOptions
	for _, opt := range opts {
		opt(&o)
	}
	o.auth = o.auth.clone()
	defer o.auth.Wipe()
	if err := o.auth.valid(); err != nil {
		return nil, err
	}
	info, err := ReadInfo(tpm)
	if err != nil {
		return nil, err
	}
	steady := steadied(tpm)
	r := &ekReader{ctx: ctx, tpm: steady, guard: &guard{tpm: steady}, info: info, o: o, closed: make(map[tpm2.TPMHandle]error)}
	err = errors.Join(r.readAll(), r.guard.end())
	if err != nil {
		return nil, err
	}
	return &r.found, nil
}

// ekReader is one reading of a chip's EKs.
type ekReader struct {
	ctx   context.Context
	tpm   transport.TPM
	guard *guard
	info  *Info
	o     ekOptions
	found EKs

	closed map[tpm2.TPMHandle]error // hierarchies that refused us
	aside  []EK                     // keys that are kept and do not look like EKs
}

func (r *ekReader) readAll() error {
	if err := r.readPersistent(); err != nil {
		return err
	}
	nv := r.nvReader()
	own, err := r.readTemplates(nv)
	if err != nil {
		return err
	}
	for _, t := range append(knownTemplates(), own...) {
		if err := r.readTemplate(t); err != nil {
			return err
		}
	}
	for _, key := range r.aside {
		if slices.ContainsFunc(r.found.Keys, func(k EK) bool { return k.same(&key) }) {
			r.add(key)
		}
	}
	if err := r.readCertificates(nv); err != nil {
		return err
	}
	r.match()
	return nil
}

func (r *ekReader) unread(what string, err error) {
	u := Unread{What: what, Err: err}
	if errors.Is(err, errOwnerReads) {
		u.Hierarchy = "owner"
	}
	r.found.Unread = append(r.found.Unread, u)
}

// readPersistent looks at all keys that are kept, wherever: tools put EKs at
// handles of their own.
func (r *ekReader) readPersistent() error {
	handles, err := handlesBetween(r.tpm, firstPersistent, firstPersistent|handleIndex)
	if err != nil {
		return err
	}
	if i := slices.Index(handles, HandleEK); i > 0 { // the first of all: it is what SDKs show
		handles = slices.Concat([]tpm2.TPMHandle{HandleEK}, slices.Delete(handles, i, i+1))
	}
	for _, handle := range handles {
		what := fmt.Sprintf("key at 0x%08x", uint32(handle))
		if r.ctx.Err() != nil {
			r.unread(what, r.ctx.Err())
			continue
		}
		key, isEK, err := readKept(r.tpm, handle)
		switch {
		case errors.Is(err, tpm2.TPMRCHandle): // removed since we asked
		case err != nil && lost(err):
			return err
		case err != nil:
			r.unread(what, err)
		case isEK:
			r.add(key)
		default: // an EK after all, if one of the templates makes it
			r.aside = append(r.aside, key)
		}
	}
	return nil
}

// lost tells whether the TPM itself is gone: there was no response.
func lost(err error) bool {
	var failure *TPMError
	return errors.As(err, &failure) && failure.Code == 0
}

// readKept reads a persistent key.
func readKept(tpm transport.TPM, handle tpm2.TPMHandle) (key EK, isEK bool, err error) {
	p, err := inspect(tpm, handle)
	if err != nil {
		return EK{}, false, err
	}
	key = p.ek()
	key.Handles = []uint32{uint32(handle)}
	if handle == HandleEK {
		key.SDKs = []string{everySDK}
	}
	return key, looksLikeEK(p, handle), nil
}

// looksLikeEK tells EKs from other keys that are kept: storage keys of the
// endorsement hierarchy, with the policy of an EK, or in the range of handles
// that is meant for EKs (TCG Registry of Reserved TPM 2.0 Handles, 2.3). What
// sits at HandleEK is shown whatever it is, since SDKs show it.
func looksLikeEK(p *primary, handle tpm2.TPMHandle) bool {
	const first, last = 0x81010000, 0x8101ffff
	if handle == HandleEK {
		return true
	}
	a := p.area.ObjectAttributes
	if !a.Restricted || !a.Decrypt || !a.FixedTPM {
		return false
	}
	policy := p.area.AuthPolicy.Buffer
	return p.hierarchy == "endorsement" || handle >= first && handle <= last ||
		bytes.Equal(policy, policyA) || len(policy) > 0 && bytes.Equal(policy, policyB[p.area.NameAlg])
}

// ek describes a key that is loaded.
func (p *primary) ek() EK {
	key := EK{Public: bytes.Clone(p.public), RegistrationID: attest.RegistrationID(p.public), Algorithm: p.algorithm,
		Hierarchy: p.hierarchy, SurvivesClear: p.hierarchy == "endorsement" || p.hierarchy == "platform"}
	_, key.Unfit = attest.ParseEK(p.public)
	key.id = keyID(p)
	return key
}

// add keeps a key, or adds to a known one how it was found this time.
func (r *ekReader) add(key EK) {
	for i := range r.found.Keys {
		known := &r.found.Keys[i]
		if !known.same(&key) {
			continue
		}
		known.Templates = append(known.Templates, key.Templates...)
		known.Handles = append(known.Handles, key.Handles...)
		for _, sdk := range key.SDKs {
			if !slices.Contains(known.SDKs, sdk) {
				known.SDKs = append(known.SDKs, sdk)
			}
		}
		return
	}
	r.found.Keys = append(r.found.Keys, key)
}

// same compares as the service does: keys, not what stands around them.
func (k *EK) same(other *EK) bool {
	if k.id != [32]byte{} {
		return k.id == other.id
	}
	return bytes.Equal(k.Public, other.Public)
}

// readTemplate makes the key of a template and flushes it.
func (r *ekReader) readTemplate(t Template) error {
	hierarchy := hierarchyWord(t.hierarchy)
	unread := func(err error) {
		what := fmt.Sprintf("EK of template %s in the %s hierarchy", t.Name, hierarchy)
		u := Unread{What: what, Err: err}
		if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
			u.Hierarchy = hierarchy
		}
		r.found.Unread = append(r.found.Unread, u)
	}
	supported, err := r.supports(&t.public)
	switch {
	case err != nil:
		return err
	case !supported:
		return nil // not an EK of this chip
	case r.ctx.Err() != nil:
		unread(r.ctx.Err())
		return nil
	case r.closed[t.hierarchy] != nil:
		unread(r.closed[t.hierarchy])
		return nil
	case t.slow && !r.o.slow:
		unread(ErrSkipped)
		return nil
	}
	key, err := r.make(t)
	switch {
	case err == nil:
		r.add(key)
	case lost(err):
		return err
	case closedHierarchy(err):
		r.closed[t.hierarchy] = err
		unread(err)
	case !lacksAlgorithm(err): // some TPMs find out only when they make it
		unread(err)
	}
	return nil
}

// closedHierarchy are the answers that any other template of the hierarchy would get, too.
func closedHierarchy(err error) bool {
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail, tpm2.TPMRCHierarchy, tpm2.TPMRCAuthUnavailable} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

func (r *ekReader) make(t Template) (key EK, err error) {
	done := r.o.progress.timed(StepCreateEK)
	defer func() { done(t.Name, err) }()
	answer, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: t.hierarchy, Auth: r.guard.prove(r.password(t.hierarchy))},
		InPublic:      tpm2.New2B(t.public),
	}.Execute(r.tpm)
	if err != nil {
		return EK{}, tpmError("TPM2_CreatePrimary", err)
	}
	p, err := inspect(r.tpm, answer.ObjectHandle)
	if err = errors.Join(err, flush(r.tpm, answer.ObjectHandle)); err != nil {
		return EK{}, err
	}
	key = p.ek()
	key.Templates, key.SDKs = []string{t.Name}, slices.Clone(t.SDKs)
	return key, nil
}

func (r *ekReader) password(hierarchy tpm2.TPMHandle) []byte {
	if hierarchy == tpm2.TPMRHOwner {
		return r.o.auth.Owner
	}
	return r.o.auth.Endorsement
}

// supports asks the TPM whether it has a template's algorithms, which costs
// nothing (TPM 2.0 Part 3, 30.3). The hash of the name is not part of the question.
func (r *ekReader) supports(t *tpm2.TPMTPublic) (bool, error) {
	known, err := knowsHash(r.tpm, t.NameAlg)
	if err != nil || !known {
		return false, err
	}
	_, err = tpm2.TestParms{Parameters: tpm2.TPMTPublicParms{Type: t.Type, Parameters: t.Parameters}}.Execute(r.tpm)
	if err = tpmError("TPM2_TestParms", err); err != nil && lost(err) {
		return false, err
	}
	// A TPM that does not know the command is asked by making the key.
	return err == nil || errors.Is(err, tpm2.TPMRCCommandCode), nil
}

func knowsHash(tpm transport.TPM, hash tpm2.TPMIAlgHash) (bool, error) {
	answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapAlgs, Property: uint32(hash), PropertyCount: 1}.Execute(tpm)
	if err != nil {
		return false, tpmError("TPM2_GetCapability", err)
	}
	list, err := answer.CapabilityData.Data.Algorithms()
	if err != nil {
		return false, tpmError("TPM2_GetCapability", err)
	}
	return len(list.AlgProperties) > 0 && list.AlgProperties[0].Alg == hash, nil
}

func hierarchyWord(handle tpm2.TPMHandle) string {
	switch handle {
	case tpm2.TPMRHEndorsement:
		return "endorsement"
	case tpm2.TPMRHOwner:
		return "owner"
	}
	return "platform"
}

// String names what was not read and why.
func (u Unread) String() string { return u.What + ": " + strings.ReplaceAll(u.Err.Error(), "\n", "; ") }
