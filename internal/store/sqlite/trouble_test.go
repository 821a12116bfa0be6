package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"latchkey.example/latchkey/internal/registration"
)

// sickness is how a disk fails: which calls, with which error, and what the operator is told.
type sickness struct {
	name   string
	err    error
	writes bool // else syncs
	public string
	reads  bool // of all files, from the first on, and nothing else
}

var sicknesses = []sickness{
	{"no room", sqlite3.FULL, true, "disk of the database is full", false},
	{"no room, by quota", vfs.SystemError(syscall.EDQUOT, sqlite3.IOERR_WRITE), true, "disk of the database", false},
	{"read-only", sqlite3.READONLY, true, "read-only", false},
	{"writes fail", sqlite3.IOERR_WRITE, true, "disk of the database fails", false},
	{"flushes fail", sqlite3.IOERR_FSYNC, false, "disk of the database fails", false},
}

// The disk fails at each call of a life, one after the other, and works again some transitions later. What was refused is not acknowledged, what
// was acknowledged stays, also when the power goes at the end, and nothing has to be mended.
func TestADiskThatFailsAtAnyCallRefusesAndIsWellAgain(t *testing.T) {
	t.Parallel()
	seed := firstSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	troubles, lives := 0, 0
	for _, sick := range sicknesses {
		step := runs(101, 1) // every call in the long form
		for at := 1 + rng.IntN(step); ; at += step {
			l := life{sick: sick, at: at}
			l.run(t, rng)
			if t.Failed() {
				t.Fatalf("%s at call %d", sick.name, at)
			}
			if !l.met {
				break // the life is over before the call
			}
			troubles += l.troubles
			lives++
		}
	}
	t.Logf("%d lives, %d transitions refused", lives, troubles)
	if lives < 10 || troubles < lives {
		t.Errorf("%d lives met %d troubles: the test tests little", lives, troubles)
	}
}

// life is a database on a disk that fails for a while.
type life struct {
	sick     sickness
	at       int
	met      bool
	troubles int
	told     []string // acknowledged
}

func (l *life) run(t *testing.T, rng *rand.Rand) {
	d := newDisk(t)
	opts := Options{VFS: d.name, Readers: 1, Linger: -1, checkpointEvery: 10, checkpointForce: 30}
	if err := Create(t.Context(), powerPath, opts); err != nil {
		t.Fatal(err)
	}
	s := reopen(t, powerPath, opts)
	d.sicken(l.sick, l.at)
	failing := 0
	for i := range 24 {
		name := fmt.Sprint("life", i)
		verdict, err := s.write(t.Context(), bulky(name))
		switch {
		case err == nil && verdict == registration.Applied:
			l.told = append(l.told, name)
		case registration.Trouble(err) == nil || !strings.Contains(registration.Trouble(err).Public, l.sick.public):
			t.Errorf("%v, want it to speak of %q", err, l.sick.public)
		default:
			l.troubles++
			if !s.Stats().Failing {
				t.Error("it does not count as failing")
			}
			if failing++; failing == 3 {
				d.heal()
			}
		}
		if rows := auditRows(t, s, "life0"); len(l.told) > 0 && l.told[0] == "life0" && rows != 1 { // reads go on
			t.Errorf("%d rows of what was acknowledged first", rows)
		}
	}
	d.heal()
	l.met = d.sickened()
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("ready on a disk that works again: %v", err)
	}
	if s.Stats().Failing {
		t.Error("it counts as failing on a disk that works again")
	}
	kept(t, s, l.told...)
	after := d.afterPowerLoss(t, rng)
	_ = s.Close() // without power
	vfs.Unregister(d.name)
	opts.VFS = after.name
	s = reopen(t, powerPath, opts)
	kept(t, s, l.told...)
	whole(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	vfs.Unregister(after.name)
}

// bulky is a transition of several pages.
func bulky(name string) transition {
	return func(c *conn) (registration.Verdict, error) {
		return registration.Applied, appendAudit(c, testScope, registration.Audit{TrackingID: name, Detail: strings.Repeat(name+" ", 2000)})
	}
}

func whole(t *testing.T, s *Store) {
	t.Helper()
	var verdict string
	err := s.read(context.WithoutCancel(t.Context()), func(c *conn) error {
		_, err := c.one(func(row *row) { verdict = row.text() }, "PRAGMA integrity_check(1)")
		return err
	})
	if err != nil || verdict != "ok" {
		t.Errorf("integrity: %q, %v", verdict, err)
	}
}

// Files that cannot be read any more are told as such, by the probe too, and read again when that is over.
func TestFilesThatCannotBeReadRefuseAndAreWellAgain(t *testing.T) {
	t.Parallel()
	s, d := openOnDisk(t, Options{Readers: 1, Linger: -1})
	verdict, err := s.write(t.Context(), bulky("before"))
	mustApply(t, verdict, err)
	d.sicken(sickness{err: sqlite3.IOERR_READ, reads: true}, 0)
	const public = "disk of the database fails"
	rows, err := s.AuditByTrackingID(t.Context(), testScope, "before")
	if trouble := registration.Trouble(err); trouble == nil || !strings.Contains(trouble.Public, public) {
		t.Errorf("%d rows, %v, want it to speak of %q", len(rows), err, public)
	}
	if is := s.Stats(); !d.sickened() || !is.Failing || is.FailedReads == 0 {
		t.Errorf("it does not count as failing: %+v", is)
	}
	d.heal()
	kept(t, s, "before")
	if err := s.Ready(t.Context()); err != nil || s.Stats().Failing {
		t.Errorf("on a disk that works again: %v, %+v", err, s.Stats())
	}
	whole(t, s)
}

// While the database alone cannot grow, the log takes what is written, up to a bound; then it is copied and starts over.
func TestTheLogIsBoundedWhileItCannotBeCopied(t *testing.T) {
	t.Parallel()
	const limit = 120
	s, d := openOnDisk(t, Options{Linger: -1, checkpointEvery: 10, checkpointForce: 30, checkpointLimit: limit})
	d.sickenFile(sickness{err: sqlite3.IOERR_WRITE, writes: true}, powerPath)
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		_, err = s.write(t.Context(), bulky(fmt.Sprint("log", i)))
	}
	if trouble := registration.Trouble(err); trouble == nil || !errors.Is(err, sqlite3.IOERR) {
		t.Fatalf("%v", err)
	}
	if n := s.writer.guard.frames.Load(); n < limit || n > limit+50 {
		t.Errorf("the log has %d pages, its bound is %d", n, limit)
	}
	if s.Stats().FailedCheckpoints == 0 {
		t.Error("no failed copy was counted")
	}
	d.heal()
	s.writer.checkpoint.tried = s.writer.checkpoint.tried.Add(-retryEvery) // a second later
	for i := range 5 {
		verdict, err := s.write(t.Context(), bulky(fmt.Sprint("healed", i)))
		mustApply(t, verdict, err)
	}
	if n := s.writer.guard.frames.Load(); n >= limit {
		t.Errorf("the log has not started over: %d pages", n)
	}
	kept(t, s, "log0", "healed4")
	whole(t, s)
}

// The writer copies the log itself when it has grown long, perhaps while the other copy is under way. SQLite lets one of the two go first, and nobody is to be told
// that another program has locked the database.
func TestTwoCopiesOfTheLogAtOnceAreNoTrouble(t *testing.T) {
	t.Parallel()
	s, d := openOnDisk(t, Options{Linger: -1})
	k := s.writer.checkpoint
	other, err := dialExisting(powerPath, d.name, "synchronous = FULL", "busy_timeout = 0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	for i := range 30 {
		verdict, err := s.write(t.Context(), bulky(fmt.Sprint("copied", i)))
		mustApply(t, verdict, err)
		var copies sync.WaitGroup
		copies.Go(func() { k.run(k.conn.db) })
		copies.Go(func() { k.run(other.db) })
		copies.Wait()
	}
	if failed := s.Stats().FailedCheckpoints; failed > 0 {
		t.Errorf("%d copies count as failed", failed)
	}
}
