package postgres

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// unanswered names, in a connection's data, the flag that a COMMIT is under way.
const unanswered = "latchkey: unanswered commit"

var errLeftAlone = errors.New("a commit is not cancelled")

// leaveCommits keeps the driver from cancelling a COMMIT that it gives up waiting for, as it does with every statement. A server that waits for its
// synchronous standby takes the cancellation for "wait no more": it shows to everybody what the standby has not got, and the device that asks again would
// be told of it, though a promoted standby would know nothing. Left alone, the transaction is seen once it is safe, or never.
func leaveCommits(c *pgx.ConnConfig) {
	var sent atomic.Bool
	dial, after := c.DialFunc, c.AfterConnect
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if sent.Load() {
			return nil, errLeftAlone
		}
		return dial(ctx, network, address)
	}
	c.AfterConnect = func(ctx context.Context, pg *pgconn.PgConn) error {
		pg.CustomData()[unanswered] = &sent
		if after != nil {
			return after(ctx, pg)
		}
		return nil
	}
}

// sending notes that a connection's COMMIT goes out; the function that it returns, that the answer has come.
func sending(pg *pgx.Conn) (answered func()) {
	sent, ours := pg.PgConn().CustomData()[unanswered].(*atomic.Bool)
	if !ours {
		return func() {}
	}
	sent.Store(true)
	return func() { sent.Store(false) }
}
