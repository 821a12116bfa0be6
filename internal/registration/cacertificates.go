package registration

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"time"

	"latchkey.example/latchkey/dps"
)

// A group may name a CA by the name of a CA certificate of its scope, once whoever put it there has shown that he holds its private key: he
// signs a certificate whose common name is the verification code. So an operator who mistakes somebody else's CA for his own lets
// nobody in. The code is derived from the scope's root and the certificate, not stored.

// MaxCACertificates bounds the CA certificates of a scope.
const MaxCACertificates = 1_000

// CA is a CA certificate as operators see it.
type CA struct {
	Name, ETag string
	Info       dps.CertificateInfo
	DER        []byte
	Verified   bool
	Code       string // the verification code; empty once it is verified
	Created    time.Time
	Updated    time.Time
}

func (c *Core) showCA(s *scope, row CACertificate) (CA, error) {
	certificate, err := x509.ParseCertificate(row.DER)
	if err != nil {
		return CA{}, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	ca := CA{Name: row.Name, ETag: dps.ETag(int64(row.Revision)), Info: dps.InfoOf(certificate), DER: row.DER, Verified: row.Verified, Created: row.Created, Updated: row.Updated}
	if !row.Verified {
		ca.Code = s.verificationCode(row)
	}
	return ca, nil
}

// verificationCode is 128 bits that nobody can know before the service has shown them.
func (s *scope) verificationCode(row CACertificate) string {
	key, err := hkdf.Key(sha256.New, s.root, nil, "latchkey ca verification v1", 32)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(dps.FoldID(row.Name) + "\x00"))
	mac.Write(row.DER)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// PutCA adds a CA certificate, not yet verified. One that is there stays: it could be in use.
func (c *Core) PutCA(ctx context.Context, by Caller, name string, der []byte) (CA, error) {
	s, _ := c.scope(by.Scope)
	if err := judgeCA(der); err != nil {
		return CA{}, c.fault(s, dps.CodeBadRequest, ReasonBadCA, "certificate: "+err.Error(), nil)
	}
	list, err := c.caRows(ctx, s)
	switch {
	case err != nil:
		return CA{}, err
	case len(list) >= MaxCACertificates:
		return CA{}, c.fault(s, dps.CodeBadRequest, ReasonBadCA, "The scope has as many CA certificates as it may have. Remove one that is not used.", nil)
	}
	now := c.now()
	row := CACertificate{Name: name, DER: der, Created: now, Updated: now}
	stored, verdict, err := c.store.PutCACertificate(ctx, s.ID, row, nil, c.callerAudit(by, ActionCAPut, dps.FoldID(name), ReasonChanged, changed(nil, tellCA(row))))
	switch {
	case err != nil:
		return CA{}, c.storeFault(s, "writing a CA certificate", err)
	case verdict == Exists:
		return CA{}, c.fault(s, dps.CodeCAExists, ReasonCAExists, "", nil)
	}
	return c.showCA(s, stored)
}

// VerifyCA takes the proof of possession: a certificate that the CA has signed, whose common name is the verification code.
func (c *Core) VerifyCA(ctx context.Context, by Caller, name string, proof []byte) (CA, error) {
	s, _ := c.scope(by.Scope)
	for range redeemTries {
		row, err := c.caNamed(ctx, s, name)
		if err != nil {
			return CA{}, err
		}
		if row.Verified {
			return c.showCA(s, row)
		}
		if err := judgeProof(row.DER, proof, s.verificationCode(row)); err != nil {
			return CA{}, c.fault(s, dps.CodeBadRequest, ReasonBadCA, "certificate: "+err.Error(), nil)
		}
		verified := row
		verified.Verified, verified.Updated = true, c.now()
		stored, verdict, err := c.store.PutCACertificate(ctx, s.ID, verified, &row.Revision, c.callerAudit(by, ActionCAVerify, dps.FoldID(name), ReasonChanged, changed(tellCA(row), tellCA(verified))))
		switch {
		case err != nil:
			return CA{}, c.storeFault(s, "writing a CA certificate", err)
		case verdict == Applied:
			return c.showCA(s, stored)
		}
	}
	return CA{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

func judgeProof(caDER, der []byte, code string) error {
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return errors.New("the CA certificate cannot be read any more; remove it and add it again")
	}
	proof, err := x509.ParseCertificate(der)
	switch {
	case err != nil:
		return errors.New("is not an X.509 certificate")
	case bytes.Equal(der, caDER):
		return errors.New("is the CA certificate itself; send one that its key has signed")
	case subtle.ConstantTimeCompare([]byte(proof.Subject.CommonName), []byte(code)) != 1:
		return errors.New("must have the verification code as its common name: " + code)
	case !signed(ca, proof):
		return errors.New("is not signed by the CA's key")
	}
	return nil
}

// CAs lists the CA certificates of the caller's scope, in order of their folded names.
func (c *Core) CAs(ctx context.Context, by Caller) ([]CA, error) {
	s, _ := c.scope(by.Scope)
	rows, err := c.caRows(ctx, s)
	if err != nil {
		return nil, err
	}
	list := make([]CA, 0, len(rows))
	for _, row := range rows {
		ca, err := c.showCA(s, row)
		if err != nil {
			return nil, err
		}
		list = append(list, ca)
	}
	return list, nil
}

// CA reads one CA certificate.
func (c *Core) CA(ctx context.Context, by Caller, name string) (CA, error) {
	s, _ := c.scope(by.Scope)
	row, err := c.caNamed(ctx, s, name)
	if err != nil {
		return CA{}, err
	}
	return c.showCA(s, row)
}

func (c *Core) caRows(ctx context.Context, s *scope) ([]CACertificate, error) {
	rows, err := c.store.CACertificates(ctx, s.ID, "", MaxCACertificates)
	if err != nil {
		return nil, c.storeFault(s, "reading the CA certificates", err)
	}
	return rows, nil
}

func (c *Core) caNamed(ctx context.Context, s *scope, name string) (CACertificate, error) {
	rows, err := c.caRows(ctx, s)
	if err != nil {
		return CACertificate{}, err
	}
	for _, row := range rows {
		if dps.FoldID(row.Name) == dps.FoldID(name) {
			return row, nil
		}
	}
	return CACertificate{}, c.fault(s, dps.CodeCANotFound, ReasonCAMissing, "", nil)
}

// DeleteCA removes a CA certificate to which no group refers. A group that comes to refer to it at the same moment is left with a name that lets
// nobody in.
func (c *Core) DeleteCA(ctx context.Context, by Caller, name string) error {
	s, _ := c.scope(by.Scope)
	groups, err := c.currentGroups(ctx, s)
	if err != nil {
		return err
	}
	for _, group := range groups.byID {
		if group.refersTo(name) {
			return c.fault(s, dps.CodeCAInUse, ReasonCAInUse, "", nil)
		}
	}
	return c.remove(ctx, by, name, "", removal{
		read: func(ctx context.Context, _, name string) (uint64, string, error) {
			row, err := c.caNamed(ctx, s, name)
			var fault *Fault
			if errors.As(err, &fault) && fault.Reason == ReasonCAMissing {
				return 0, "", nil
			}
			return row.Revision, changed(tellCA(row), nil), err
		},
		write: func(ctx context.Context, scope, id string, expect *uint64, audit Audit, _ HubOrder) (Verdict, error) {
			return c.store.DeleteCACertificate(ctx, scope, id, expect, audit)
		}, action: ActionCADelete, missing: dps.CodeCANotFound, reason: ReasonCAMissing,
	})
}

func (g *knownGroup) refersTo(name string) bool {
	for _, ref := range g.caReferences {
		if dps.FoldID(ref) == dps.FoldID(name) {
			return true
		}
	}
	return false
}
