package registration

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/dps"
)

// Bounds of what a stranger's certificates can make the service do.
const (
	maxChain   = 8    // certificates that are looked at, the device's own included
	maxChecks  = 16   // signatures that are checked to find the CA of one request
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
	case dps.FoldID(leaf.Subject.CommonName) != dps.FoldID(r.ID), commonNames(leaf) != 1:
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
	if o := device.Operation; o != nil && o.Status == Assigning && o.provedBy(p.digest) && o.answeredAt(r.Arrived) {
		p.repeated, err = c.unlessFallen(ctx, s, device, o)
	}
	return p, err
}

// commonNames counts them: of several, the CA may have judged another than the one taken here.
func commonNames(certificate *x509.Certificate) int {
	count := 0
	for _, attribute := range certificate.Subject.Names {
		if attribute.Type.Equal(oidCommonName) {
			count++
		}
	}
	return count
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3} // X.520, 6.2.2

// provedBy says whether the operation's proof was this client certificate.
func (o *Operation) provedBy(certificate [32]byte) bool {
	return o.Mechanism == X509 && subtle.ConstantTimeCompare(certificate[:], o.TokenDigest[:]) == 1
}

// anchor is a CA certificate of a group.
type anchor struct {
	certificate *x509.Certificate
	group       *knownGroup
}

// admit finds the group of the nearest CA above the device's certificate, and judges the whole path to it. The nearest CAs that have signed
// decide, one if its key was certified once: if no path to them is good, or the group is disabled, no CA further up lets the device in.
func (t *groupTable) admit(chain []*x509.Certificate, now time.Time) (*knownGroup, error) {
	if len(chain) > maxChain {
		return nil, fmt.Errorf("the device sent %d certificates, more than %d", len(chain), maxChain)
	}
	left := checks(maxChecks)
	path := x509.NewCertPool()
	for at, steps := 0, 0; at >= 0 && steps < maxChain; steps++ {
		current := chain[at]
		var bad error
		for _, a := range t.anchors[string(current.RawIssuer)] {
			if !left.signed(a.certificate, current) {
				continue
			}
			roots := x509.NewCertPool()
			roots.AddCert(a.certificate)
			_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: path, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if err == nil {
				return a.group, nil
			}
			bad = err // the same key may have been certified again, after this certificate of it expired
		}
		if bad != nil {
			return nil, bad
		}
		if at = left.signerOf(chain, at); at > 0 {
			path.AddCert(chain[at])
		}
	}
	return nil, fmt.Errorf("no group has a CA of this certificate, or it was not found within %d signatures", maxChecks)
}

// checks is how many signatures may still be checked for one request. Names cost a stranger nothing: he may claim any CA, and name all his
// certificates alike.
type checks int

func (left *checks) signed(parent, child *x509.Certificate) bool {
	if *left == 0 {
		return false
	}
	*left--
	return signed(parent, child)
}

// signerOf finds the place in the chain of the certificate that has signed the one at a place, -1 if it is not there. It looks first where
// TLS has it (RFC 8446, 4.4.2): right behind.
func (left *checks) signerOf(chain []*x509.Certificate, at int) int {
	for step := 1; step < len(chain); step++ {
		place := (at + step) % len(chain)
		if parent, child := chain[place], chain[at]; string(parent.RawSubject) == string(child.RawIssuer) && left.signed(parent, child) {
			return place
		}
	}
	return -1
}

// signed checks one signature, with a key whose size bounds the work.
func signed(parent, child *x509.Certificate) bool {
	if key, ok := parent.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
		return false
	}
	return child.CheckSignatureFrom(parent) == nil
}
