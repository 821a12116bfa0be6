// Package telemetry makes the service's logger.
package telemetry

import (
	"bytes"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"
)

// NewLogger writes to w in the format "text" or "json"; the level can be changed while it is in use.
func NewLogger(w io.Writer, format string) (*slog.LevelVar, *slog.Logger) {
	level := new(slog.LevelVar)
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return level, slog.New(slog.NewJSONHandler(w, options))
	}
	return level, slog.New(slog.NewTextHandler(w, options))
}

// quietEvery is how often lines that strangers can cause at will are let through.
const quietEvery = time.Second

// Quiet is a logger for net/http's own complaints (failed handshakes, mostly), at debug level: strangers cause them at will, so at most one a
// second is written.
func Quiet(l *slog.Logger) *log.Logger { return log.New(&quiet{log: l}, "", 0) }

type quiet struct {
	log *slog.Logger

	mu     sync.Mutex
	last   time.Time
	missed int
}

func (q *quiet) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now(); now.Sub(q.last) >= quietEvery {
		q.log.Debug("http", "line", string(bytes.TrimSpace(line)), "missed", q.missed)
		q.last, q.missed = now, 0
		return len(line), nil
	}
	q.missed++
	return len(line), nil
}
