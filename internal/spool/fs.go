package spool

import (
	"os"
	"path/filepath"
	"slices"
)

// FS is what this room asks of a file system. What a file was synced with, and a name whose folder was synced after it was made, survives the power's
// loss; of everything else any part may. Tests have one that keeps nothing more than that.
type FS interface {
	// Open is os.OpenFile; a file that it makes has mode 0640, less the umask.
	Open(name string, flag int) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// Names are those in a folder, sorted. A folder that is not there is an error of fs.ErrNotExist.
	Names(folder string) ([]string, error)
	// MakeFolder makes one and those above it that are missing, and syncs their names.
	MakeFolder(name string) error
	SyncFolder(name string) error
}

// File is an open file of an FS.
type File interface {
	Write(p []byte) (int, error)
	ReadAt(p []byte, offset int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
	Size() (int64, error)
	// Plain says that it is a regular file: pipes, terminals and devices can be neither synced nor cut.
	Plain() bool
	// Deleted says that it has no name any more; one that was moved has.
	Deleted() bool
}

// Disk is the FS of the operating system.
type Disk struct{}

// Open implements FS.
func (Disk) Open(name string, flag int) (File, error) {
	file, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return diskFile{file}, nil
}

// Rename implements FS.
func (Disk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (Disk) Remove(name string) error { return os.Remove(name) }

// Names implements FS.
func (Disk) Names(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, err
}

// MakeFolder implements FS.
func (d Disk) MakeFolder(name string) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	above := filepath.Dir(name)
	if above != name {
		if err := d.MakeFolder(above); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(name, 0o750); err != nil {
		return err
	}
	return d.SyncFolder(above)
}

// SyncFolder implements FS.
func (Disk) SyncFolder(name string) error { return syncFolder(name) }

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f diskFile) Plain() bool {
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

func (f diskFile) Deleted() bool { return deleted(f.File) }
