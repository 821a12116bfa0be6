package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// chunk is how much is written by one system call, lines whole.
const chunk = 256 << 10

// LineFile appends lines to a file, which programs may read and rotate meanwhile. What Append has acknowledged survives the end of the process and,
// with honest disks, of the machine; a pipe or a device only gets it. All methods are safe together.
type LineFile struct {
	fs   FS
	path string

	mu   sync.Mutex
	file File
	torn bool // the file may not end with a whole line
	buf  []byte
}

// OpenLineFile opens or creates the file (mode 0640, less the umask) for appending.
func OpenLineFile(fs FS, path string) (*LineFile, error) {
	file, torn, err := openLines(fs, path)
	if err != nil {
		return nil, err
	}
	return &LineFile{fs: fs, path: path, file: file, torn: torn}, nil
}

// openLines also looks whether the last line is whole: a process that died may have left half of one. The name is durable when it returns.
func openLines(fs FS, path string) (file File, torn bool, err error) {
	file, err = fs.Open(path, os.O_RDWR|os.O_APPEND|os.O_CREATE)
	if err != nil || !file.Plain() {
		return file, false, err
	}
	size, err := file.Size()
	if err == nil {
		err = fs.SyncFolder(filepath.Dir(path))
	}
	if err != nil || size == 0 {
		return file, false, closeOn(file, err)
	}
	last := make([]byte, 1)
	_, err = file.ReadAt(last, size-1)
	return file, last[0] != '\n', closeOn(file, err)
}

func closeOn(file File, err error) error {
	if err != nil {
		file.Close()
	}
	return err
}

// Append appends lines, each of which ends with a line feed, and returns when they are durable. After an error the next line still starts on a line of
// its own; those of the failed call may stand there in part. A file that was deleted is made anew: what is written to it would be nobody's.
func (f *LineFile) Append(lines [][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return fs.ErrClosed
	}
	if err := f.appendLocked(lines); err != nil || !f.file.Deleted() {
		return err
	}
	file, torn, err := openLines(f.fs, f.path)
	if err != nil {
		return err
	}
	f.file.Close()
	f.file, f.torn = file, torn
	return f.appendLocked(lines)
}

// appendLocked notes whether the file may end in the middle of a line: after a write that failed in part, and after a sync that failed, since nobody
// knows then what is on the disk.
func (f *LineFile) appendLocked(lines [][]byte) error {
	buf := f.buf[:0]
	if f.torn {
		buf = append(buf, '\n')
	}
	for _, line := range lines {
		if len(buf) > 0 && len(buf)+len(line) > chunk {
			if err := f.writeLocked(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
		buf = append(buf, line...)
	}
	if err := f.writeLocked(buf); err != nil {
		return err
	}
	if f.buf = buf[:0]; cap(buf) > 2*chunk {
		f.buf = nil
	}
	err := syncPlain(f.file)
	f.torn = err != nil
	return err
}

func (f *LineFile) writeLocked(p []byte) error {
	n, err := f.file.Write(p)
	f.torn = f.torn && n == 0 || err != nil && n > 0
	return err
}

// Reopen opens the path anew, for use after a rotation. What was acknowledged is durable in the old file already. If it fails, the old file stays in use.
func (f *LineFile) Reopen() error {
	file, torn, err := openLines(f.fs, f.path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return errors.Join(fs.ErrClosed, file.Close())
	}
	old := f.file
	f.file, f.torn = file, torn
	return errors.Join(syncPlain(old), f.fs.SyncFolder(filepath.Dir(f.path)), old.Close())
}

func syncPlain(file File) error {
	if !file.Plain() {
		return nil
	}
	return file.Sync()
}

// Close ends it; writes fail from then on.
func (f *LineFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	file := f.file
	f.file = nil
	return file.Close()
}
