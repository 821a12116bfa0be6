package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// progress passes a file on and says how it goes, if anybody is there to see it.
type progress struct {
	io.Reader
	size        int64 // in bytes; 0: not known
	total       int64 // in lines, where size is not known; 0: not known either
	began       time.Time
	out         io.Writer
	visible     bool
	told        time.Time
	lines, sent atomic.Int64
}

func watch(in io.Reader, size int64, out io.Writer) *progress {
	return &progress{Reader: in, size: size, began: time.Now(), out: out, visible: terminal(out)}
}

// terminal says whether somebody may be looking who sees what was wiped away as gone.
func terminal(w io.Writer) bool { return device(w) && os.Getenv("TERM") != "dumb" }

// device says whether what is written may be on a screen.
func device(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Read counts what the service is sent. One goroutine reads; the other says failures, so a line of progress may stand between them.
func (p *progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	lines := p.lines.Add(int64(bytes.Count(b[:n], []byte("\n"))))
	sent := p.sent.Add(int64(n))
	if now := time.Now(); p.visible && now.Sub(p.told) > 500*time.Millisecond {
		p.told = now
		fmt.Fprint(p.out, "\r\x1b[K"+p.rate(lines, sent, now.Sub(p.began)))
	}
	return n, err
}

func (p *progress) rate(lines, sent int64, took time.Duration) string {
	if p.size == 0 {
		return rate(lines, lines, p.total, took)
	}
	return rate(lines, sent, p.size, took)
}

// rate is the line of progress: so much is done of all that there is, in any unit.
func rate(lines, done, all int64, took time.Duration) string {
	text := fmt.Sprintf("%d lines, %.0f a second", lines, float64(lines)/max(took.Seconds(), 0.001))
	if all > 0 && done > 0 {
		left := time.Duration(float64(took) * float64(max(all-done, 0)) / float64(done))
		text += fmt.Sprintf(", %d%%, %s left", min(100*done/all, 100), left.Round(time.Second))
	}
	return text
}

func (p *progress) say(format string, args ...any) {
	if p.visible {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintf(p.out, format, args...)
}

// end clears the line.
func (p *progress) end() {
	if p.visible {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
