package daemon

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"latchkey.example/latchkey/internal/authority"
)

// issuer makes certificates for scopes with the private CA beside the configured certificate, where that does not cover their names.
type issuer struct {
	cert *certificate
	log  *slog.Logger
}

func (i issuer) folder() string { return filepath.Dir(i.cert.path.Load().(string)) }

func (i issuer) covered(names []string) bool {
	leaf := i.cert.current.Load().Leaf
	return covers(leaf, names)
}

func covers(leaf *x509.Certificate, names []string) bool {
	for _, name := range names {
		if leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

// Check implements registration.Issuer.
func (i issuer) Check(names []string) error {
	for _, name := range names {
		if err := authority.CheckName(name); err != nil {
			return err
		}
	}
	if i.covered(names) {
		return nil
	}
	err := authority.CheckIssue(i.folder(), names)
	if inside := errors.Unwrap(err); inside != nil { // whoever asked is told only that there is no CA to use
		i.log.Warn("no certificate can be issued for a scope: the private CA cannot be used", "err", inside)
	}
	return err
}

// Issue implements registration.Issuer.
func (i issuer) Issue(names []string) (chain, key []byte, err error) {
	if i.covered(names) {
		return nil, nil, nil
	}
	return authority.IssuePair(i.folder(), names, time.Now())
}
