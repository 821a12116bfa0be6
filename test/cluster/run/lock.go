package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopLimit is what an orderly end of all nodes may take.
const stopLimit = 90 * time.Second

// lockPath is beside the directory, which goes away.
func lockPath(dir string) string { return dir + ".lock" }

// claim makes the directory anew. While the returned file is open it is this process's, whose number stands in it.
func claim(dir string) (*os.File, error) {
	lock, err := os.OpenFile(lockPath(dir), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		pid := holder(lock)
		return nil, errors.Join(fmt.Errorf("one runs already (pid %d): use it, or end it with make cluster-stop", pid), lock.Close())
	}
	err = lock.Truncate(0)
	if err == nil {
		_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err == nil {
		err = os.RemoveAll(dir) // left by one that was killed
	}
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

func holder(lock *os.File) int {
	text := make([]byte, 20)
	n, _ := lock.ReadAt(text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid
}

// stop ends the process that holds the lock and waits until it lets go.
func stop(ctx context.Context, dir string) error {
	lock, err := os.OpenFile(lockPath(dir), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Println("no cluster runs here")
		return nil
	} else if err != nil {
		return err
	}
	defer lock.Close()
	if free(lock) {
		fmt.Println("no cluster runs here")
		return os.RemoveAll(dir) // left by one that was killed
	}
	pid := holder(lock)
	if pid <= 1 {
		return fmt.Errorf("%s does not name the process that holds it", filepath.Base(lock.Name()))
	}
	fmt.Printf("ending the cluster of pid %d\n", pid)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	for !free(lock) {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("pid %d has not ended: %w", pid, ctx.Err())
		}
	}
	return nil
}

// free tells whether nobody holds the lock.
func free(lock *os.File) bool {
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
