package sqlite

import (
	"context"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// order writes the row of a transition's outbox, if there is one.
func order(c *conn, scope string, work *registration.Outbox, now time.Time) error {
	if work == nil {
		return nil
	}
	_, err := c.exec(`INSERT INTO outbox (scope, kind, object, created, due, claim, attempts, failure) VALUES (?1, ?2, ?3, ?4, ?4, '', 0, '')`,
		scope, string(work.Kind), work.Object, now)
	return err
}

// orderAll writes rows, but for those that are there.
func orderAll(c *conn, scope string, rows []registration.Outbox, now time.Time) error {
	for _, work := range rows {
		_, err := c.exec(`INSERT INTO outbox (scope, kind, object, created, due, claim, attempts, failure) VALUES (?1, ?2, ?3, ?4, ?4, '', 0, '')
			ON CONFLICT (scope, kind, object) DO NOTHING`, scope, string(work.Kind), work.Object, now)
		if err != nil {
			return err
		}
	}
	return nil
}

// orderDevice writes what an order is for the device of an id.
func orderDevice(c *conn, scope, folded string, order registration.HubOrder, audit registration.Audit, now time.Time) error {
	if order == registration.NoHubOrder {
		return nil
	}
	var r registration.Registration
	found, err := c.one(func(row *row) { r = scanRegistration(row) }, registrationSQL, scope, folded)
	if !found || err != nil {
		return err
	}
	return orderAll(c, scope, registration.OrdersFor(order, r, 0, audit.TrackingID), now)
}

// PassOutbox implements registration.OutboxStore.
func (s *Store) PassOutbox(ctx context.Context, scope string, work registration.Outbox, claim string, next []registration.Outbox) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		verdict, err := endClaim(c, scope, work, settleSQL, claim)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		return verdict, orderAll(c, scope, next, s.now())
	})
}

// ClaimOutbox implements registration.OutboxStore. It looks before it writes: mostly there is nothing to claim.
func (s *Store) ClaimOutbox(ctx context.Context, claim registration.OutboxClaim) ([]registration.OutboxRow, error) {
	ripe := false
	err := s.read(ctx, func(c *conn) (err error) {
		now := s.now()
		ripe, err = c.one(func(*row) {}, `SELECT 1 FROM outbox WHERE kind = ?1 AND due <= ?2 UNION ALL SELECT 1 FROM outbox WHERE kind = ?1 AND due > ?3 LIMIT 1`,
			string(claim.Kind), now, now.Add(registration.OutboxHorizon))
		return err
	})
	if !ripe || err != nil {
		return nil, err
	}
	rows := new([]registration.OutboxRow) // the writer's until it answers
	_, err = s.write(ctx, func(c *conn) (verdict registration.Verdict, err error) {
		*rows, err = claimOutbox(c, claim, s.now())
		return registration.Applied, err
	})
	if err != nil {
		return nil, err
	}
	return *rows, nil
}

func claimOutbox(c *conn, claim registration.OutboxClaim, now time.Time) (rows []registration.OutboxRow, err error) {
	// Further ahead than any row can be: the clock was set back since.
	_, err = c.exec(`UPDATE outbox SET due = ?2 WHERE kind = ?1 AND due > ?3`, string(claim.Kind), now, now.Add(registration.OutboxHorizon))
	if err != nil {
		return nil, err
	}
	return rows, c.each(func(r *row) { rows = append(rows, scanOutbox(r, now)) }, `UPDATE outbox SET due = ?4, claim = ?5, attempts = attempts + 1
		WHERE seq IN (SELECT seq FROM outbox WHERE kind = ?1 AND due <= ?2 ORDER BY kind, due LIMIT ?3)
		RETURNING scope, kind, object, attempts, failure, created`,
		string(claim.Kind), now, claim.Limit, now.Add(registration.OutboxSpan(claim.Lease)), claim.ID)
}

func scanOutbox(r *row, now time.Time) registration.OutboxRow {
	return registration.OutboxRow{
		Scope: r.text(), Outbox: registration.Outbox{Kind: registration.OutboxKind(r.text()), Object: r.text()},
		Attempts: r.int(), Failure: r.text(), Age: max(0, now.Sub(r.time())),
	}
}

// SettleOutbox implements registration.OutboxStore.
func (s *Store) SettleOutbox(ctx context.Context, scope string, work registration.Outbox, claim string) (registration.Verdict, error) {
	return s.endClaim(ctx, scope, work, settleSQL, claim)
}

const settleSQL = `DELETE FROM outbox WHERE scope = ?1 AND kind = ?2 AND object = ?3 AND claim = ?4 AND claim <> ''`

// PostponeOutbox implements registration.OutboxStore.
func (s *Store) PostponeOutbox(ctx context.Context, scope string, work registration.Outbox, claim string, by time.Duration, failure string) (registration.Verdict, error) {
	return s.endClaim(ctx, scope, work, `UPDATE outbox SET due = ?5, claim = '', failure = ?6
		WHERE scope = ?1 AND kind = ?2 AND object = ?3 AND claim = ?4 AND claim <> ''`, claim, s.now().Add(registration.OutboxSpan(by)), failure)
}

// endClaim changes a row that the claim still has.
func (s *Store) endClaim(ctx context.Context, scope string, work registration.Outbox, sql, claim string, more ...any) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) { return endClaim(c, scope, work, sql, claim, more...) })
}

func endClaim(c *conn, scope string, work registration.Outbox, sql, claim string, more ...any) (registration.Verdict, error) {
	n, err := c.exec(sql, append([]any{scope, string(work.Kind), work.Object, claim}, more...)...)
	if n == 1 || err != nil {
		return registration.Applied, err
	}
	found, err := c.one(func(*row) {}, `SELECT 1 FROM outbox WHERE scope = ?1 AND kind = ?2 AND object = ?3`, scope, string(work.Kind), work.Object)
	if !found {
		return registration.Missing, err
	}
	return registration.Conflict, err
}

// OutboxClaimed implements registration.OutboxStore.
func (s *Store) OutboxClaimed(ctx context.Context, scope string, work registration.Outbox) (claimed bool, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		claimed, err = c.one(func(*row) {}, `SELECT 1 FROM outbox WHERE scope = ?1 AND kind = ?2 AND object = ?3 AND claim <> '' AND due > ?4`,
			scope, string(work.Kind), work.Object, s.now())
		return err
	})
	return claimed, err
}

// OutboxBacklog implements registration.OutboxStore.
func (s *Store) OutboxBacklog(ctx context.Context) (backlog registration.OutboxBacklog, err error) {
	err = s.read(ctx, func(c *conn) error {
		now := s.now()
		_, err := c.one(func(r *row) {
			if backlog.Waiting = r.int(); backlog.Waiting > 0 {
				backlog.Oldest = max(0, now.Sub(r.time()))
			}
		}, `SELECT count(*), min(created) FROM outbox`)
		return err
	})
	return backlog, err
}
