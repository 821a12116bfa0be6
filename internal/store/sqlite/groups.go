package sqlite

import (
	"context"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// entryRow is a row of a table whose rows have a revision and a time of creation, keyed by scope and folded id.
type entryRow struct {
	revision uint64
	created  time.Time
}

// judgeEntry compares the row that is there with what a put expects; selectSQL gives its revision and creation.
func judgeEntry(c *conn, selectSQL, scope, folded string, expect *uint64) (entryRow, registration.Verdict, error) {
	var was entryRow
	found, err := c.one(func(r *row) { was.revision, was.created = r.uint(), r.time() }, selectSQL, scope, folded)
	if err != nil {
		return entryRow{}, 0, err
	}
	return was, judge(found, was.revision, expect), nil
}

// PutGroup implements registration.GroupStore.
func (s *Store) PutGroup(ctx context.Context, scope string, g registration.Group, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Group, registration.Verdict, error) {
	stored := new(registration.Group) // the writer's until it answers
	verdict, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		was, verdict, err := judgeEntry(c, `SELECT revision, created FROM enrollment_groups WHERE scope = ?1 AND folded = ?2`, scope, dps.FoldID(g.ID), expect)
		if err != nil || verdict != registration.Applied {
			return verdict, err
		}
		if was.revision != 0 {
			g.Created = was.created
		}
		if taken, err := claimCertificates(c, scope, groupEntry, g.ID, g.Certificates); taken || err != nil {
			return registration.Taken, err
		}
		if g.Revision, err = moveGroups(c, scope); err != nil {
			return 0, err
		}
		if err := writeGroup(c, scope, g); err != nil {
			return 0, err
		}
		g.Created, g.Updated = rounded(g.Created), rounded(g.Updated)
		*stored = g
		if err := orderAll(c, scope, registration.OrderForGroup(order, g.ID, g.Revision, audit.TrackingID), s.now()); err != nil {
			return 0, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
	if err != nil || verdict != registration.Applied {
		return registration.Group{}, verdict, err
	}
	return *stored, verdict, nil
}

func writeGroup(c *conn, scope string, g registration.Group) error {
	_, err := c.exec(`INSERT INTO enrollment_groups
		(scope, folded, id, revision, mechanism, sealed_primary, sealed_secondary, certificates, disabled, document, created, updated)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
		ON CONFLICT (scope, folded) DO UPDATE SET
			id = excluded.id, revision = excluded.revision, mechanism = excluded.mechanism, sealed_primary = excluded.sealed_primary,
			sealed_secondary = excluded.sealed_secondary, certificates = excluded.certificates, disabled = excluded.disabled,
			document = excluded.document, updated = excluded.updated`,
		scope, dps.FoldID(g.ID), g.ID, g.Revision, string(g.Mechanism), g.Keys.Primary, g.Keys.Secondary, joined(g.Certificates), g.Disabled,
		g.Document, g.Created, g.Updated)
	return err
}

// moveGroups gives out the revision of a change of groups or CA certificates, and makes it the one that devices' snapshots carry.
func moveGroups(c *conn, scope string) (uint64, error) {
	revision, err := nextRevision(c, scope)
	if err != nil {
		return 0, err
	}
	_, err = c.exec(`INSERT INTO group_revisions (scope, revision) VALUES (?1, ?2)
		ON CONFLICT (scope) DO UPDATE SET revision = excluded.revision`, scope, revision)
	return revision, err
}

func groupsRevision(c *conn, scope string) (revision uint64, err error) {
	_, err = c.one(func(r *row) { revision = r.uint() }, `SELECT revision FROM group_revisions WHERE scope = ?1`, scope)
	return revision, err
}

// GroupsRevision implements registration.GroupStore.
func (s *Store) GroupsRevision(ctx context.Context, scope string) (revision uint64, err error) {
	err = s.read(ctx, func(c *conn) error {
		revision, err = groupsRevision(c, scope)
		return err
	})
	return revision, err
}

// DeleteGroup implements registration.GroupStore.
func (s *Store) DeleteGroup(ctx context.Context, scope, id string, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	folded := dps.FoldID(id)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		verdict, err := deleteRow(c, scope, folded, expect,
			`SELECT revision FROM enrollment_groups WHERE scope = ?1 AND folded = ?2`,
			`DELETE FROM enrollment_groups WHERE scope = ?1 AND folded = ?2`)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		if err := freeCertificates(c, scope, groupEntry, folded); err != nil {
			return 0, err
		}
		revision, err := moveGroups(c, scope)
		if err != nil {
			return 0, err
		}
		if err := orderAll(c, scope, registration.OrderForGroup(order, folded, revision, audit.TrackingID), s.now()); err != nil {
			return 0, err
		}
		return registration.Applied, appendAudit(c, scope, audit)
	})
}

const groupList = `SELECT id, revision, mechanism, sealed_primary, sealed_secondary, certificates, disabled, document, created, updated
	FROM enrollment_groups WHERE scope = ?1 AND `

func scanGroup(r *row) registration.Group {
	return registration.Group{
		ID: r.text(), Revision: r.uint(), Mechanism: registration.Mechanism(r.text()),
		Keys: registration.SealedKeys{Primary: r.blob(), Secondary: r.blob()}, Certificates: r.hashes(), Disabled: r.bool(),
		Document: r.blob(), Created: r.time(), Updated: r.time(),
	}
}

// Group implements registration.GroupStore.
func (s *Store) Group(ctx context.Context, scope, id string) (g registration.Group, err error) {
	err = s.read(ctx, func(c *conn) error {
		found, err := c.one(func(r *row) { g = scanGroup(r) }, groupList+`folded = ?2`, scope, dps.FoldID(id))
		if err == nil && !found {
			err = registration.ErrNotFound
		}
		return err
	})
	return g, err
}

// Groups implements registration.GroupStore.
func (s *Store) Groups(ctx context.Context, scope, after string, limit int) ([]registration.Group, error) {
	var page []registration.Group
	err := s.read(ctx, func(c *conn) error {
		page = page[:0]
		return c.each(func(r *row) { page = append(page, scanGroup(r)) }, groupList+`folded > ?2 ORDER BY folded LIMIT ?3`, scope, after, limit)
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}
