package postgres

import (
	"context"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// EnqueueMessage implements embedded.Messages. It holds the identity, and so whoever deletes that, and then the queue, until the commit.
func (s *Store) EnqueueMessage(ctx context.Context, scope string, m registration.HubMessage, most int) (seq uint64, verdict registration.Verdict, err error) {
	if err := m.Check(); err != nil {
		return 0, 0, err
	}
	verdict, err = s.write(ctx, func(c *conn) (registration.Verdict, error) {
		known, err := c.one(func(r *row) { seq = r.uint() }, `INSERT INTO hub_queues AS q (scope, hub, device_id, last)
			SELECT scope, hub, device_id, 1 FROM identities WHERE scope = $1 AND hub = $2 AND device_id = $3 FOR KEY SHARE
			ON CONFLICT (scope, hub, device_id) DO UPDATE SET last = q.last + 1 RETURNING last`, scope, m.Hub, m.DeviceID)
		if !known || err != nil {
			return registration.Missing, err
		}
		n, err := c.exec(`INSERT INTO hub_messages (scope, hub, device_id, n, id, correlation_id, user_id, ack, properties, enqueued, expires, deliveries, body)
			SELECT $1, $2, $3, $4::bigint, $5, $6, $7, $8, $9::bytea, $10::bigint, $11::bigint, 0, $12::bytea
			WHERE (SELECT count(*) FROM hub_messages WHERE scope = $1 AND hub = $2 AND device_id = $3) < $13::bigint`,
			scope, m.Hub, m.DeviceID, seq, m.ID, m.CorrelationID, m.UserID, m.Ack, m.Properties, m.Enqueued, m.Expires, m.Body, most)
		if n == 0 || err != nil {
			return registration.Full, err
		}
		return registration.Applied, c.order(scope, m.Outbox)
	})
	if verdict != registration.Applied || err != nil {
		return 0, verdict, err
	}
	return seq, registration.Applied, nil
}

// messageColumns are all but the body.
const messageColumns = `hub, device_id, n, id, correlation_id, user_id, ack, properties, enqueued, expires, deliveries`

func (r *row) message() registration.HubMessage {
	return registration.HubMessage{Hub: r.text(), DeviceID: r.text(), Seq: r.uint(), ID: r.text(), CorrelationID: r.text(), UserID: r.text(), Ack: r.text(),
		Properties: r.blob(), Enqueued: r.time(), Expires: r.time(), Deliveries: r.int()}
}

// Messages implements embedded.Messages.
func (s *Store) Messages(ctx context.Context, scope, hub, deviceID string, after uint64, limit int) (list []registration.HubMessage, err error) {
	err = s.read(ctx, func(c *conn) error {
		list = nil
		return c.each(func(r *row) {
			m := r.message()
			m.Body = r.blob()
			list = append(list, m)
		}, `SELECT `+messageColumns+`, body FROM hub_messages
			WHERE scope = $1 AND hub = $2 AND device_id = $3 AND n > $4 ORDER BY n LIMIT $5`, scope, hub, deviceID, after, limit)
	})
	return list, err
}

// CountMessages implements embedded.Messages.
func (s *Store) CountMessages(ctx context.Context, scope, hub, deviceID string) (count int, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(func(r *row) { count = r.int() }, `SELECT count(*) FROM hub_messages WHERE scope = $1 AND hub = $2 AND device_id = $3`, scope, hub, deviceID)
		return err
	})
	return count, err
}

// SettleMessage implements embedded.Messages.
func (s *Store) SettleMessage(ctx context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error) {
	return s.writeMessage(ctx, `DELETE FROM hub_messages WHERE scope = $1 AND hub = $2 AND device_id = $3 AND n = $4`, scope, hub, deviceID, seq)
}

// DeliveredMessage implements embedded.Messages.
func (s *Store) DeliveredMessage(ctx context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error) {
	return s.writeMessage(ctx, `UPDATE hub_messages SET deliveries = deliveries + 1 WHERE scope = $1 AND hub = $2 AND device_id = $3 AND n = $4`, scope, hub, deviceID, seq)
}

// writeMessage changes one message.
func (s *Store) writeMessage(ctx context.Context, sql string, key ...any) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		n, err := c.exec(sql, key...)
		if n == 0 || err != nil {
			return registration.Missing, err
		}
		return registration.Applied, nil
	})
}

// ExpireMessages implements embedded.Messages. Messages that somebody is at are left to a later call.
func (s *Store) ExpireMessages(ctx context.Context, before time.Time, limit int) (expired []registration.ExpiredMessage, err error) {
	_, err = s.write(ctx, func(c *conn) (registration.Verdict, error) {
		expired = nil
		return registration.Applied, c.each(func(r *row) {
			expired = append(expired, registration.ExpiredMessage{Scope: r.text(), HubMessage: r.message()})
		}, `WITH old AS MATERIALIZED (SELECT scope, hub, device_id, n FROM hub_messages WHERE expires < $1 AND n > 0
			ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED)
			DELETE FROM hub_messages AS m USING old WHERE m.scope = old.scope AND m.hub = old.hub AND m.device_id = old.device_id AND m.n = old.n
			RETURNING m.scope, m.hub, m.device_id, m.n, m.id, m.correlation_id, m.user_id, m.ack, m.properties, m.enqueued, m.expires, m.deliveries`, before, limit)
	})
	if err != nil {
		return nil, err
	}
	return expired, nil
}

// Session implements embedded.Sessions.
func (s *Store) Session(ctx context.Context, scope, hub, deviceID string) (listens uint32, err error) {
	err = s.read(ctx, func(c *conn) error {
		listens = 0
		_, err := c.one(func(r *row) { listens = uint32(r.uint()) }, `SELECT listens FROM hub_queues WHERE scope = $1 AND hub = $2 AND device_id = $3`, scope, hub, deviceID)
		return err
	})
	return listens, err
}

// PutSession implements embedded.Sessions. It holds the identity, as EnqueueMessage does.
func (s *Store) PutSession(ctx context.Context, scope, hub, deviceID string, listens uint32) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		n, err := c.exec(`INSERT INTO hub_queues (scope, hub, device_id, last, listens)
			SELECT scope, hub, device_id, 0, $4::bigint FROM identities WHERE scope = $1 AND hub = $2 AND device_id = $3 FOR KEY SHARE
			ON CONFLICT (scope, hub, device_id) DO UPDATE SET listens = excluded.listens`, scope, hub, deviceID, int64(listens))
		if n == 0 || err != nil {
			return registration.Missing, err
		}
		return registration.Applied, nil
	})
}
