package pgserver

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

const (
	dirs     = "latchkey-pg-"
	lockName = "in-use"
)

// memory is a directory that lies in memory; "" means the usual place for temporary files.
func memory() string {
	const shm = "/dev/shm"
	var fs syscall.Statfs_t
	if syscall.Statfs(shm, &fs) == nil && fs.Bavail*uint64(fs.Bsize) > 2<<30 {
		return shm
	}
	return ""
}

// claimDir makes a directory that is in use while the returned file is open, and removes those of tests that were killed: in memory
// they would stay until the machine starts anew.
func claimDir(parent string) (dir string, lock *os.File, err error) {
	if parent == "" {
		parent = os.TempDir()
	}
	left, _ := filepath.Glob(filepath.Join(parent, dirs+"*", lockName))
	for _, path := range left {
		sweep(path)
	}
	if dir, err = os.MkdirTemp(parent, dirs); err != nil {
		return "", nil, err
	}
	// The name comes once the lock is held, so that nobody sweeps what is just being made.
	if lock, err = os.CreateTemp(dir, lockName+"-"); err == nil {
		err = errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), os.Rename(lock.Name(), filepath.Join(dir, lockName)))
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, lock, nil
}

// sweep removes the directory of a lock that nobody holds. What belongs to another user is left.
func sweep(lock string) {
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		_ = os.RemoveAll(filepath.Dir(lock))
	}
}
