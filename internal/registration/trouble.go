package registration

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// StoreTrouble is a Store's word for why it can neither write nor, perhaps, read: the machine's fault, not the request's. A Store wraps it around
// what it was told by the system.
type StoreTrouble struct {
	// Public is one sentence for anybody who may ask: it names no path and no address.
	Public string
	// Advice says what the operator has to do, with paths.
	Advice string
	Err    error
}

func (t *StoreTrouble) Error() string {
	text := t.Public
	if t.Advice != "" {
		text += " " + t.Advice
	}
	if t.Err != nil {
		text += " (" + t.Err.Error() + ")"
	}
	return text
}

// Unwrap gives what the system said.
func (t *StoreTrouble) Unwrap() error { return t.Err }

// Trouble finds the StoreTrouble in an error; nil if there is none.
func Trouble(err error) *StoreTrouble {
	var t *StoreTrouble
	errors.As(err, &t)
	return t
}

// complainEvery is how often what the store failed at is told: it fails at the speed of the network, and each request has a line of its own.
const complainEvery = 10 * time.Second

// complaints spaces lines of the log, by what they are about.
type complaints struct {
	mu     sync.Mutex
	last   map[string]time.Time
	missed map[string]int
}

// due says whether a line about something may be written, and how many were not since the last.
func (c *complaints) due(about string, now time.Time) (missed int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, told := c.last[about]; told && now.Sub(last) < complainEvery && !now.Before(last) {
		c.missed[about]++
		return 0, false
	}
	if c.last == nil {
		c.last, c.missed = map[string]time.Time{}, map[string]int{}
	}
	missed = c.missed[about]
	c.last[about], c.missed[about] = now, 0
	return missed, true
}

// complain logs what the store failed at; doing is one of few.
func (c *Core) complain(level slog.Level, doing string, err error) {
	if missed, ok := c.troubles.due(doing, c.now()); ok {
		c.log.Log(context.Background(), level, "store", "doing", doing, "err", err, "missed", missed)
	}
}

// notAdvanced logs why an operation stays assigning.
func (c *Core) notAdvanced(o Operation, err error) {
	if Trouble(err) != nil { // every operation's
		c.complain(slog.LevelWarn, "advancing an operation", err)
		return
	}
	c.log.Warn("advance", "operation", o.ID, "err", err)
}
