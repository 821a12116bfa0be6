package registration

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/dps"
)

// Bounds of what a stranger's certificates can make the service do.
const (
	maxChain   = 8    // certificates that are looked at, the device's own included
	maxRSABits = 8192 // of a key that a signature is checked with
)

// verifyCertificate judges the client certificate whose key the TLS handshake has proved. The device's own entry decides, else the group of
// the nearest CA above the certificate. Its common name is the registration id. Whatever fails, the answer is the same.
func (c *Core) verifyCertificate(ctx context.Context, s *scope, r Request) (proof, error) {
	device, groups, err := c.read(ctx, s, r.ID)
	if err != nil {
		return proof{}, err
	}
	leaf := r.Certificates[0]
	p := proof{device: device, mechanism: X509, digest: sha256.Sum256(leaf.Raw), generation: device.Generation, groupsRevision: groups.revision}
	p.credential = Credential{Certificate: p.digest[:]}
	group, inside := groups.admit(r.Certificates, r.Arrived) // also for a device with an entry of its own: the work must not tell
	reason := ReasonNone
	switch _, known := c.scope(r.Scope); {
	case !known:
		reason = ReasonUnknownScope
	case device.Enrollment != nil && device.Enrollment.Mechanism != X509:
		reason = ReasonOtherMechanism
	case device.Enrollment != nil && !slices.Contains(device.Enrollment.Certificates, p.digest):
		reason = ReasonOtherCertificate
	case device.Enrollment == nil && group == nil:
		reason = ReasonUnknownCertificate
	case dps.FoldID(leaf.Subject.CommonName) != dps.FoldID(r.ID):
		reason = ReasonCertificateName
	case r.Arrived.Before(leaf.NotBefore.Add(-tokenLeeway)) || r.Arrived.After(leaf.NotAfter):
		reason = ReasonCertificateTime
	}
	if reason != ReasonNone {
		return proof{}, c.fault(s, dps.CodeUnauthorized, reason, "", inside)
	}
	if p.enrollment = device.Enrollment; p.enrollment == nil {
		p.group = group
	}
	if o := device.Operation; o != nil && o.Status == Assigning && o.provedBy(p.digest) && r.Arrived.Sub(o.Created) <= operationWindow {
		p.repeated = o
	}
	return p, nil
}

// provedBy says whether the operation's proof was this client certificate.
func (o *Operation) provedBy(certificate [32]byte) bool {
	return o.Mechanism == X509 && subtle.ConstantTimeCompare(certificate[:], o.TokenDigest[:]) == 1
}

// anchor is a CA certificate of a group.
type anchor struct {
	certificate *x509.Certificate
	group       *knownGroup
}

// admit finds the group of the nearest CA above the device's certificate, and judges the whole path to it. The first CA that has signed
// decides: if the path to it is bad, or its group is disabled, no CA further up lets the device in.
func (t *groupTable) admit(chain []*x509.Certificate, at time.Time) (*knownGroup, error) {
	if len(chain) > maxChain {
		return nil, fmt.Errorf("the device sent %d certificates, more than %d", len(chain), maxChain)
	}
	path := x509.NewCertPool()
	for current, steps := chain[0], 0; current != nil && steps < maxChain; steps++ {
		for _, a := range t.anchors[string(current.RawIssuer)] {
			if !signed(a.certificate, current) {
				continue
			}
			roots := x509.NewCertPool()
			roots.AddCert(a.certificate)
			_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: path, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if err != nil {
				return nil, err
			}
			return a.group, nil
		}
		next := signerOf(current, chain[1:])
		if next != nil {
			path.AddCert(next)
		}
		current = next
	}
	return nil, fmt.Errorf("no group has a CA of this certificate")
}

// signerOf finds the certificate among those sent that has signed another.
func signerOf(child *x509.Certificate, sent []*x509.Certificate) *x509.Certificate {
	for _, parent := range sent {
		if parent != child && string(parent.RawSubject) == string(child.RawIssuer) && signed(parent, child) {
			return parent
		}
	}
	return nil
}

// signed checks one signature, with a key whose size bounds the work.
func signed(parent, child *x509.Certificate) bool {
	if key, ok := parent.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
		return false
	}
	return child.CheckSignatureFrom(parent) == nil
}
