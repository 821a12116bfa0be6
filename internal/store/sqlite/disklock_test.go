package sqlite

import (
	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// The five lock states of https://sqlite.org/lockingv3.html over all handles of an inode. Nothing waits here: SQLite's busy
// handler tries again.

// Lock implements vfs.File.
func (h *handle) Lock(lock vfs.LockLevel) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.inode
	switch {
	case h.lock >= lock:
		return nil
	case lock == vfs.LOCK_SHARED:
		if f.pendingLock {
			return sqlite3.BUSY
		}
		f.shared++
	case lock == vfs.LOCK_RESERVED:
		if f.reserved {
			return sqlite3.BUSY
		}
		f.reserved = true
	case lock == vfs.LOCK_EXCLUSIVE:
		if f.reserved && h.lock < vfs.LOCK_RESERVED || f.pendingLock && h.lock < vfs.LOCK_PENDING {
			return sqlite3.BUSY
		}
		f.reserved, f.pendingLock, h.lock = true, true, vfs.LOCK_PENDING
		if f.shared > 1 {
			return sqlite3.BUSY
		}
	}
	h.lock = lock
	return nil
}

// Unlock implements vfs.File.
func (h *handle) Unlock(lock vfs.LockLevel) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.inode
	if h.lock <= lock {
		return nil
	}
	if h.lock >= vfs.LOCK_RESERVED {
		f.reserved = false
	}
	if h.lock >= vfs.LOCK_PENDING {
		f.pendingLock = false
	}
	if lock == vfs.LOCK_NONE {
		f.shared--
	}
	h.lock = lock
	return nil
}

// CheckReservedLock implements vfs.File.
func (h *handle) CheckReservedLock() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inode.reserved, nil
}

// LockState implements vfs.FileLockState.
func (h *handle) LockState() vfs.LockLevel { return h.lock }
