//go:build unix

package daemon

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How often the lock is tried. A process that starts another one shares its files with it for the moment until the new program runs, so a lock
// that was just given up may be held for some milliseconds more.
const (
	lockTries = 6
	lockPause = 50 * time.Millisecond
)

// lockInstallation makes sure that one service alone runs on a database: the sessions of an in-process hub have one owner, and a second service
// would not see a key change that the first one made. Migrating and copying it take the lock too. The lock ends with the process, however it ends.
func lockInstallation(database string) (*os.File, error) {
	f, err := lockFile(database + ".lock")
	for try := 1; try < lockTries && errors.Is(err, unix.EWOULDBLOCK); try++ {
		time.Sleep(lockPause)
		f, err = lockFile(database + ".lock")
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another latchkey runs on %s; stop it first", database)
	}
	return f, err
}

// lockFile takes a lock that ends with the process; EWOULDBLOCK if another one has it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
