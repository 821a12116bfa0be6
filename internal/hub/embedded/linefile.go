package embedded

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// LineFile appends lines to a file, which programs may read and rotate meanwhile. A line that Write has acknowledged is with
// the operating system: it survives the end of this process, not that of the machine. All methods are safe together.
type LineFile struct {
	path string

	mu   sync.Mutex
	file *os.File
	torn bool // the file does not end with a whole line
}

// OpenLineFile opens or creates the file (mode 0640, less the umask) for appending.
func OpenLineFile(path string) (*LineFile, error) {
	file, torn, err := openLines(path)
	if err != nil {
		return nil, err
	}
	return &LineFile{path: path, file: file, torn: torn}, nil
}

// openLines also looks whether the last line is whole: a process that died may have left half of one.
func openLines(path string) (file *os.File, torn bool, err error) {
	file, err = os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, false, err
	}
	info, err := file.Stat()
	if err != nil || info.Size() == 0 || !info.Mode().IsRegular() {
		return file, false, closeOn(file, err)
	}
	last := make([]byte, 1)
	_, err = file.ReadAt(last, info.Size()-1)
	return file, last[0] != '\n', closeOn(file, err)
}

func closeOn(file io.Closer, err error) error {
	if err != nil {
		file.Close()
	}
	return err
}

// Write appends one line, which ends with a line feed, in one system call. After an error the next line still starts on a line
// of its own; the failed one may stand there in part. A file that was deleted is made anew: what is written to it would be nobody's.
func (f *LineFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return 0, fs.ErrClosed
	}
	n, err := f.writeLocked(line)
	if err != nil || !deleted(f.file) {
		return n, err
	}
	file, torn, err := openLines(f.path)
	if err != nil {
		return 0, err
	}
	f.file.Close()
	f.file, f.torn = file, torn
	return f.writeLocked(line)
}

func (f *LineFile) writeLocked(line []byte) (int, error) {
	if f.torn {
		if _, err := f.file.Write([]byte("\n")); err != nil {
			return 0, err
		}
		f.torn = false
	}
	n, err := f.file.Write(line)
	f.torn = err != nil && n > 0
	return n, err
}

// Reopen opens the path anew, for use after a rotation. If that fails, the old file stays in use.
func (f *LineFile) Reopen() error {
	file, torn, err := openLines(f.path)
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
	return old.Close()
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
