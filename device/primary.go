package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// place is where one of the two primary keys belongs.
type place struct {
	what               string
	handle             tpm2.TPMHandle
	hierarchy          tpm2.TPMHandle
	auth               func(Auth) []byte // of the hierarchy
	template           func(Algorithm) tpm2.TPMTPublic
	stepRead, stepMake string
}

var (
	ekPlace = place{"EK", HandleEK, tpm2.TPMRHEndorsement, func(a Auth) []byte { return a.Endorsement },
		ekTemplate, StepReadEK, StepCreateEK}
	srkPlace = place{"SRK", HandleSRK, tpm2.TPMRHOwner, func(a Auth) []byte { return a.Owner },
		srkTemplate, StepReadSRK, StepCreateSRK}
)

// primary is a loaded EK or SRK.
type primary struct {
	object
	transient bool   // to be flushed
	public    []byte // TPM2B_PUBLIC
	area      *tpm2.TPMTPublic
	algorithm Algorithm
	hierarchy string
}

func (p *primary) flush(tpm transport.TPM) error {
	if !p.transient {
		return nil
	}
	return p.remove(tpm)
}

func openPrimary(g *guard, at place, o options) (*primary, error) {
	if o.transient {
		return createTransient(g, at, o)
	}
	p, err := readPrimary(g.tpm, at, o)
	if errors.Is(err, tpm2.TPMRCHandle) { // nothing there
		return createPersistent(g, at, o)
	}
	return p, err
}

func readPrimary(tpm transport.TPM, at place, o options) (*primary, error) {
	done := o.progress.timed(at.stepRead)
	p, err := inspect(tpm, at.handle)
	if err == nil {
		err = p.fits(at, o.algorithm)
	}
	if errors.Is(err, tpm2.TPMRCHandle) {
		done(fmt.Sprintf("no key at 0x%08x yet", at.handle), nil)
		return nil, err
	}
	done(fmt.Sprintf("found at 0x%08x", at.handle), err)
	return p, err
}

// inspect reads a loaded or persistent key.
func inspect(tpm transport.TPM, handle tpm2.TPMHandle) (*primary, error) {
	answer, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(tpm)
	if err != nil {
		return nil, tpmError("TPM2_ReadPublic", err)
	}
	area, err := answer.OutPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("public area at 0x%08x: %w", handle, err)
	}
	algorithm, err := algorithmOf(area)
	if err != nil {
		return nil, fmt.Errorf("public area at 0x%08x: %w", handle, err)
	}
	if err := matches(answer.Name, area); err != nil {
		return nil, fmt.Errorf("public area at 0x%08x: %w", handle, err)
	}
	return &primary{
		object:    object{handle: handle, name: answer.Name},
		public:    tpm2.Marshal(answer.OutPublic),
		area:      area,
		algorithm: algorithm,
		hierarchy: hierarchyOf(area.NameAlg, answer.Name.Buffer, answer.QualifiedName.Buffer),
	}, nil
}

// matches checks a name that the TPM gives an object. It is a hash over the
// public area, and what commands are authenticated for.
func matches(name tpm2.TPM2BName, area *tpm2.TPMTPublic) error {
	want, err := tpm2.ObjectName(area)
	if err != nil {
		return err
	}
	if !bytes.Equal(want.Buffer, name.Buffer) {
		return fmt.Errorf("%w: the name is of another key", ErrChanged)
	}
	return nil
}

// fits tells what is wrong with a key that somebody left at the handle, before
// a service or a TPM command says it less clearly.
func (p *primary) fits(at place, want Algorithm) error {
	a := p.area.ObjectAttributes
	if !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return fmt.Errorf("%w 0x%08x: it is no storage key and cannot be the %s", ErrOtherKey, at.handle, at.what)
	}
	if want != "" && want != p.algorithm {
		return fmt.Errorf("%w 0x%08x: the %s there is %s, not %s", ErrOtherKey, at.handle, at.what, p.algorithm, want)
	}
	return nil
}

func createTransient(g *guard, at place, o options) (*primary, error) {
	done := o.progress.timed(at.stepMake)
	p, err := create(g, at, o)
	done("for now, not kept in the TPM", err)
	return p, err
}

func create(g *guard, at place, o options) (*primary, error) {
	answer, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: at.hierarchy, Auth: g.prove(at.auth(o.auth))},
		InPublic:      tpm2.New2B(at.template(o.algorithm)),
	}.Execute(g.tpm)
	if err != nil {
		return nil, tpmError("TPM2_CreatePrimary", err)
	}
	p, err := inspect(g.tpm, answer.ObjectHandle)
	if err != nil {
		return nil, errors.Join(err, flush(g.tpm, answer.ObjectHandle))
	}
	p.transient = true
	return p, nil
}

// createPersistent puts the new key where every SDK of Azure DPS looks for it.
// If another program has put one there since we looked, that is the one.
func createPersistent(g *guard, at place, o options) (*primary, error) {
	done := o.progress.timed(at.stepMake)
	p, err := create(g, at, o)
	if err != nil {
		done("", err)
		return nil, err
	}
	err = persist(g, o.auth.Owner, p, at.handle)
	rival := errors.Is(err, tpm2.TPMRCNVDefined)
	if rival {
		err = nil
	}
	err = errors.Join(err, p.flush(g.tpm))
	if rival && err == nil {
		done("another program was faster", nil)
		return readPrimary(g.tpm, at, o)
	}
	done(fmt.Sprintf("kept at 0x%08x", at.handle), err)
	if err != nil {
		return nil, err
	}
	p.handle, p.transient = at.handle, false
	return p, nil
}

func persist(g *guard, owner []byte, p *primary, at tpm2.TPMHandle) error {
	named := p.named()
	_, err := tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: g.prove(owner)},
		ObjectHandle:     &named,
		PersistentHandle: at,
	}.Execute(g.tpm)
	return tpmError("TPM2_EvictControl", err)
}

// hierarchyOf finds the hierarchy of a primary key by its qualified name, which
// is H(name of the parent ‖ name) with the hierarchy's handle for the parent's
// name (TPM 2.0 Part 1, 16).
func hierarchyOf(hash tpm2.TPMIAlgHash, name, qualified []byte) string {
	h, err := hash.Hash()
	if err != nil {
		return "unknown"
	}
	for handle, word := range map[tpm2.TPMHandle]string{
		tpm2.TPMRHEndorsement: "endorsement",
		tpm2.TPMRHOwner:       "owner",
		tpm2.TPMRHPlatform:    "platform",
	} {
		digest := h.New()
		digest.Write(binary.BigEndian.AppendUint32(nil, uint32(handle)))
		digest.Write(name)
		want := binary.BigEndian.AppendUint16(nil, uint16(hash))
		if bytes.Equal(digest.Sum(want), qualified) {
			return word
		}
	}
	return "unknown"
}
