package device

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"latchkey.example/latchkey/attest"
)

// NV indices of TCG EK Credential Profile 2.4: 2.2.1.4 (low range), 2.2.1.5
// (high range, where each certificate's template follows it and there are no
// nonces) and 2.2.1.5.2 (chain).
const (
	lowCertificateRSA, lowNonceRSA, lowTemplateRSA = 0x01c00002, 0x01c00003, 0x01c00004
	lowCertificateECC, lowNonceECC, lowTemplateECC = 0x01c0000a, 0x01c0000b, 0x01c0000c

	firstHigh, lastHigh   = 0x01c00012, 0x01c000ff
	firstChain, lastChain = 0x01c00100, 0x01c001ff

	// What one chip may have us read, at maxNVContent for each.
	mostIndices  = 48
	mostOfChain  = 64 << 10
	maxTemplates = 16
)

func holdsCertificate(index uint32) bool {
	return index == lowCertificateRSA || index == lowCertificateECC || index >= firstHigh && index <= lastHigh && index%2 == 0
}

func holdsTemplate(index uint32) bool {
	return index == lowTemplateRSA || index == lowTemplateECC || index >= firstHigh && index <= lastHigh && index%2 == 1
}

// nonceFor is the index of the nonce that goes with a template; 0 if none does.
func nonceFor(template uint32) uint32 {
	switch template {
	case lowTemplateRSA:
		return lowNonceRSA
	case lowTemplateECC:
		return lowNonceECC
	}
	return 0
}

func (r *ekReader) nvReader() *nvReader {
	nv := &nvReader{tpm: r.tpm, piece: pieceSize(r.tpm)}
	if !r.info.OwnerAuthSet || len(r.o.auth.Owner) > 0 {
		nv.owner = func() tpm2.Session { return r.guard.prove(r.o.auth.Owner) }
	}
	return nv
}

// indicesBetween lists defined NV indices, as many as we are willing to read.
func (r *ekReader) indicesBetween(first, last uint32) ([]tpm2.TPMHandle, error) {
	found, err := handlesBetween(r.tpm, first, last)
	if err != nil {
		return nil, err
	}
	if len(found) > mostIndices {
		r.unread(fmt.Sprintf("NV indices from 0x%08x on", uint32(found[mostIndices])), errors.New("the TPM has more of them than any EK needs"))
		found = found[:mostIndices]
	}
	return found, nil
}

// readTemplates gives the templates in NV. A maker puts one there for an EK that
// no default template makes.
func (r *ekReader) readTemplates(nv *nvReader) (found []Template, err error) {
	indices, err := r.indicesBetween(lowCertificateRSA, lastHigh)
	if err != nil {
		return nil, err
	}
	for _, handle := range indices {
		index := uint32(handle)
		switch {
		case holdsTemplate(index):
			if t, err := r.templateAt(nv, index, slices.Contains(indices, tpm2.TPMHandle(nonceFor(index)))); err == nil {
				found = append(found, t)
			} else if lost(err) {
				return nil, err
			} else {
				r.unread(fmt.Sprintf("EK template at NV index 0x%08x", index), err)
			}
		case index == lowNonceRSA && !slices.Contains(indices, tpm2.TPMHandle(lowTemplateRSA)),
			index == lowNonceECC && !slices.Contains(indices, tpm2.TPMHandle(lowTemplateECC)):
			r.unread(fmt.Sprintf("EK nonce at NV index 0x%08x", index), errLoneNonce)
		}
	}
	return found[:min(len(found), maxTemplates)], nil
}

var (
	errLoneNonce    = errors.New("there is a nonce but no template that it belongs to, which means nothing") // TCG EK Credential Profile 2.5, 2.2.1.6
	errBadTemplate  = errors.New("it is no template of a key")
	errLongTemplate = fmt.Errorf("%w: it is longer than any", errBadTemplate)
)

// templateAt reads a template, a TPMT_PUBLIC, and puts its nonce in.
func (r *ekReader) templateAt(nv *nvReader, index uint32, hasNonce bool) (t Template, err error) {
	content, err := nv.read(tpm2.TPMHandle(index))
	if err != nil {
		return t, err
	}
	t = Template{Name: fmt.Sprintf("NV 0x%08x", index), SDKs: []string{sdkTools + " (createek --template)"}, hierarchy: tpm2.TPMRHEndorsement}
	if t.public, err = parseTemplate(content); err != nil {
		return t, err
	}
	t.slow = isSlow(&t.public)
	if !hasNonce {
		return t, nil
	}
	nonce, err := nv.read(tpm2.TPMHandle(nonceFor(index)))
	if err != nil {
		return t, fmt.Errorf("its nonce: %w", err)
	}
	t.Name += fmt.Sprintf(" with the nonce at 0x%08x", nonceFor(index))
	t.public, err = withNonce(t.public, nonce)
	return t, err
}

// parseTemplate reads a TPMT_PUBLIC, which may be padded to the index's size.
func parseTemplate(content []byte) (tpm2.TPMTPublic, error) {
	const longest = attest.MaxPublicSize
	if len(content) > 2*longest {
		return tpm2.TPMTPublic{}, errLongTemplate
	}
	t, err := tpm2.Unmarshal[tpm2.TPMTPublic](content)
	if err != nil {
		return tpm2.TPMTPublic{}, fmt.Errorf("%w: %w", errBadTemplate, err)
	}
	if t.Type != tpm2.TPMAlgRSA && t.Type != tpm2.TPMAlgECC {
		return tpm2.TPMTPublic{}, fmt.Errorf("%w: it is of type 0x%04x, neither RSA nor ECC", errBadTemplate, uint16(t.Type))
	}
	return *t, nil
}

// isSlow: chips search for large primes for minutes.
func isSlow(t *tpm2.TPMTPublic) bool {
	p, err := t.Parameters.RSADetail()
	return err == nil && p.KeyBits > 2048
}

// readCertificates reads all EK certificates and the chain.
func (r *ekReader) readCertificates(nv *nvReader) error {
	indices, err := r.indicesBetween(lowCertificateRSA, lastHigh)
	if err != nil {
		return err
	}
	for _, handle := range indices {
		if !holdsCertificate(uint32(handle)) {
			continue
		}
		content, err := nv.read(handle)
		if err != nil && lost(err) {
			return err
		}
		var certificate *EKCertificate
		if err == nil {
			certificate, err = readCertificate(uint32(handle), content)
		}
		if err != nil {
			r.unread(fmt.Sprintf("EK certificate at NV index 0x%08x", uint32(handle)), err)
			continue
		}
		r.found.Certificates = append(r.found.Certificates, certificate)
	}
	return r.readChain(nv)
}

// readChain reads the chain: certificates one after another, from the first
// index on and over as many as it takes.
func (r *ekReader) readChain(nv *nvReader) error {
	indices, err := r.indicesBetween(firstChain, lastChain)
	if err != nil {
		return err
	}
	var content []byte
	for i, handle := range indices {
		if uint32(handle) != firstChain+uint32(i) || len(content) > mostOfChain {
			break // what follows a gap is no part of it
		}
		piece, err := nv.read(handle)
		if err != nil && lost(err) {
			return err
		}
		if err != nil {
			r.unread(fmt.Sprintf("chain of EK certificates at NV index 0x%08x", uint32(handle)), err)
			break
		}
		content = append(content, piece...)
	}
	if len(content) == 0 {
		return nil
	}
	r.found.Chain, err = readChain(firstChain, content)
	if err != nil {
		r.unread(fmt.Sprintf("rest of the chain of EK certificates from NV index 0x%08x on", uint32(firstChain)), err)
	}
	return nil
}

// match gives each key the certificate that is for it, and each certificate its
// issuers.
func (r *ekReader) match() {
	for _, certificate := range r.found.Certificates {
		certificate.climb(r.found.Chain)
		for i := range r.found.Keys {
			if key := &r.found.Keys[i]; certificate.vouchesFor(key.id) {
				certificate.Matches = true
				if key.Certificate == nil {
					key.Certificate = certificate
				}
			}
		}
	}
}
