package postgres

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A transaction that numbered its row first commits last: whoever has read the other's row goes on from there and still meets it.
func TestALateCommitComesAfterWhatWasRead(t *testing.T) {
	t.Parallel()
	address := server.Address(newDatabase(t))
	s := reopen(t, address, Options{})
	defer closeStore(t, s)
	written, release := make(chan struct{}), make(chan struct{})
	slow := reopen(t, address, Options{hooks: hooks{beforeCommit: func(context.Context, *pgx.Conn) { close(written); <-release }}})
	defer closeStore(t, slow)
	done := make(chan error)
	go func() { done <- slow.AppendAudit(context.Background(), scope, testAudit("slow")) }()
	<-written
	if err := s.AppendAudit(t.Context(), scope, testAudit("quick")); err != nil {
		t.Fatal(err)
	}
	page, err := s.AuditPage(t.Context(), scope, 0, 10)
	if err != nil || len(page) != 1 || page[0].TrackingID != "quick" {
		t.Fatalf("%+v, %v", page, err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	rest, err := s.AuditPage(t.Context(), scope, page[0].Seq, 10)
	if err != nil || len(rest) != 1 || rest[0].TrackingID != "slow" {
		t.Fatalf("%+v, %v", rest, err)
	}
}

// Nobody changes the audit, not with our own connection; giving a place once is all.
func TestTheAuditIsAppendOnly(t *testing.T) {
	t.Parallel()
	s := openNew(t, Options{})
	defer closeStore(t, s)
	for _, name := range []string{"one", "two"} {
		if err := s.AppendAudit(t.Context(), scope, testAudit(name)); err != nil {
			t.Fatal(err)
		}
	}
	tamper := func() {
		t.Helper()
		for _, sql := range []string{
			`DELETE FROM audit`, `DELETE FROM audit WHERE tracking_id = 'one'`, `TRUNCATE audit`,
			`UPDATE audit SET outcome = 'refused'`, `UPDATE audit SET outcome = 'refused', place = 77`, `UPDATE audit SET at = at - 1`,
			`UPDATE audit SET n = n + 1000`, `UPDATE audit SET scope = 'other'`,
		} {
			err := s.read(t.Context(), func(c *conn) error { _, err := c.exec(sql); return err })
			if err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	tamper()
	if page, err := s.AuditPage(t.Context(), scope, 0, 10); err != nil || len(page) != 2 {
		t.Fatalf("%+v, %v", page, err)
	}
	tamper()
	err := s.read(t.Context(), func(c *conn) error { _, err := c.exec(`UPDATE audit SET place = place + 10`); return err })
	if err == nil {
		t.Error("a row was moved")
	}
	if n, err := s.ExpireAudit(t.Context(), scope, epoch.Add(time.Microsecond), 1, nil); err != nil || n != 1 {
		t.Fatalf("%d rows expired, %v", n, err)
	}
	audited(t, s, "one", 0)
	audited(t, s, "two", 1)
}

// A log that grew long before anybody read it: a page costs what it holds, not what waits. It once looked through all that waits for each row of
// the page.
func TestTheFirstReadingOfALongLogCostsAPageAtATime(t *testing.T) {
	t.Parallel()
	const waiting, limit = 10000, 100
	s := openNew(t, Options{Conns: 1}) // one connection, whose own counters are looked at
	defer closeStore(t, s)
	fillLog(t, s, waiting)
	for range 3 {
		before := auditReads(t, s)
		page, err := s.AuditPage(t.Context(), scope, 0, limit)
		if err != nil || len(page) != limit {
			t.Fatalf("%d rows, %v", len(page), err)
		}
		if reads := auditReads(t, s) - before; reads > 20*limit {
			t.Errorf("a page of %d rows read %d", limit, reads)
		}
		if n, err := s.ExpireAudit(t.Context(), scope, page[limit-1].At.Add(time.Microsecond), limit, nil); n != limit || err != nil {
			t.Fatalf("%d rows expired, %v", n, err)
		}
	}
}

// auditReads is how many entries of the log's indexes were read so far.
func auditReads(t *testing.T, s *Store) (reads int64) {
	t.Helper()
	err := s.read(t.Context(), func(c *conn) error {
		if _, err := c.exec(`SELECT pg_stat_force_next_flush()`); err != nil {
			return err
		}
		_, err := c.one(func(r *row) { reads = r.int64() }, `SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = 'audit'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return reads
}

// What a hostile client put into an audit row must not keep the row out.
func TestAuditTakesAnyBytes(t *testing.T) {
	t.Parallel()
	s := openNew(t, Options{})
	defer closeStore(t, s)
	a := testAudit("bad\x00bytes\xff")
	a.Detail = "\x00\xc3\x28"
	if err := s.AppendAudit(t.Context(), scope, a); err != nil {
		t.Fatal(err)
	}
	audited(t, s, "bad\x00bytes\xff", 1)
}
