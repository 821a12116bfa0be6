package sqlite

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// disk is a file layer in memory that keeps what was written apart from what was synced, as a disk with a volatile
// cache does, and that can lose its power at a chosen call.
//
// A file's bytes are safe after Sync of it. A file's name is safe after the directory was synced, which SQLite asks for with the
// first sync of a journal or log it has created, or with a delete. The WAL index is shared memory and never survives.
type disk struct {
	name   string
	shmDir string

	mu      sync.Mutex
	files   map[string]*inode // the directory as programs see it
	platter map[string]*inode // the directory as it is safe
	calls   int
	cutAt   int // the call at which the power goes; 0: never
	cutSync int // the sync of the log at which it goes, counted down; 0: never
	dead    bool
	full    bool // writes fail with "disk full"
	sick    sick
	syncs   map[string]int
}

// inode is one file.
type inode struct {
	data    []byte // as programs see it
	safe    []byte
	pending []change // since the last sync

	shared                int // lock counts over all handles
	reserved, pendingLock bool
}

// change is a write or, with nil bytes, a truncation.
type change struct {
	offset int64
	bytes  []byte
}

func (c change) apply(data []byte) []byte {
	if c.bytes == nil {
		return resize(data, c.offset)
	}
	if end := c.offset + int64(len(c.bytes)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[c.offset:], c.bytes)
	return data
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return data[:size:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

// newDisk registers an empty disk under a name of its own.
func newDisk(t testing.TB) *disk {
	d := &disk{files: map[string]*inode{}, platter: map[string]*inode{}}
	d.plugIn(t)
	return d
}

var diskNumber atomic.Int64

func (d *disk) plugIn(t testing.TB) {
	d.name = fmt.Sprintf("disk%d", diskNumber.Add(1))
	d.shmDir = t.TempDir()
	d.syncs = map[string]int{}
	vfs.Register(d.name, d)
	name := d.name // and not d, so that a disk unplugged earlier is not kept till then
	t.Cleanup(func() { vfs.Unregister(name) })
}

// callLocked counts a call that changes something and cuts the power at the chosen one. A write that meets the cut has reached the cache,
// where it may be torn; everything else that meets it has not happened.
func (d *disk) callLocked() error {
	d.calls++
	if d.cutAt > 0 && d.calls >= d.cutAt {
		d.dead = true
	}
	return d.aliveLocked()
}

func (d *disk) aliveLocked() error {
	if d.dead {
		return sqlite3.IOERR
	}
	return nil
}

// cut takes the power away now.
func (d *disk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

// afterPowerLoss is a new disk with what survived: all that was synced, and of the rest what the cache happened to have written out:
// nothing, a prefix whose last write is torn, or any subset with any write torn.
func (d *disk) afterPowerLoss(t testing.TB, rng *rand.Rand) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	after := &disk{files: map[string]*inode{}, platter: map[string]*inode{}}
	mode := rng.IntN(3)
	survivors := maps.Clone(d.platter)
	for _, name := range slices.Sorted(maps.Keys(d.names())) {
		if d.files[name] != d.platter[name] && mode != 0 && rng.IntN(2) == 0 {
			survivors[name] = d.files[name]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(survivors)) {
		if from := survivors[name]; from != nil {
			bytes := from.survive(mode, rng)
			after.files[name] = &inode{data: bytes, safe: slices.Clone(bytes)}
		}
	}
	after.platter = maps.Clone(after.files)
	after.plugIn(t)
	return after
}

func (d *disk) names() map[string]*inode {
	names := maps.Clone(d.files)
	maps.Copy(names, d.platter)
	return names
}

func (f *inode) survive(mode int, rng *rand.Rand) []byte {
	data := slices.Clone(f.safe)
	prefix := rng.IntN(len(f.pending) + 1)
	for i, c := range f.pending {
		switch {
		case mode == 0, mode == 1 && i > prefix, mode == 2 && rng.IntN(3) == 0:
			continue
		case c.bytes != nil && (mode == 1 && i == prefix || mode == 2 && rng.IntN(3) == 0):
			c = tear(c, rng)
		}
		data = c.apply(data)
	}
	return data
}

// tear keeps a part of a write: up to some byte, or from some sector on.
func tear(c change, rng *rand.Rand) change {
	at := rng.IntN(len(c.bytes) + 1)
	if rng.IntN(2) == 0 {
		return change{c.offset, c.bytes[:at:at]}
	}
	at -= at % 512
	return change{c.offset + int64(at), c.bytes[at:]}
}

// Open implements vfs.VFS.
func (d *disk) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	if name == "" {
		return &vfsutil.SliceFile{}, flags, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.callLocked(); err != nil {
		return nil, 0, err
	}
	file := d.files[name]
	if file == nil {
		if flags&vfs.OPEN_CREATE == 0 {
			return nil, 0, sqlite3.CANTOPEN
		}
		file = &inode{}
		d.files[name] = file
	}
	journal := flags&(vfs.OPEN_MAIN_JOURNAL|vfs.OPEN_SUPER_JOURNAL|vfs.OPEN_WAL) != 0
	return &handle{
		disk: d, inode: file, name: name,
		syncsDir: journal && flags&vfs.OPEN_CREATE != 0,
		shm:      vfs.NewSharedMemory(filepath.Join(d.shmDir, filepath.Base(name)+"-shm"), flags),
	}, flags, nil
}

// Delete implements vfs.VFS.
func (d *disk) Delete(name string, syncDir bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.callLocked(); err != nil {
		return err
	}
	if d.files[name] == nil {
		return sqlite3.IOERR_DELETE_NOENT
	}
	delete(d.files, name)
	if syncDir {
		d.platter = maps.Clone(d.files)
	}
	return nil
}

// Access implements vfs.VFS.
func (d *disk) Access(name string, _ vfs.AccessFlag) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[name] != nil, d.aliveLocked()
}

// FullPathname implements vfs.VFS.
func (d *disk) FullPathname(name string) (string, error) { return name, nil }

// handle is an open file.
type handle struct {
	*disk
	inode    *inode
	name     string
	syncsDir bool // the next sync is of the directory too
	lock     vfs.LockLevel
	shm      vfs.SharedMemory
}

var _ vfs.FileSharedMemory = (*handle)(nil)

// SharedMemory implements vfs.FileSharedMemory.
func (h *handle) SharedMemory() vfs.SharedMemory { return h.shm }

// Close implements vfs.File.
func (h *handle) Close() error {
	if h.shm != nil {
		h.shm.Close()
	}
	return h.Unlock(vfs.LOCK_NONE)
}

// ReadAt implements vfs.File.
func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.aliveLocked(); err != nil {
		return 0, err
	}
	if h.sick.on && h.sick.reads {
		h.sick.calls++
		return 0, h.sick.err
	}
	if off >= int64(len(h.inode.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.inode.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements vfs.File.
func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.aliveLocked(); err != nil {
		return 0, err
	}
	if h.full {
		return 0, sqlite3.FULL
	}
	if err := h.fails(h.name, true); err != nil {
		if half := len(p) / 2; h.sick.calls%2 == 0 { // as a full disk does, now and then
			h.inode.change(change{off, append([]byte{}, p[:half]...)})
		}
		return 0, err
	}
	h.inode.change(change{off, append([]byte{}, p...)})
	if err := h.callLocked(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Truncate implements vfs.File.
func (h *handle) Truncate(size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.callLocked(); err != nil {
		return err
	}
	h.inode.change(change{size, nil})
	return nil
}

func (f *inode) change(c change) {
	f.data = c.apply(f.data)
	f.pending = append(f.pending, c)
}

// Sync implements vfs.File.
func (h *handle) Sync(vfs.SyncFlag) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cutSync > 0 && strings.HasSuffix(h.name, "-wal") {
		h.cutSync--
		h.dead = h.dead || h.cutSync == 0
	}
	if err := h.callLocked(); err != nil {
		return err
	}
	if err := h.fails(h.name, false); err != nil {
		return err
	}
	h.syncs[filepath.Base(h.name)]++
	for _, c := range h.inode.pending {
		h.inode.safe = c.apply(h.inode.safe)
	}
	h.inode.pending = nil
	if h.syncsDir {
		h.syncsDir = false
		h.platter = maps.Clone(h.files)
	}
	return nil
}

// Size implements vfs.File.
func (h *handle) Size() (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(len(h.inode.data)), h.aliveLocked()
}

// HasMoved implements vfs.FileHasMoved.
func (h *handle) HasMoved() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.files[h.name] != h.inode, h.aliveLocked()
}

// SectorSize implements vfs.File.
func (h *handle) SectorSize() int { return 4096 }

// DeviceCharacteristics implements vfs.File. They are those of the operating system's layer: a torn write spoils no byte beside it.
func (h *handle) DeviceCharacteristics() vfs.DeviceCharacteristic {
	return vfs.IOCAP_SUBPAGE_READ | vfs.IOCAP_POWERSAFE_OVERWRITE
}

// syncCount is how often files with the suffix were synced.
func (d *disk) syncCount(suffix string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, count := range d.syncs {
		if strings.HasSuffix(name, suffix) {
			n += count
		}
	}
	return n
}

func (d *disk) setFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// sick is a disk that fails for a while.
type sick struct {
	sickness
	on    bool
	at    int    // the call of its kind from which on it fails, counted down
	file  string // the only one that fails; empty: all
	calls int    // that failed
}

// sicken has the disk fail from a later call on.
func (d *disk) sicken(s sickness, at int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sick = sick{sickness: s, on: true, at: at}
}

// sickenFile has every call for one file fail.
func (d *disk) sickenFile(s sickness, file string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sick = sick{sickness: s, on: true, file: file}
}

func (d *disk) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sick.on = false
}

// sickened tells whether a call has failed.
func (d *disk) sickened() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sick.calls > 0
}

// fails is the error of a write or a sync.
func (d *disk) fails(file string, write bool) error {
	s := &d.sick
	if !s.on || s.reads || write != s.writes || s.file != "" && file != s.file || strings.Contains(file, ".volatile") {
		return nil
	}
	if s.at--; s.at > 0 {
		return nil
	}
	s.calls++
	return s.err
}
