package sqlite

import (
	"context"
	"path/filepath"
	"testing"

	"latchkey.example/latchkey/internal/store/storetest"
)

func TestStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		opts := Options{VFS: newDisk(t).name, Readers: 2}
		if err := Create(context.Background(), powerPath, opts); err != nil {
			t.Fatal(err)
		}
		return reopen(t, powerPath, opts)
	})
}

// The same on the operating system's files, without the histories, whose hundred databases would mostly wait for the disk.
func TestStoreKeepsTheContractOnFiles(t *testing.T) {
	storetest.Sentences(t, func(t *testing.T) storetest.Store { return openNew(t, Options{}) })
}

// openNew makes a database of its own in the file system and opens it; the caller closes it.
func openNew(t testing.TB, opts Options) *Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "latchkey.db")
	if err := Create(context.Background(), path, opts); err != nil {
		t.Fatal(err)
	}
	return reopen(t, path, opts)
}

func reopen(t testing.TB, path string, opts Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
