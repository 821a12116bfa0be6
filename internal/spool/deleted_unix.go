//go:build unix

package spool

import (
	"errors"
	"os"
	"syscall"
)

// deleted says whether a file has no name any more; one that was moved has.
func deleted(file *os.File) bool {
	info, err := file.Stat()
	if err != nil {
		return false
	}
	system, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && system.Nlink == 0
}

// syncFolder makes the names in a folder durable. File systems that have no such thing say EINVAL; their names need it no more than others.
func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	err = folder.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, folder.Close())
}
