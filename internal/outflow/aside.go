package outflow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"latchkey.example/latchkey/internal/spool"
)

// asideLimit bounds the file of refused records. An output whose receiver refuses more than that stands still: something is wrong with more than a record.
const asideLimit = 64 << 20

// aside is the file of what a receiver refused. It is made when it is needed.
type aside struct {
	path string
	file *spool.LineFile
}

// keep has the line durable when it returns; first says that the file was begun with it.
func (a *aside) keep(line []byte) (first bool, err error) {
	info, err := os.Stat(a.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		first = true
	case err != nil:
		return false, err
	case info.Size() >= asideLimit:
		return false, fmt.Errorf("%s has %d MB of records that the receiver refused, so no more are set aside: look at it, and move it away to go on", a.path, asideLimit>>20)
	}
	if a.file == nil {
		if a.file, err = spool.OpenLineFile(spool.Disk{}, a.path); err != nil {
			return false, err
		}
	}
	if n := len(line); n == 0 || line[n-1] != '\n' {
		line = append(line, '\n')
	}
	return first, a.file.Append([][]byte{line})
}

func (a *aside) close() error {
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}
