package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/internal/registration"
)

const testScope = "0ne00000001"

// openOnDisk makes and opens a database on a new disk in memory.
func openOnDisk(t testing.TB, opts Options) (*Store, *disk) {
	t.Helper()
	d := newDisk(t)
	opts.VFS, opts.Readers = d.name, 1
	if err := Create(context.Background(), powerPath, opts); err != nil {
		t.Fatal(err)
	}
	s := reopen(t, powerPath, opts)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, d
}

func refused(id string) registration.Refused {
	return registration.Refused{ID: id, Audit: registration.Audit{TrackingID: id}}
}

func mustApply(t testing.TB, verdict registration.Verdict, err error) {
	t.Helper()
	if err != nil || verdict != registration.Applied {
		t.Fatalf("verdict %d, %v", verdict, err)
	}
}

func TestConcurrentTransitionsShareSyncs(t *testing.T) {
	t.Parallel()
	s, d := openOnDisk(t, Options{})
	const n = 500
	before, commits := d.syncCount("-wal"), s.Stats().Commits
	var callers sync.WaitGroup
	for i := range n {
		callers.Go(func() {
			verdict, err := s.Refuse(t.Context(), testScope, refused(fmt.Sprint("dev", i)))
			if err != nil || verdict != registration.Applied {
				t.Errorf("verdict %d, %v", verdict, err)
			}
		})
	}
	callers.Wait()
	syncs := d.syncCount("-wal") - before
	t.Logf("%d transitions, %d commits, %d syncs of the log", n, s.Stats().Commits-commits, syncs)
	if syncs > n/10 {
		t.Fatalf("%d concurrent transitions used %d syncs", n, syncs)
	}
	if syncs == 0 {
		t.Fatal("nothing was synced")
	}
}

// A linger of an hour would be seen.
func TestLoneTransitionDoesNotLinger(t *testing.T) {
	t.Parallel()
	s, d := openOnDisk(t, Options{Linger: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	verdict, err := s.Refuse(ctx, testScope, refused("first")) // it also syncs the header of the log
	mustApply(t, verdict, err)
	before := d.syncCount("-wal")
	for i := range 50 {
		verdict, err := s.Refuse(ctx, testScope, refused(fmt.Sprint("dev", i)))
		mustApply(t, verdict, err)
	}
	if syncs := d.syncCount("-wal") - before; syncs != 50 {
		t.Fatalf("50 transitions one after the other used %d syncs", syncs)
	}
}

// With company a commit waits for more: here for an hour, or until the batch is full.
func TestCompanyLingersUntilTheBatchIsFull(t *testing.T) {
	t.Parallel()
	s, _ := openOnDisk(t, Options{Linger: time.Hour})
	g := s.closeGate(t.Context())
	commits := s.Stats().Commits
	jobs := []*job{s.queued(t, writing("a", registration.Applied, nil)), s.queued(t, writing("b", registration.Applied, nil))}
	close(g.open)
	for len(s.writer.queue) > 0 { // both are gathered now, and wait
		runtime.Gosched()
	}
	for len(jobs) < batchLimit {
		jobs = append(jobs, s.queued(t, writing("more", registration.Applied, nil)))
	}
	for _, j := range jobs {
		if out := <-j.done; out.err != nil {
			t.Fatal(out.err)
		}
	}
	if n := s.Stats().Commits - commits; n != 2 { // the gate's and theirs
		t.Errorf("%d commits, want one for all that came during the linger", n)
	}
}

func TestLingerIsDecidedByEvidence(t *testing.T) {
	t.Parallel()
	const linger = 2 * time.Millisecond
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		name    string
		batch   int  // size of the last batch
		another bool // somebody waited before it was answered
		pause   time.Duration
		now     int // gathered now
		want    time.Duration
	}{
		{"alone", 1, false, 0, 1, 0},
		{"company in the last batch", 2, false, time.Millisecond, 1, linger},
		{"somebody came before the last was answered", 1, true, 0, 1, linger},
		{"company long ago", 5, true, time.Second, 1, 0},
		{"company now", 1, false, time.Second, 2, linger},
		{"a full batch", 5, true, 0, batchLimit, 0},
	} {
		p := pace{linger: linger}
		p.finished(start, c.batch, c.another)
		if got := p.wait(start.Add(c.pause), c.now); got != c.want {
			t.Errorf("%s: lingers %v, want %v", c.name, got, c.want)
		}
	}
	if got := (Options{}).withDefaults().Linger; got != linger {
		t.Errorf("the default linger is %v, want %v", got, linger)
	}
	never := pace{linger: -1}
	never.finished(start, 9, true)
	if got := never.wait(start, 9); got != 0 {
		t.Errorf("a store without linger lingers %v", got)
	}
}

// gate holds the writer inside a transition until it is opened, so that what is queued meanwhile makes one batch.
type gate struct {
	entered, open chan struct{}
	outcome       chan error
}

func (s *Store) closeGate(ctx context.Context) *gate {
	g := &gate{make(chan struct{}), make(chan struct{}), make(chan error, 1)}
	go func() {
		_, err := s.write(ctx, func(*conn) (registration.Verdict, error) {
			close(g.entered)
			<-g.open
			return registration.Applied, nil
		})
		g.outcome <- err
	}()
	<-g.entered
	return g
}

// queued puts a transition into the queue without waiting for its outcome.
func (s *Store) queued(t *testing.T, run transition) *job {
	t.Helper()
	j := &job{run: run, done: make(chan outcome, 1)}
	if err := s.writer.enqueue(j); err != nil {
		t.Fatal(err)
	}
	return j
}

// writing is a transition that appends an audit row and then ends as told.
func writing(name string, verdict registration.Verdict, err error) transition {
	return func(c *conn) (registration.Verdict, error) {
		if err := appendAudit(c, testScope, registration.Audit{TrackingID: name}); err != nil {
			return 0, err
		}
		return verdict, err
	}
}

func auditRows(t *testing.T, s *Store, name string) int {
	t.Helper()
	rows, err := s.AuditByTrackingID(t.Context(), testScope, name)
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}

func TestBatchMatesDoNotFailEachOther(t *testing.T) {
	t.Parallel()
	s, _ := openOnDisk(t, Options{Linger: -1})
	own := errors.New("the job's own error")
	g := s.closeGate(t.Context())
	commits := s.Stats().Commits
	constraint := func(c *conn) (registration.Verdict, error) {
		if _, err := writing("constraint", 0, nil)(c); err != nil {
			return 0, err
		}
		_, err := c.exec(`INSERT INTO revisions (scope, last) VALUES ('twice', 1), ('twice', 2)`)
		return registration.Applied, err
	}
	mates := []struct {
		name string
		job  *job
		want outcome
		rows int
	}{
		{"first", s.queued(t, writing("first", registration.Applied, nil)), outcome{}, 1},
		{"refused", s.queued(t, writing("refused", registration.Superseded, nil)), outcome{verdict: registration.Superseded}, 0},
		{"constraint", s.queued(t, constraint), outcome{err: sqlite3.CONSTRAINT}, 0},
		{"failing", s.queued(t, writing("failing", registration.Applied, own)), outcome{err: own}, 0},
		{"last", s.queued(t, writing("last", registration.Applied, nil)), outcome{}, 1},
	}
	close(g.open)
	for _, m := range mates {
		got := <-m.job.done
		if got.verdict != m.want.verdict || !errors.Is(got.err, m.want.err) {
			t.Errorf("%s: %+v, want %+v", m.name, got, m.want)
		}
		if n := auditRows(t, s, m.name); n != m.rows {
			t.Errorf("%s: %d rows, want %d", m.name, n, m.rows)
		}
	}
	if n := s.Stats().Commits - commits; n != 2 { // the gate's and theirs
		t.Errorf("%d commits, want the mates to share one", n)
	}
}

func TestFullDiskFailsTheBatchAndNothingAfterIt(t *testing.T) {
	t.Parallel()
	s, d := openOnDisk(t, Options{})
	g := s.closeGate(t.Context())
	var jobs []*job
	for i := range 3 {
		jobs = append(jobs, s.queued(t, writing(fmt.Sprint("full", i), registration.Applied, nil)))
	}
	// A verdict that rests on what batch mates wrote falls with them.
	jobs = append(jobs, s.queued(t, writing("refused", registration.Conflict, nil)))
	d.setFull(true)
	close(g.open) // the gate itself writes nothing, so a full disk does not hurt it
	for i, j := range jobs {
		if out := <-j.done; !errors.Is(out.err, sqlite3.FULL) {
			t.Errorf("job %d: %+v, want a full disk", i, out)
		}
	}
	d.setFull(false)
	for i := range 3 {
		if n := auditRows(t, s, fmt.Sprint("full", i)); n != 0 {
			t.Errorf("job %d left %d rows", i, n)
		}
	}
	verdict, err := s.Refuse(t.Context(), testScope, refused("after"))
	mustApply(t, verdict, err)
	if n := auditRows(t, s, "after"); n != 1 {
		t.Fatalf("%d rows after the disk had room again", n)
	}
}

func TestFullQueueRefuses(t *testing.T) {
	t.Parallel()
	s, _ := openOnDisk(t, Options{})
	g := s.closeGate(t.Context())
	var jobs []*job
	for range queueLimit {
		jobs = append(jobs, s.queued(t, func(*conn) (registration.Verdict, error) { return registration.Applied, nil }))
	}
	if _, err := s.Refuse(t.Context(), testScope, refused("dev")); !errors.Is(err, ErrQueueFull) {
		t.Errorf("%v, want a full queue", err)
	}
	close(g.open)
	for _, j := range jobs {
		if out := <-j.done; out.err != nil {
			t.Fatal(out.err)
		}
	}
	verdict, err := s.Refuse(t.Context(), testScope, refused("dev"))
	mustApply(t, verdict, err)
}

func TestCallerThatGivesUpInTheQueueChangesNothing(t *testing.T) {
	t.Parallel()
	s, _ := openOnDisk(t, Options{})
	g := s.closeGate(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Refuse(ctx, testScope, refused("dev"))
		done <- err
	}()
	for len(s.writer.queue) == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("%v, want canceled and certain", err)
	}
	close(g.open)
	verdict, err := s.Refuse(t.Context(), testScope, refused("dev")) // generation 0 is still there to be spent
	mustApply(t, verdict, err)
}

func TestCallerThatGivesUpDuringTheWriteIsToldSo(t *testing.T) {
	t.Parallel()
	s, _ := openOnDisk(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	g := s.closeGate(ctx)
	cancel()
	if err := <-g.outcome; !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want an unknown outcome", err)
	}
	close(g.open)
	verdict, err := s.Refuse(t.Context(), testScope, refused("dev"))
	mustApply(t, verdict, err)
}

func TestCloseFinishesWhatWaits(t *testing.T) {
	t.Parallel()
	path, opts := t.TempDir()+"/latchkey.db", Options{}
	if err := Create(t.Context(), path, opts); err != nil {
		t.Fatal(err)
	}
	s := reopen(t, path, opts)
	g := s.closeGate(t.Context())
	j := s.queued(t, writing("queued", registration.Applied, nil))
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	close(g.open)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if out := <-j.done; out.err != nil {
		t.Fatal(out.err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	s = reopen(t, path, opts)
	defer s.Close()
	if n := auditRows(t, s, "queued"); n != 1 {
		t.Fatalf("%d rows of the transition that waited", n)
	}
}

// The audit cannot be changed, not even by a transition of ours.
func TestAuditIsAppendOnly(t *testing.T) {
	t.Parallel()
	s, _ := openOnDisk(t, Options{})
	verdict, err := s.Refuse(t.Context(), testScope, refused("dev"))
	mustApply(t, verdict, err)
	for _, sql := range []string{`DELETE FROM audit`, `UPDATE audit SET outcome = 'ok'`} {
		_, err := s.write(t.Context(), func(c *conn) (registration.Verdict, error) {
			_, err := c.exec(sql)
			return registration.Applied, err
		})
		if !errors.Is(err, sqlite3.CONSTRAINT) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if n := auditRows(t, s, "dev"); n != 1 {
		t.Fatalf("%d rows", n)
	}
}
