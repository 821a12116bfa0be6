package registration

import (
	"context"
	"crypto/x509"
	"fmt"

	"latchkey.example/latchkey/dps"
)

// groupTable is a copy of a scope's groups as devices need them: keys opened, certificates parsed. It is made anew when the revision that a
// device's snapshot carries says that it is old, so it is never older than the rows a decision is taken on, on any node.
type groupTable struct {
	revision uint64
	byID     map[string]*knownGroup // folded
	deriving []*knownGroup          // with symmetric keys, in order of their ids
	anchors  map[string][]anchor    // by the subject of the CA, as it stands in the certificate; a CA of several groups is the first one's
}

// knownGroup is what devices need of a group, with its secrets opened. Its document, which may be long, is not kept.
type knownGroup struct {
	ID           string
	Mechanism    Mechanism
	Disabled     bool
	Revision     uint64
	keys         symmetricKeys // with SymmetricKey
	caReferences []string      // as given
	steering     steering
}

// groupPage is how many groups are read at once.
const groupPage = 500

// groups gives the table of a scope that is at least as new as the revision.
func (c *Core) groups(ctx context.Context, s *scope, revision uint64) (*groupTable, error) {
	if t := s.groups.Load(); t != nil && t.revision >= revision {
		return t, nil
	}
	if revision == 0 {
		return new(groupTable), nil
	}
	select { // who waits here holds one of the places of all scopes
	case s.loading <- struct{}{}:
		defer func() { <-s.loading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if t := s.groups.Load(); t != nil && t.revision >= revision {
		return t, nil
	}
	t, err := c.loadGroups(ctx, s.ID)
	if err == nil {
		s.groups.Store(t)
	}
	return t, err
}

// loadGroups reads the revision before the rows: what changes between the two makes the table look old, never new.
func (c *Core) loadGroups(ctx context.Context, scope string) (*groupTable, error) {
	revision, err := c.store.GroupsRevision(ctx, scope)
	if err != nil {
		return nil, err
	}
	authorities, err := c.verifiedCAs(ctx, scope)
	if err != nil {
		return nil, err
	}
	t := &groupTable{revision: revision, byID: map[string]*knownGroup{}, anchors: map[string][]anchor{}}
	for after := ""; ; {
		page, err := c.store.Groups(ctx, scope, after, groupPage)
		if err != nil {
			return nil, err
		}
		for _, g := range page {
			after = dps.FoldID(g.ID)
			if err := c.addGroup(t, scope, g, authorities); err != nil {
				// One group that cannot be read must not shut out the devices of all others.
				c.log.Error("a group cannot be read: its devices are refused", "scope", scope, "group", g.ID, "err", err)
			}
		}
		if len(page) < groupPage {
			return t, nil
		}
	}
}

func (c *Core) addGroup(t *groupTable, scope string, g Group, authorities map[string][]byte) error {
	known := &knownGroup{ID: g.ID, Mechanism: g.Mechanism, Disabled: g.Disabled, Revision: g.Revision}
	folded := dps.FoldID(g.ID)
	wire, err := dps.DecodeGroup(g.ID, g.Document)
	if err != nil {
		return err
	}
	known.steering = groupSteering(wire)
	if g.Mechanism == SymmetricKey {
		if known.keys, err = c.openKeys(ContextGroupKey, scope, folded, g.Keys); err != nil {
			return err
		}
		t.deriving = append(t.deriving, known)
	} else {
		if wire.Attestation.X509 == nil {
			return fmt.Errorf("its document is not of an x509 group")
		}
		known.caReferences = wire.Attestation.X509.CAReferences.List()
		for _, der := range authoritiesOf(wire.Attestation.X509, authorities) {
			certificate, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			t.addAnchor(anchor{certificate, known})
		}
	}
	t.byID[folded] = known
	return nil
}

// addAnchor adds a CA unless a group before has it: that one decides, and a signature is worth checking once.
func (t *groupTable) addAnchor(a anchor) {
	subject := string(a.certificate.RawSubject)
	for _, there := range t.anchors[subject] {
		if there.certificate.Equal(a.certificate) {
			return
		}
	}
	t.anchors[subject] = append(t.anchors[subject], a)
}

// authoritiesOf lists the CA certificates of a group, as far as they are given in full. A name that no verified CA certificate has any more
// lets nobody in.
func authoritiesOf(chain *dps.X509Attestation, authorities map[string][]byte) (ders [][]byte) {
	for _, name := range chain.CAReferences.List() {
		if der := authorities[dps.FoldID(name)]; der != nil {
			ders = append(ders, der)
		}
	}
	for _, certificate := range chain.Signing.List() {
		if certificate.DER != nil {
			ders = append(ders, certificate.DER)
		}
	}
	return ders
}

// crowdedBy gives the subject of a CA of the group that too many CAs of other groups bear too; empty if there is none.
func (t *groupTable) crowdedBy(groupID string, ders [][]byte) string {
	for _, der := range ders {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			continue // judged elsewhere
		}
		others := 0
		for _, a := range t.anchors[string(certificate.RawSubject)] {
			if !certificate.Equal(a.certificate) && dps.FoldID(a.group.ID) != dps.FoldID(groupID) {
				others++
			}
		}
		if others >= MaxNamesakes {
			return certificate.Subject.String()
		}
	}
	return ""
}

// verifiedCAs are the CA certificates that groups may refer to, by folded name.
func (c *Core) verifiedCAs(ctx context.Context, scope string) (map[string][]byte, error) {
	all := map[string][]byte{}
	for after := ""; ; {
		page, err := c.store.CACertificates(ctx, scope, after, groupPage)
		if err != nil {
			return nil, err
		}
		for _, ca := range page {
			if after = dps.FoldID(ca.Name); ca.Verified {
				all[after] = ca.DER
			}
		}
		if len(page) < groupPage {
			return all, nil
		}
	}
}
