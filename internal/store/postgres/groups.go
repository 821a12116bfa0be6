package postgres

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

// judge compares a row, if there is one, with what a put expects.
func judge(found bool, revision uint64, expect *uint64) registration.Verdict {
	switch {
	case expect == nil && found:
		return registration.Exists
	case expect != nil && !found:
		return registration.Missing
	case found && !expected(expect, revision):
		return registration.Conflict
	}
	return registration.Applied
}

func expected(expect *uint64, revision uint64) bool {
	return expect == nil || *expect == registration.AnyRevision || *expect == revision
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

// judgeDelete compares the row that is there with what a delete expects; selectSQL gives its revision.
func judgeDelete(c *conn, selectSQL, scope, folded string, expect *uint64) (registration.Verdict, error) {
	var revision uint64
	found, err := c.one(func(r *row) { revision = r.uint() }, selectSQL, scope, folded)
	switch {
	case err != nil:
		return 0, err
	case !found:
		return registration.Missing, nil
	case !expected(expect, revision):
		return registration.Conflict, nil
	}
	return registration.Applied, nil
}

// rounded is the time as it will be read back.
func rounded(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

// lockGroups locks the scope's groups and CA certificates against other changes, and against redemptions that rest on them. A row made
// for a change that is refused goes with its rollback.
func lockGroups(c *conn, scope string) error {
	for range lockRounds {
		found, err := c.one(func(*row) {}, `SELECT 1 FROM group_revisions WHERE scope = $1 FOR UPDATE`, scope)
		if found || err != nil {
			return err
		}
		made, err := c.exec(`INSERT INTO group_revisions (scope, revision) VALUES ($1, 0) ON CONFLICT (scope) DO NOTHING`, scope)
		if made == 1 || err != nil {
			return err
		}
	}
	return errAgain
}

// moveGroups gives out the revision of a change of groups or CA certificates, and makes it the one that devices' snapshots carry. The
// caller has locked the groups.
func moveGroups(c *conn, scope string) (revision uint64, err error) {
	_, err = c.one(func(r *row) { revision = r.uint() },
		`UPDATE group_revisions SET revision = nextval('revisions') WHERE scope = $1 RETURNING revision`, scope)
	return revision, err
}

// GroupsRevision implements registration.GroupStore.
func (s *Store) GroupsRevision(ctx context.Context, scope string) (revision uint64, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(func(r *row) { revision = r.uint() }, `SELECT revision FROM group_revisions WHERE scope = $1`, scope)
		return err
	})
	return revision, err
}

// PutGroup implements registration.GroupStore.
func (s *Store) PutGroup(ctx context.Context, scope string, g registration.Group, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Group, registration.Verdict, error) {
	var stored registration.Group
	verdict, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if err := lockGroups(c, scope); err != nil {
			return 0, err
		}
		was, verdict, err := judgeEntry(c, `SELECT revision, created FROM enrollment_groups WHERE scope = $1 AND folded = $2`, scope, dps.FoldID(g.ID), expect)
		if err != nil || verdict != registration.Applied {
			return verdict, err
		}
		stored = g
		if was.revision != 0 {
			stored.Created = was.created
		}
		if taken, err := claimForGroup(c, scope, g); taken || err != nil {
			return registration.Taken, err
		}
		if stored.Revision, err = moveGroups(c, scope); err != nil {
			return 0, err
		}
		var b batch
		writeGroup(&b, scope, stored)
		orderAll(&b, scope, registration.OrderForGroup(order, g.ID, stored.Revision, audit.TrackingID))
		b.audit(scope, audit)
		stored.Created, stored.Updated = rounded(stored.Created), rounded(stored.Updated)
		return registration.Applied, c.send(&b)
	})
	if err != nil || verdict != registration.Applied {
		return registration.Group{}, verdict, err
	}
	return stored, verdict, nil
}

// claimForGroup makes a group's certificates its own, in place of those it had.
func claimForGroup(c *conn, scope string, g registration.Group) (taken bool, err error) {
	claims, err := readClaims(c, scope, groupEntry, []string{dps.FoldID(g.ID)}, g.Certificates)
	if err != nil {
		return false, err
	}
	if !claims.claim(dps.FoldID(g.ID), g.Certificates) {
		return true, nil
	}
	return false, claims.write(c)
}

func writeGroup(b *batch, scope string, g registration.Group) {
	b.add(`INSERT INTO enrollment_groups
		(scope, folded, id, revision, mechanism, sealed_primary, sealed_secondary, certificates, disabled, document, created, updated)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (scope, folded) DO UPDATE SET
			id = excluded.id, revision = excluded.revision, mechanism = excluded.mechanism, sealed_primary = excluded.sealed_primary,
			sealed_secondary = excluded.sealed_secondary, certificates = excluded.certificates, disabled = excluded.disabled,
			document = excluded.document, updated = excluded.updated`,
		scope, dps.FoldID(g.ID), g.ID, g.Revision, g.Mechanism, g.Keys.Primary, g.Keys.Secondary, joined(g.Certificates), g.Disabled,
		g.Document, g.Created, g.Updated)
}

// DeleteGroup implements registration.GroupStore.
func (s *Store) DeleteGroup(ctx context.Context, scope, id string, expect *uint64, audit registration.Audit, order registration.HubOrder) (registration.Verdict, error) {
	folded := dps.FoldID(id)
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if err := lockGroups(c, scope); err != nil {
			return 0, err
		}
		verdict, err := judgeDelete(c, `SELECT revision FROM enrollment_groups WHERE scope = $1 AND folded = $2`, scope, folded, expect)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		revision, err := moveGroups(c, scope)
		if err != nil {
			return 0, err
		}
		var b batch
		orderAll(&b, scope, registration.OrderForGroup(order, folded, revision, audit.TrackingID))
		b.add(`DELETE FROM enrollment_groups WHERE scope = $1 AND folded = $2`, scope, folded)
		b.add(`DELETE FROM entry_certificates WHERE scope = $1 AND kind = $2 AND folded = $3`, scope, groupEntry, folded)
		b.audit(scope, audit)
		return registration.Applied, c.send(&b)
	})
}

const groupList = `SELECT id, revision, mechanism, sealed_primary, sealed_secondary, certificates, disabled, document, created, updated
	FROM enrollment_groups WHERE scope = $1 AND `

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
		found, err := c.one(func(r *row) { g = scanGroup(r) }, groupList+`folded = $2`, scope, dps.FoldID(id))
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
		return c.each(func(r *row) { page = append(page, scanGroup(r)) }, groupList+`folded > $2 ORDER BY folded LIMIT $3`, scope, after, limit)
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}
