package postgres

import (
	"slices"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// puts are enrollments that are put together. They are judged here, one after the other, on what is there once all their ids are locked,
// and written in one round trip, each id once.
type puts struct {
	scope    string
	made     []string // ids whose rows were made for their locks
	rows     map[string]*putRow
	claims   *claims // nil if no certificate is touched
	verdicts []registration.Verdict
	audits   []registration.Audit // of the rows that are applied
	writes   []string             // their folded ids, in the order of their last rows
}

// putRow is what is there of an id, as the rows judged so far leave it.
type putRow struct {
	found, certified bool
	revision         uint64
	created          time.Time
	fresh            bool                    // there was none before the first row
	enrollment       registration.Enrollment // of the last row that is applied
}

// judgePuts locks the ids and judges the rows.
func judgePuts(c *conn, scope string, rows []registration.EnrollmentPut) (*puts, error) {
	p := &puts{scope: scope, rows: map[string]*putRow{}}
	for _, row := range rows {
		p.rows[dps.FoldID(row.Enrollment.ID)] = &putRow{}
	}
	folded := make([]string, 0, len(p.rows))
	for id := range p.rows {
		folded = append(folded, id)
	}
	slices.Sort(folded)
	var err error
	if p.made, err = lockIDs(c, scope, folded); err != nil {
		return nil, err
	}
	if err := p.read(c, folded, certificatesOf(rows)); err != nil {
		return nil, err
	}
	revisions, err := takeRevisions(c, len(rows))
	if err != nil {
		return nil, err
	}
	for i, row := range rows {
		verdict := p.judge(row, revisions[i])
		p.verdicts = append(p.verdicts, verdict)
	}
	return p, nil
}

// read reads what is there of the ids, and to whom certificates belong if any is named, there or in the rows.
func (p *puts) read(c *conn, folded []string, certificates [][32]byte) error {
	certified := len(certificates) > 0
	err := c.each(func(r *row) {
		was := p.rows[r.text()]
		was.found, was.revision, was.created, was.certified = true, r.uint(), r.time(), r.bool()
		certified = certified || was.certified
	}, `SELECT folded, revision, created, certificates <> ''::bytea FROM enrollments WHERE scope = $1 AND folded = ANY($2)`, p.scope, folded)
	if err != nil || !certified {
		return err
	}
	p.claims, err = readClaims(c, p.scope, ownEntry, folded, certificates)
	return err
}

// takeRevisions gives out n revisions, in rising order. What they are for is locked.
func takeRevisions(c *conn, n int) ([]uint64, error) {
	revisions := make([]uint64, 0, n)
	err := c.each(func(r *row) { revisions = append(revisions, r.uint()) }, `SELECT nextval('revisions') FROM generate_series(1, $1::bigint)`, n)
	slices.Sort(revisions)
	return revisions, err
}

func (p *puts) judge(row registration.EnrollmentPut, revision uint64) registration.Verdict {
	e := row.Enrollment
	folded := dps.FoldID(e.ID)
	was := p.rows[folded]
	if verdict := judge(was.found, was.revision, row.Expect); verdict != registration.Applied {
		return verdict
	}
	if (was.certified || len(e.Certificates) > 0) && !p.claims.claim(folded, e.Certificates) {
		return registration.Taken
	}
	if was.found {
		e.Created = was.created
	}
	e.Revision = revision
	*was = putRow{fresh: was.fresh || !was.found, found: true, certified: len(e.Certificates) > 0, revision: revision, created: e.Created, enrollment: e}
	p.audits = append(p.audits, row.Audit)
	p.writes = append(p.writes, folded)
	return registration.Applied
}

// applied is the number of rows that are applied.
func (p *puts) applied() int { return len(p.audits) }

func (p *puts) write(c *conn) error {
	if p.claims != nil {
		if err := p.claims.write(c); err != nil {
			return err
		}
	}
	var b batch
	written := map[string]bool{}
	for _, folded := range p.writes {
		if !written[folded] {
			written[folded] = true
			writeEnrollment(&b, p.scope, folded, p.rows[folded].enrollment)
		}
	}
	// Ids that were deleted and are in use again; the others have no age.
	if again := p.again(); len(again) > 0 {
		b.add(`UPDATE generations SET idle_since = NULL WHERE scope = $1 AND folded = ANY($2) AND idle_since IS NOT NULL`, p.scope, again)
	}
	if replaced := p.replaced(); len(replaced) > 0 {
		b.add(`DELETE FROM offers AS o USING enrollments AS e WHERE o.scope = $1 AND o.folded = ANY($2) AND e.scope = o.scope AND e.folded = o.folded
			AND e.ek_key_id <> o.ek_key_id`, p.scope, replaced)
	}
	var unused []string
	for _, folded := range p.made {
		if !written[folded] {
			unused = append(unused, folded)
		}
	}
	if len(unused) > 0 {
		b.add(`DELETE FROM generations WHERE scope = $1 AND folded = ANY($2)`, p.scope, unused)
	}
	for _, audit := range p.audits {
		b.audit(p.scope, audit)
	}
	return c.send(&b)
}

// again are ids that have an enrollment now, had none, and were known.
func (p *puts) again() (ids []string) {
	made := map[string]bool{}
	for _, folded := range p.made {
		made[folded] = true
	}
	for _, folded := range p.writes {
		if p.rows[folded].fresh && !made[folded] {
			ids = append(ids, folded)
		}
	}
	return ids
}

// replaced are ids that had an enrollment before.
func (p *puts) replaced() (ids []string) {
	for _, folded := range p.writes {
		if !p.rows[folded].fresh {
			ids = append(ids, folded)
		}
	}
	return ids
}

func writeEnrollment(b *batch, scope, folded string, e registration.Enrollment) {
	b.add(`INSERT INTO enrollments
		(scope, folded, id, revision, mechanism, ek, ek_key_id, pinned_srk, sealed_primary, sealed_secondary, certificates, device_id, disabled,
			document, created, updated)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		ON CONFLICT (scope, folded) DO UPDATE SET
			id = excluded.id, revision = excluded.revision, mechanism = excluded.mechanism, ek = excluded.ek, ek_key_id = excluded.ek_key_id,
			pinned_srk = excluded.pinned_srk, sealed_primary = excluded.sealed_primary, sealed_secondary = excluded.sealed_secondary,
			certificates = excluded.certificates, device_id = excluded.device_id, disabled = excluded.disabled,
			document = excluded.document, updated = excluded.updated`,
		scope, folded, e.ID, e.Revision, e.Mechanism, e.EK, e.EKKeyID[:], e.PinnedSRK, e.Keys.Primary, e.Keys.Secondary, joined(e.Certificates), e.DeviceID, e.Disabled,
		e.Document, e.Created, e.Updated)
}
