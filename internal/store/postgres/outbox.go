package postgres

import (
	"context"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// serverTime is the server's clock as columns hold it. It stands still within a statement, so that an index can be asked with it.
const serverTime = `(extract(epoch FROM statement_timestamp()) * 1000000)::bigint`

// order writes the row of a transition's outbox, if there is one.
func order(b *batch, scope string, work *registration.Outbox) {
	if work != nil {
		b.add(insertOutbox, scope, string(work.Kind), work.Object)
	}
}

const insertOutbox = `INSERT INTO outbox (scope, kind, object, created, due, claim, attempts, failure)
	VALUES ($1, $2, $3, ` + serverTime + `, ` + serverTime + `, '', 0, '')`

// order is the same in a step of its own.
func (c *conn) order(scope string, work *registration.Outbox) error {
	if work == nil {
		return nil
	}
	_, err := c.exec(insertOutbox, scope, string(work.Kind), work.Object)
	return err
}

// orderAll writes rows, but for those that are there.
func orderAll(b *batch, scope string, rows []registration.Outbox) {
	for _, work := range rows {
		b.add(`INSERT INTO outbox (scope, kind, object, created, due, claim, attempts, failure)
			VALUES ($1, $2, $3, `+serverTime+`, `+serverTime+`, '', 0, '') ON CONFLICT (scope, kind, object) DO NOTHING`, scope, string(work.Kind), work.Object)
	}
}

// orderDevice writes what an order is for the device of an id, which is locked.
func orderDevice(c *conn, b *batch, scope, folded string, order registration.HubOrder, audit registration.Audit) error {
	if order == registration.NoHubOrder {
		return nil
	}
	var r registration.Registration
	found, err := c.one(func(row *row) { r = scanRegistration(row) }, registrationSQL, scope, folded)
	if found {
		orderAll(b, scope, registration.OrdersFor(order, r, 0, audit.TrackingID))
	}
	return err
}

// PassOutbox implements registration.OutboxStore.
func (s *Store) PassOutbox(ctx context.Context, scope string, work registration.Outbox, claim string, next []registration.Outbox) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		verdict, err := endClaim(c, scope, work, settleSQL, claim)
		if verdict != registration.Applied || err != nil {
			return verdict, err
		}
		var b batch
		orderAll(&b, scope, next)
		return verdict, c.send(&b)
	})
}

// ClaimOutbox implements registration.OutboxStore. Rows that another claim is just taking are passed over.
func (s *Store) ClaimOutbox(ctx context.Context, claim registration.OutboxClaim) ([]registration.OutboxRow, error) {
	var rows []registration.OutboxRow
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		rows = rows[:0]
		// Further ahead than any row can be: the server's clock was set back since.
		_, err := c.exec(`UPDATE outbox SET due = `+serverTime+` WHERE attempts >= 0 AND kind = $1 AND due > `+serverTime+` + $2::bigint`,
			string(claim.Kind), registration.OutboxHorizon.Microseconds())
		if err != nil {
			return 0, err
		}
		return registration.Applied, c.each(func(r *row) { rows = append(rows, scanOutbox(r)) }, `WITH ripe AS MATERIALIZED (
				SELECT scope, kind, object FROM outbox WHERE attempts >= 0 AND kind = $1 AND due <= `+serverTime+` ORDER BY kind, due LIMIT $2 FOR UPDATE SKIP LOCKED)
			UPDATE outbox AS o SET due = `+serverTime+` + $3::bigint, claim = $4, attempts = attempts + 1
			FROM ripe WHERE o.scope = ripe.scope AND o.kind = ripe.kind AND o.object = ripe.object
			RETURNING o.scope, o.kind, o.object, o.attempts, o.failure, `+serverTime+` - o.created`,
			string(claim.Kind), claim.Limit, registration.OutboxSpan(claim.Lease).Microseconds(), claim.ID)
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

func scanOutbox(r *row) registration.OutboxRow {
	return registration.OutboxRow{
		Scope: r.text(), Outbox: registration.Outbox{Kind: registration.OutboxKind(r.text()), Object: r.text()},
		Attempts: r.int(), Failure: r.text(), Age: time.Duration(max(0, r.int64())) * time.Microsecond,
	}
}

// SettleOutbox implements registration.OutboxStore.
func (s *Store) SettleOutbox(ctx context.Context, scope string, work registration.Outbox, claim string) (registration.Verdict, error) {
	return s.endClaim(ctx, scope, work, settleSQL, claim)
}

const settleSQL = `DELETE FROM outbox WHERE scope = $1 AND kind = $2 AND object = $3 AND claim = $4 AND claim <> ''`

// PostponeOutbox implements registration.OutboxStore.
func (s *Store) PostponeOutbox(ctx context.Context, scope string, work registration.Outbox, claim string, by time.Duration, failure string) (registration.Verdict, error) {
	return s.endClaim(ctx, scope, work, `UPDATE outbox SET due = `+serverTime+` + $5::bigint, claim = '', failure = $6
		WHERE scope = $1 AND kind = $2 AND object = $3 AND claim = $4 AND claim <> ''`, claim, registration.OutboxSpan(by).Microseconds(), clean(failure))
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
	found, err := c.one(func(*row) {}, `SELECT 1 FROM outbox WHERE scope = $1 AND kind = $2 AND object = $3`, scope, string(work.Kind), work.Object)
	if !found {
		return registration.Missing, err
	}
	return registration.Conflict, err
}

// OutboxClaimed implements registration.OutboxStore.
func (s *Store) OutboxClaimed(ctx context.Context, scope string, work registration.Outbox) (claimed bool, err error) {
	err = s.read(ctx, func(c *conn) (err error) {
		claimed, err = c.one(func(*row) {}, `SELECT 1 FROM outbox WHERE scope = $1 AND kind = $2 AND object = $3 AND claim <> '' AND due > `+serverTime,
			scope, string(work.Kind), work.Object)
		return err
	})
	return claimed, err
}

// OutboxBacklog implements registration.OutboxStore.
func (s *Store) OutboxBacklog(ctx context.Context) (backlog registration.OutboxBacklog, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(func(r *row) {
			backlog = registration.OutboxBacklog{Waiting: r.int(), Oldest: time.Duration(max(0, r.int64())) * time.Microsecond}
		}, `SELECT count(*), coalesce(`+serverTime+` - min(created), 0) FROM outbox`)
		return err
	})
	return backlog, err
}
