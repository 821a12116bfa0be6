//go:build unix

package daemon

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// bootID names the run of the kernel; a machine that started anew, or another one, has another.
const bootID = "/proc/sys/kernel/random/boot_id"

// hubMark is a file beside the telemetry that holds under which ids processes at this place had, or were about to have, the hub. It is locked as long as
// the process lives, so that whoever gets the lock knows that those which wrote the file are dead, and their sessions with them. All of them count, not the
// last alone: one that was killed right before it took the hub has left the owner that it found. A file that was copied, or
// read on another machine, says nothing: each line names the file that it is in and the run of the kernel.
type hubMark struct {
	file  *os.File
	place string
	dead  []string
}

// markSize is where a file is begun anew, with the last ids that it held: markKept of them. Who has been killed between these two has a successor who waits
// for the lease.
const (
	markSize = 4096
	markKept = 8
)

func openHubMark(telemetry string) (*hubMark, error) {
	f, err := os.OpenFile(telemetry+".owner", os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	m := &hubMark{file: f}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another latchkey serve writes the telemetry %s; stop it first", telemetry)
	}
	if err := m.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return m, nil
}

func (m *hubMark) read() error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(m.file.Fd()), &stat); err != nil {
		return err
	}
	boot, err := os.ReadFile(bootID)
	if err != nil { // not Linux: the successor waits for the lease
		return nil
	}
	m.place = fmt.Sprintf("%s %d:%d", strings.TrimSpace(string(boot)), stat.Dev, stat.Ino)
	content, err := io.ReadAll(io.LimitReader(m.file, 2*markSize))
	for line := range strings.Lines(string(content)) {
		if id, found := strings.CutSuffix(line, " "+m.place+"\n"); found {
			m.dead = append(m.dead, id)
		}
	}
	if err == nil && len(content) > markSize {
		err = m.shorten()
	}
	return err
}

func (m *hubMark) shorten() error {
	if err := m.file.Truncate(0); err != nil {
		return err
	}
	for _, id := range m.dead[max(0, len(m.dead)-markKept):] {
		if err := m.Set(id); err != nil {
			return err
		}
	}
	return nil
}

// Dead implements embedded.Mark.
func (m *hubMark) Dead(id string) bool { return slices.Contains(m.dead, id) }

// Set implements embedded.Mark. The line is added in one write, on a line of its own whatever was there before, so that no kill takes what was there.
func (m *hubMark) Set(id string) error {
	if m.place == "" {
		return nil
	}
	_, err := m.file.WriteString("\n" + id + " " + m.place + "\n")
	return err
}

// Close gives up the lock.
func (m *hubMark) Close() error { return m.file.Close() }
