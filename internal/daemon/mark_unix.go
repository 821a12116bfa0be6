//go:build unix

package daemon

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// bootID names the run of the kernel; a machine that started anew, or another one, has another.
const bootID = "/proc/sys/kernel/random/boot_id"

// hubMark is a file beside the telemetry that holds under which id this process has the hub. It is locked as long as the process lives, so that whoever
// gets the lock knows that the process which wrote the file is dead, and its sessions with it. A file that was copied, or read on another machine, says
// nothing: it names the file that it is and the run of the kernel.
type hubMark struct {
	file   *os.File
	place  string
	before string
}

func openHubMark(telemetry string) (*hubMark, error) {
	f, err := os.OpenFile(telemetry+".owner", os.O_CREATE|os.O_RDWR, 0o600)
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
	content, err := io.ReadAll(io.LimitReader(m.file, 1024))
	if id, found := strings.CutSuffix(string(content), " "+m.place+"\n"); found {
		m.before = id
	}
	return err
}

// Before implements embedded.Mark.
func (m *hubMark) Before() string { return m.before }

// Set implements embedded.Mark.
func (m *hubMark) Set(id string) error {
	if m.place == "" {
		return nil
	}
	if err := m.file.Truncate(0); err != nil {
		return err
	}
	_, err := m.file.WriteAt([]byte(id+" "+m.place+"\n"), 0)
	return err
}

// Close gives up the lock.
func (m *hubMark) Close() error { return m.file.Close() }
