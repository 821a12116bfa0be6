package device

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// Registering is the key that an Identity opened with the same options takes as
// its EK: one that is kept and fits, or else the one that an Identity makes. It
// is nil if that key is not among Keys.
func (e *EKs) Registering(opts ...Option) *EK {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if i := slices.IndexFunc(e.Keys, func(k EK) bool {
		return !o.transient && k.At(uint32(HandleEK)) && k.Unfit == nil && (o.algorithm == "" || o.algorithm == k.Algorithm)
	}); i >= 0 {
		return &e.Keys[i]
	}
	if o.algorithm == "" {
		o.algorithm = RSA2048
	}
	own := map[Algorithm]string{RSA2048: "L-1, unique empty", ECCP256: "L-2, unique empty", RSA3072: "H-6"}[o.algorithm]
	if i := slices.IndexFunc(e.Keys, func(k EK) bool { return k.Hierarchy == "endorsement" && slices.Contains(k.Templates, own) }); i >= 0 {
		return &e.Keys[i]
	}
	return nil
}

// Certificate reads the TPM's EK certificates and gives the one that is for this
// Identity's EK, or nil. The other two results tell what else was there: all
// certificates, and what could not be read.
func (id *Identity) Certificate() (own *EKCertificate, all []*EKCertificate, unread []Unread, err error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.closed {
		return nil, nil, nil, ErrClosed
	}
	r, err := id.ekReader()
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, id.guard.end()) }()
	r.found.Keys = []EK{id.ek.ek()}
	if err := r.readCertificates(r.nvReader()); err != nil {
		return nil, nil, nil, err
	}
	r.match()
	return r.found.Keys[0].Certificate, r.found.Certificates, r.found.Unread, nil
}

// OtherEKs tells how many other EKs the chip can show at the most, without
// making one. ReadEKs finds them out.
func (id *Identity) OtherEKs() (n int, err error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.closed {
		return 0, ErrClosed
	}
	r, err := id.ekReader()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, id.guard.end()) }()
	if err := r.readPersistent(); err != nil {
		return 0, err
	}
	for _, key := range r.found.Keys {
		if !bytes.Equal(key.Public, id.ek.public) {
			n++
		}
	}
	own, err := r.readTemplates(r.nvReader())
	if err != nil {
		return 0, err
	}
	for _, t := range append(knownTemplates(), own...) {
		switch supported, err := r.supports(&t.public); {
		case err != nil:
			return 0, err
		case supported && !id.ek.madeBy(t):
			n++
		}
	}
	return n, nil
}

// madeBy tells whether a key that was created for this Identity is the one of a template.
func (p *primary) madeBy(t Template) bool {
	return p.transient && t.hierarchy == tpm2.TPMRHEndorsement && bytes.Equal(tpm2.Marshal(t.public), tpm2.Marshal(ekTemplate(p.algorithm)))
}

func (id *Identity) ekReader() (*ekReader, error) {
	info, err := ReadInfo(id.tpm)
	if err != nil {
		return nil, err
	}
	return &ekReader{ctx: context.Background(), tpm: id.tpm, guard: id.guard, info: info,
		o: ekOptions{auth: id.auth, progress: id.progress}, closed: make(map[tpm2.TPMHandle]error)}, nil
}
