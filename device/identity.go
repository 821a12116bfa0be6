package device

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/attest"
)

// Identity is a TPM with the two keys that make it a device: EK and SRK. Its
// methods, and those of its Keys, may be called from several goroutines.
type Identity struct {
	tpm      *steady
	guard    *guard
	closer   io.Closer // nil if the caller keeps the transport
	progress Progress
	ek, srk  *primary
	auth     Auth // a copy of ours, wiped by Close

	mu     sync.Mutex // held over commands that belong together
	keys   map[*Key]struct{}
	closed bool
}

// Option changes how an Identity is opened.
type Option func(*options)

type options struct {
	algorithm Algorithm // empty: any that is found, RSA2048 if created
	transient bool
	auth      Auth
	trusted   []byte   // TPM2B_PUBLIC of the EK; empty if any is taken
	exposed   exposure // for tests
	progress  Progress
}

// WithAlgorithm asks for keys of one algorithm. Opening fails with ErrOtherKey
// if a key of another one sits at the handle.
func WithAlgorithm(a Algorithm) Option { return func(o *options) { o.algorithm = a } }

// WithTransientKeys creates EK and SRK for the life of the Identity instead of
// using and filling the persistent handles. The same template gives the same
// keys each time, at the cost of creating them each time; no right of the owner
// to persist keys is needed.
func WithTransientKeys() Option { return func(o *options) { o.transient = true } }

// WithTrustedEK says which EK the TPM must show: the whole TPM2B_PUBLIC, as
// Identity.EK gives it, from a source other than the way to this TPM, such as
// the enrollment or the maker's certificate. Opening fails with ErrOtherEK if it
// shows another one, and sessions are salted to this one alone: so nobody on the
// way to the TPM can pass for it. Without the option the TPM is taken at its
// word, which is good against whoever only listens.
//
// With a password of the endorsement hierarchy it works only while the EK is
// kept in the TPM: to make it the password would have to be proved to a key that
// nobody knows.
func WithTrustedEK(public []byte) Option {
	return func(o *options) { o.trusted = bytes.Clone(public) }
}

// WithProgress has the steps of the Identity reported to p.
func WithProgress(p Progress) Option { return func(o *options) { o.progress = p } }

// Open opens the TPM that spec names, as OpenTPM does, and its keys, as
// OpenTransport does. Close closes both.
func Open(spec string, opts ...Option) (*Identity, error) {
	tpm, err := OpenTPM(spec)
	if err != nil {
		return nil, fmt.Errorf("open TPM %s: %w", spec, err)
	}
	id, err := OpenTransport(tpm, opts...)
	if err != nil {
		return nil, errors.Join(err, tpm.Close())
	}
	id.closer = tpm
	return id, nil
}

// OpenTransport reads EK and SRK at HandleEK and HandleSRK. A key that is not
// there is created, with the template that the Node, C and Java SDKs use, and
// made persistent. The caller closes tpm after the Identity.
//
// A key that is there is taken as it is, since others may have enrolled the
// device by it. Errors of the TPM are *TPMError.
func OpenTransport(tpm transport.TPM, opts ...Option) (*Identity, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.auth.valid(); err != nil {
		return nil, err
	}
	o.auth = o.auth.clone()
	steady := steadied(tpm)
	id := &Identity{tpm: steady, guard: &guard{tpm: steady, strict: len(o.trusted) > 0, exposed: o.exposed}, auth: o.auth,
		progress: o.progress, keys: make(map[*Key]struct{})}
	err := id.openKeys(o)
	if err = errors.Join(err, id.guard.end()); err != nil {
		id.auth.Wipe()
		return nil, errors.Join(err, id.flushPrimaries())
	}
	return id, nil
}

func (id *Identity) openKeys(o options) (err error) {
	if id.ek, err = openPrimary(id.guard, ekPlace, o); err != nil {
		return err
	}
	if len(o.trusted) > 0 && !bytes.Equal(o.trusted, id.ek.public) {
		return ErrOtherEK
	}
	// The EK first: what is salted to it only the device that the service knows
	// can read.
	id.guard.salts = []*primary{id.ek}
	err = id.withRoom(nil, func() (err error) {
		id.srk, err = openPrimary(id.guard, srkPlace, o)
		return err
	})
	if err == nil {
		id.guard.salts = append(id.guard.salts, id.srk)
	}
	return err
}

func (id *Identity) flushPrimaries() error {
	var errs []error
	for _, p := range []*primary{id.srk, id.ek} {
		if p != nil {
			errs = append(errs, p.flush(id.tpm))
		}
	}
	return errors.Join(errs...)
}

// EK is the public area of the endorsement key: TPM2B_PUBLIC with its size
// prefix. In base64 it is an enrollment's endorsementKey.
func (id *Identity) EK() []byte { return append([]byte(nil), id.ek.public...) }

// SRK is the public area of the storage root key, likewise.
func (id *Identity) SRK() []byte { return append([]byte(nil), id.srk.public...) }

// Algorithm is the kind of the EK. It need not be one that this package creates.
func (id *Identity) Algorithm() Algorithm { return id.ek.algorithm }

// Hierarchy is where the EK lives: "endorsement", "owner", "platform" or
// "unknown". Only an EK of the endorsement hierarchy outlives TPM2_Clear.
func (id *Identity) Hierarchy() string { return id.ek.hierarchy }

// RegistrationID is the id under which this TPM registers if no other was
// configured: 52 characters that follow from the EK.
func (id *Identity) RegistrationID() string { return attest.RegistrationID(id.ek.public) }

// Close flushes what this Identity still has in the TPM: keys that were not
// closed and transient EK and SRK. It closes the TPM if Open opened it.
func (id *Identity) Close() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.closed {
		return nil
	}
	id.closed = true
	var errs []error
	for key := range id.keys {
		errs = append(errs, key.flushLocked())
	}
	errs = append(errs, id.guard.end(), id.flushPrimaries())
	if id.closer != nil {
		errs = append(errs, id.closer.Close())
	}
	id.auth.Wipe()
	return errors.Join(errs...)
}

// flush removes a key or session. It is often what clears up after a failure, so
// it is tried twice: whatever the second try does not find, the first removed.
func flush(tpm transport.TPM, handle tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(tpm)
	if err == nil || errors.Is(err, ErrStalled) {
		return tpmError("TPM2_FlushContext", err)
	}
	_, err = tpm2.FlushContext{FlushHandle: handle}.Execute(tpm)
	if isGone(err) {
		return nil
	}
	return tpmError("TPM2_FlushContext", err)
}

// isGone tells whether the TPM does not know the handle to be flushed.
func isGone(err error) bool {
	return errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, tpm2.TPMRCValue)
}
