package disk

import (
	"testing"

	"golang.org/x/sys/unix"
)

// limitFiles bounds the size of the files that the service may write.
func (h *house) limitFiles(size uint64) {
	h.t.Helper()
	var old unix.Rlimit
	if err := unix.Prlimit(h.PID(), unix.RLIMIT_FSIZE, nil, &old); err != nil {
		h.t.Fatal(err)
	}
	if err := unix.Prlimit(h.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: min(size, old.Max), Max: old.Max}, nil); err != nil {
		h.t.Fatal(err)
	}
}

const noLimit = ^uint64(0)

// Devices register and an operator works while the disk fills up, and again.
func TestOnAFullDiskEverybodyIsRefusedAndAllGoesOnWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	h := busy(t)
	for range 2 {
		h.limitFiles(4096)
		h.unserved()
		h.troubled("The disk of the database is full.", "Make room on the file system of "+h.DataDir)
		if _, err := h.Latchkey(t.Context(), "enroll", "list"); err != nil {
			t.Errorf("reading needs no room: %v", err)
		}
		h.challenged()
		h.limitFiles(noLimit)
		h.healed()
		if _, err := h.Latchkey(t.Context(), "enroll", "remove", "afterwards", "--yes"); err != nil {
			t.Error(err)
		}
	}
	h.quiet()
	h.holds()
}
