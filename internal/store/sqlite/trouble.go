package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/internal/registration"
)

// fullDisk are the system's words for no room: on the disk, in a quota, in the limit of a process.
var fullDisk = []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}

// trouble wraps an error of the machine's into a sentence that says what to do, and leaves every other as it is.
func trouble(path string, err error) error {
	if err == nil || registration.Trouble(err) != nil {
		return err
	}
	t := &registration.StoreTrouble{Err: err}
	switch dir := filepath.Dir(path); {
	case isFull(err):
		t.Public = "The disk of the database is full."
		t.Advice = fmt.Sprintf("Make room on the file system of %s; the service goes on by itself.", dir)
	case errors.Is(err, syscall.EROFS), errors.Is(err, sqlite3.READONLY):
		t.Public = "The database cannot be written: it is read-only."
		t.Advice = fmt.Sprintf("Look why the file system of %s is read-only (the kernel's log says so after a disk error), check it and mount it for writing; the service goes on by itself.", dir)
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.NOTADB):
		t.Public = "The database is damaged."
		t.Advice = fmt.Sprintf("Stop the service, keep %s aside, and restore a backup.", path)
	case errors.Is(err, sqlite3.IOERR), errors.Is(err, sqlite3.CANTOPEN):
		t.Public = "The disk of the database fails."
		t.Advice = fmt.Sprintf("Look after the disk of %s; the service goes on by itself when it works again.", dir)
	case errors.Is(err, sqlite3.BUSY), errors.Is(err, sqlite3.PROTOCOL):
		t.Public = "The database is locked by another program."
		t.Advice = fmt.Sprintf("Find out which program holds %s open; the service goes on by itself.", path)
	default:
		return err
	}
	return t
}

// atStart wraps an error of opening into a sentence that says what to do before the next start. Those that say so already it leaves as they are.
func atStart(path, vfsName string, err error) error {
	c := newCause(path, vfsName)
	dir := filepath.Dir(path)
	switch err = c.of(err); {
	case isFull(err):
		return fmt.Errorf("the disk of %s is full: make room on the file system of %s and start again (%w)", path, dir, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the file system of %s is read-only: mount it for writing and start again (%w)", path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this account may not read and write %s and its folder: make it the owner of %s and all in it, or run as the account that is (%w)", path, dir, err)
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.NOTADB), errors.Is(err, sqlite3.IOERR_SHORT_READ):
		return fmt.Errorf("%s is damaged or cut: keep it and the files beside it aside, and restore a backup with `latchkey restore` (%w)", path, err)
	}
	return err
}

func isFull(err error) bool {
	for _, full := range fullDisk {
		if errors.Is(err, full) {
			return true
		}
	}
	return errors.Is(err, sqlite3.FULL)
}
