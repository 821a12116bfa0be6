package device

import (
	"errors"
	"slices"
	"syscall"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// object is a key of ours in the TPM, or put aside to make room there: many
// TPMs have room for three, and other programs may hold some of that.
type object struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	aside  *tpm2.TPMSContext // the key, encrypted by the TPM; nil while it is loaded
}

func (o *object) named() tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: o.handle, Name: o.name}
}

// withAuth authorises the use of the key by s.
func (o *object) withAuth(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: o.handle, Name: o.name, Auth: s}
}

// putAside saves a key outside the TPM and flushes it there.
func (o *object) putAside(tpm transport.TPM) error {
	answer, err := tpm2.ContextSave{SaveHandle: o.handle}.Execute(tpm)
	if err != nil {
		return tpmError("TPM2_ContextSave", err)
	}
	if err := flush(tpm, o.handle); err != nil {
		return err
	}
	o.aside = &answer.Context
	return nil
}

// recall loads a key that was put aside.
func (o *object) recall(tpm transport.TPM) error {
	if o.aside == nil {
		return nil
	}
	answer, err := tpm2.ContextLoad{Context: *o.aside}.Execute(tpm)
	if err != nil {
		return tpmError("TPM2_ContextLoad", err)
	}
	o.handle, o.aside = tpm2.TPMHandle(answer.LoadedHandle.HandleValue()), nil
	return nil
}

// remove flushes a key for good. One that was put aside is not in the TPM.
func (o *object) remove(tpm transport.TPM) error {
	if o.aside != nil {
		o.aside = nil
		return nil
	}
	return flush(tpm, o.handle)
}

// withRoom does work that needs some keys loaded. If the TPM is full, what else
// of ours is there makes room, and the work is done once more: it must leave
// nothing behind when it fails.
func (id *Identity) withRoom(needed []*object, work func() error) error {
	try := func() error {
		for _, o := range needed {
			if err := o.recall(id.tpm); err != nil {
				return err
			}
		}
		return work()
	}
	err := try()
	if !isFull(err) {
		return err
	}
	freed, failure := id.makeRoom(needed)
	if failure != nil || !freed {
		return errors.Join(err, failure)
	}
	return try()
}

// makeRoom ends our sessions and puts aside the keys that are not needed. It
// tells whether there was anything.
func (id *Identity) makeRoom(needed []*object) (freed bool, err error) {
	freed = id.guard.busy()
	if err := id.guard.end(); err != nil {
		return freed, err
	}
	for _, o := range id.movable() {
		if o.aside != nil || slices.Contains(needed, o) {
			continue
		}
		if err := o.putAside(id.tpm); err != nil {
			return freed, err
		}
		freed = true
	}
	return freed, nil
}

// movable are our transient objects. The trusted EK stays, to salt with.
func (id *Identity) movable() (all []*object) {
	for key := range id.keys {
		all = append(all, &key.object)
	}
	for _, p := range []*primary{id.srk, id.ek} {
		if p != nil && p.transient && !(p == id.ek && id.guard.strict) {
			all = append(all, &p.object)
		}
	}
	return all
}

// isFull tells whether a command failed because the TPM has no room for objects
// or sessions. The kernel's resource manager has room for three objects of one
// program and says so as an error of its own.
func isFull(err error) bool {
	for _, code := range full {
		if errors.Is(err, code) {
			return true
		}
	}
	return errors.Is(err, syscall.ENOMEM)
}

var full = []tpm2.TPMRC{tpm2.TPMRCObjectMemory, tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionMemory,
	tpm2.TPMRCSessionHandles, tpm2.TPMRCMemory}
