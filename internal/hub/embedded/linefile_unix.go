//go:build unix

package embedded

import (
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
