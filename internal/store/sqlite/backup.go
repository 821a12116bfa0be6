package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Backup copies the database at path, as it is at one moment, into a file that must not exist. A service may run on it meanwhile: nothing waits for
// the copy, which reads its own snapshot. What is acknowledged before the call is in it.
func Backup(ctx context.Context, path, into string) (err error) {
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	if into, err = filepath.Abs(into); err != nil {
		return err
	}
	// VACUUM INTO would take an empty file for its own; made here, it is readable by its owner only.
	file, err := os.OpenFile(into, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(into)
		}
	}()
	c, err := dialExisting(path, "", "synchronous = FULL")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := checkSchema(c, path); err != nil {
		return err
	}
	c.db.SetInterrupt(ctx)
	if _, err := c.exec(`VACUUM INTO ?1`, into); err != nil {
		room := newCause(into, "")
		if err = room.of(err); isFull(err) {
			return fmt.Errorf("there is no room beside the database for a copy of it: make as much room in %s as it takes (%w)", filepath.Dir(filepath.Dir(into)), err)
		}
		return fmt.Errorf("copying the database: %w", err)
	}
	return syncFile(into)
}

func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
