package sqlite

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// tellEvery is how often trouble that lasts is told again. A full disk must not fill the log too.
const tellEvery = time.Minute

// health is what is known of the disk: two kinds of work, each of which goes well or has been failing for some time.
type health struct {
	path    string
	cause   cause
	writing state
	reading state
}

// state is one kind of work.
type state struct {
	verb     string // "write" or "read"
	log      *slog.Logger
	failing  atomic.Bool
	failures atomic.Uint64

	mu      sync.Mutex
	trouble *registration.StoreTrouble
	since   time.Time
	told    time.Time
	missed  int // failures since they were told last
}

func newHealth(path, vfsName string, log *slog.Logger) *health {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &health{path: path, cause: newCause(path, vfsName), writing: state{verb: "write", log: log}, reading: state{verb: "read", log: log}}
}

// noted notes the machine's faults, and gives them their sentence.
func (h *health) noted(s *state, err error) error {
	if err != nil && s == &h.writing {
		err = h.cause.of(err)
	}
	err = trouble(h.path, err)
	if t := registration.Trouble(err); t != nil {
		s.failed(t)
	} else if err == nil || errors.Is(err, registration.ErrNotFound) {
		s.works()
	}
	return err
}

func (s *state) failed(t *registration.StoreTrouble) {
	s.failures.Add(1)
	s.failing.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, other := time.Now(), s.trouble == nil || s.trouble.Public != t.Public
	if s.trouble == nil {
		s.since = now
	}
	s.trouble = t
	s.missed++
	if !other && now.Sub(s.told) < tellEvery {
		return
	}
	s.log.Error("store: cannot "+s.verb, "trouble", t.Public, "do", t.Advice, "err", t.Err, "since", s.since.UTC(), "failed", s.missed)
	s.told, s.missed = now, 0
}

// works notes that work went well.
func (s *state) works() {
	if !s.failing.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble == nil {
		return
	}
	s.log.Info("store: can "+s.verb+" again", "trouble", s.trouble.Public, "after", time.Since(s.since).Round(time.Millisecond), "failed", s.missed)
	s.trouble, s.missed, s.told = nil, 0, time.Time{}
	s.failing.Store(false)
}

// Ready tries what is needed to serve: the files are in their places, a read works, and a write too, if the last one failed. Its error is a
// registration.StoreTrouble if the machine is at fault.
func (s *Store) Ready(ctx context.Context) error {
	if s.health.writing.failing.Load() || s.writer.guard.check() != nil {
		if err := s.probe(ctx); err != nil {
			return err
		}
	}
	_, err := s.Scopes(ctx)
	return err
}

// probe writes what is there already: the number of the schema, which costs a page of the log and a flush.
func (s *Store) probe(ctx context.Context) error {
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		var version int
		if _, err := c.one(func(r *row) { version = r.int() }, "PRAGMA user_version"); err != nil {
			return 0, err
		}
		return registration.Applied, c.setVersion(version)
	})
	return err
}
