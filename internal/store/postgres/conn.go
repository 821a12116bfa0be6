package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"latchkey.example/latchkey/internal/registration"
)

// querier is a transaction, or a connection outside one.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// conn is a querier for the time of one call. It belongs to one goroutine.
type conn struct {
	ctx context.Context
	q   querier
}

// bind turns arguments into what the columns hold.
func bind(args []any) ([]any, error) {
	bound := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case []byte:
			if v == nil {
				v = []byte{} // absent is empty, never NULL
			}
			bound[i] = v
		case time.Time:
			bound[i] = v.UnixMicro()
		case uint64:
			bound[i] = int64(v)
		case registration.Status:
			bound[i] = string(v)
		case registration.Mechanism:
			bound[i] = string(v)
		case string, int64, int, bool, []string, [][]byte, []int64:
			bound[i] = v
		default:
			return nil, fmt.Errorf("cannot bind a %T", arg)
		}
	}
	return bound, nil
}

// exec runs a statement and returns the number of rows it changed.
func (c *conn) exec(sql string, args ...any) (int, error) {
	bound, err := bind(args)
	if err != nil {
		return 0, err
	}
	tag, err := c.q.Exec(c.ctx, sql, bound...)
	return int(tag.RowsAffected()), err
}

// each calls scan for every row of the answer.
func (c *conn) each(scan func(*row), sql string, args ...any) error {
	bound, err := bind(args)
	if err != nil {
		return err
	}
	rows, err := c.q.Query(c.ctx, sql, bound...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		scan(&row{values: values})
	}
	return rows.Err()
}

// one is each for an answer of at most one row; it reports whether there was one.
func (c *conn) one(scan func(*row), sql string, args ...any) (found bool, err error) {
	err = c.each(func(r *row) { scan(r); found = true }, sql, args...)
	return found, err
}

// batch collects statements that go to the server together and of which only the failure matters.
type batch struct {
	batch pgx.Batch
	err   error
}

func (b *batch) add(sql string, args ...any) {
	bound, err := bind(args)
	if err != nil && b.err == nil {
		b.err = err
	}
	b.batch.Queue(sql, bound...)
}

// send runs the statements in one round trip.
func (c *conn) send(b *batch) error {
	if b.err != nil {
		return b.err
	}
	return c.q.SendBatch(c.ctx, &b.batch).Close()
}

// clean makes text of whatever came from outside: PostgreSQL takes neither NUL nor what is not UTF-8, and an audit row must
// not fail for it.
func clean(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}

// row reads the columns of one row from left to right.
type row struct {
	values []any
	next   int
}

func (r *row) value() any {
	r.next++
	return r.values[r.next-1]
}

// skip passes over n columns.
func (r *row) skip(n int) { r.next += n }

func (r *row) text() string { return r.value().(string) }

// blob returns a blob; an empty one is nil.
func (r *row) blob() []byte {
	if b := r.value().([]byte); len(b) > 0 {
		return b
	}
	return nil
}

func (r *row) hash() (h [32]byte) {
	copy(h[:], r.value().([]byte))
	return h
}

// hashes reads what joined wrote.
func (r *row) hashes() (list [][32]byte) {
	raw := r.value().([]byte)
	for ; len(raw) >= 32; raw = raw[32:] {
		list = append(list, [32]byte(raw))
	}
	return list
}

func (r *row) int64() int64 { return r.value().(int64) }

func (r *row) int() int { return int(r.int64()) }

func (r *row) uint() uint64 { return uint64(r.int64()) }

func (r *row) bool() bool { return r.value().(bool) }

func (r *row) time() time.Time { return time.UnixMicro(r.int64()).UTC() }

// null reports whether the next column is NULL, without passing over it.
func (r *row) null() bool { return r.values[r.next] == nil }
