package registration

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"

	"latchkey.example/latchkey/dps"
)

// A whole export is signed with a key of its scope, which is derived from the scope's root like others and needs no place of its own. So all
// nodes sign with the same key, and it lives as long as the scope.

// Exported is one object of a whole export: one of the members is there.
type Exported struct {
	CA           *CA
	Group        *dps.EnrollmentGroup
	Enrollment   *dps.IndividualEnrollment // with its registration state
	Registration *dps.RegistrationState    // that of a group's device names the group
}

// ExportHeader is how an export of the caller's scope begins, made now.
func (c *Core) ExportHeader(by Caller, secrets bool) (dps.ExportHeader, error) {
	s, err := c.exportScope(by)
	if err != nil {
		return dps.ExportHeader{}, err
	}
	public, _ := s.exportKey().Public().(ed25519.PublicKey) // it is always one
	return dps.ExportHeader{LatchkeyExport: dps.ExportFormat, IDScope: s.ID, Hosts: s.Hosts, Created: dps.FormatTime(c.now()), Secrets: secrets, PublicKey: public}, nil
}

// SignExport signs what an export holds, by the digest of it. A scope that was deleted meanwhile signs nothing: what it held is being removed, so
// the export may lack some of it.
func (c *Core) SignExport(by Caller, digest [sha256.Size]byte) ([]byte, error) {
	s, err := c.exportScope(by)
	if err != nil {
		return nil, err
	}
	return ed25519.Sign(s.exportKey(), dps.ExportMessage(digest)), nil
}

func (c *Core) exportScope(by Caller) (*scope, error) {
	s, there := c.scope(by.Scope)
	if !there {
		return nil, c.fault(s, dps.CodeUnauthorized, ReasonAdminToken, "", nil)
	}
	return s, nil
}

func (s *scope) exportKey() ed25519.PrivateKey {
	seed, err := hkdf.Key(sha256.New, s.root, nil, "latchkey export signing v1", ed25519.SeedSize)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	return ed25519.NewKeyFromSeed(seed)
}

// ExportAll gives all that operators see of the caller's scope: CA certificates, groups, enrollments, registrations, each kind in order of the
// folded ids. With secrets the symmetric keys of groups and enrollments are in it, and the audit tells so before the first is given; the
// caller must have been let in with EnrollmentWrite. Pages of exportPage are in memory at once. It is no snapshot: what changes
// meanwhile is in it as it was or as it is, and nothing is in it twice. It ends with the first error of each.
func (c *Core) ExportAll(ctx context.Context, by Caller, secrets bool, each func(Exported) error) error {
	s, err := c.exportScope(by)
	if err != nil {
		return err
	}
	if secrets {
		if err := c.store.AppendAudit(ctx, s.ID, c.callerAudit(by, ActionExportReveal, s.ID, ReasonManaged, "")); err != nil {
			return c.storeFault(s, "writing that keys are exported", err)
		}
	}
	x := wholeExport{c, s, secrets, each}
	for _, part := range []func(context.Context) error{x.cas, x.groups, x.enrollments, x.registrations} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wholeExport is one ExportAll under way.
type wholeExport struct {
	*Core
	s       *scope
	secrets bool
	each    func(Exported) error
}

func (x wholeExport) cas(ctx context.Context) error {
	return exportRows(ctx, x.Core, x.s, x.store.CACertificates, func(row CACertificate) string { return row.Name }, func(row CACertificate) error {
		ca, err := x.showCA(x.s, row)
		if err != nil {
			return err
		}
		return x.each(Exported{CA: &ca})
	})
}

func (x wholeExport) groups(ctx context.Context) error {
	return exportRows(ctx, x.Core, x.s, x.store.Groups, func(row Group) string { return row.ID }, func(row Group) error {
		wire, err := x.wireGroup(x.s, row)
		if err == nil {
			wire.Attestation.SymmetricKey, err = x.keys(row.Mechanism, ContextGroupKey, row.ID, row.Keys)
		}
		if err != nil {
			return err
		}
		return x.each(Exported{Group: &wire})
	})
}

func (x wholeExport) enrollments(ctx context.Context) error {
	return exportRows(ctx, x.Core, x.s, x.store.Enrollments, func(l Listed) string { return l.Enrollment.ID }, func(l Listed) error {
		wire, err := x.wireEnrollment(x.s, l.Enrollment, l.Registration, true)
		if err == nil {
			wire.Attestation.SymmetricKey, err = x.keys(l.Enrollment.Mechanism, ContextEnrollmentKey, l.Enrollment.ID, l.Enrollment.Keys)
		}
		if err != nil {
			return err
		}
		return x.each(Exported{Enrollment: &wire})
	})
}

// keys opens the symmetric keys of an entry if they are asked for.
func (x wholeExport) keys(m Mechanism, context keyContext, id string, sealed SealedKeys) (*dps.SymmetricKeys, error) {
	if !x.secrets || m != SymmetricKey {
		return nil, nil
	}
	keys, err := x.openKeys(context, x.s.ID, dps.FoldID(id), sealed)
	if err != nil {
		return nil, x.fault(x.s, dps.CodeInternal, ReasonInternal, "", err)
	}
	return keys.wire(), nil
}

func (x wholeExport) registrations(ctx context.Context) error {
	list := func(ctx context.Context, scope, after string, limit int) ([]Registration, error) {
		return x.store.Registrations(ctx, scope, "", after, limit)
	}
	return exportRows(ctx, x.Core, x.s, list, func(row Registration) string { return row.ID }, func(row Registration) error {
		return x.each(Exported{Registration: exportedState(row)})
	})
}

// exportedState is a state with the group that let the device in, where the device is told it.
func exportedState(row Registration) *dps.RegistrationState {
	state := stateOf(row.ID, &row)
	switch {
	case row.Group == "":
	case row.Mechanism == SymmetricKey:
		state.SymmetricKey = &dps.SymmetricKeyResult{EnrollmentGroupID: row.Group}
	default:
		state.X509 = &dps.X509Result{EnrollmentGroupID: row.Group}
	}
	return state
}
