package spool

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
)

var errPower = errors.New("the power is gone")

const sector = 512

// power is a file system in memory that goes away at a chosen call. What comes back keeps what was synced; of the rest each sector and each name is there
// or not, as chance has it.
type power struct {
	mu        sync.Mutex
	names     map[string]*inode
	durable   map[string]*inode   // names as of the last sync of their folder
	ordered   bool                // what was done to names since then is there up to some point, as with a journal; else any part of it
	journal   []map[string]*inode // names as they were after each change since then
	calls     int
	cutAt     int // 0: never
	gone      bool
	neverSync bool // the fault of the negative control
	full      int  // bytes that may be written from now on; negative: any number
	failSync  int  // so many syncs fail from now on, and what they were for is lost as some kernels lose it
}

type inode struct {
	data, durable []byte
	links         int
}

func newPower() *power {
	return &power{names: map[string]*inode{}, durable: map[string]*inode{}, full: -1}
}

func (p *power) callLocked() error {
	if p.calls++; p.cutAt > 0 && p.calls >= p.cutAt {
		p.gone = true
	}
	if p.gone {
		return errPower
	}
	return nil
}

// after is the disk as it comes back.
func (p *power) after(rng *rand.Rand) *power {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	q := newPower()
	names := p.names
	if p.ordered {
		steps := append([]map[string]*inode{p.durable}, p.journal...)
		names = steps[rng.IntN(len(steps))]
	}
	all := maps.Clone(p.durable)
	maps.Copy(all, names)
	survivors := map[*inode]*inode{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		node := names[name]
		if !p.ordered && rng.IntN(2) == 0 {
			node = p.durable[name]
		}
		if node == nil {
			continue
		}
		if survivors[node] == nil {
			data := node.survive(rng)
			survivors[node] = &inode{data: data, durable: slices.Clone(data)}
		}
		survivors[node].links++
		q.names[name], q.durable[name] = survivors[node], survivors[node]
	}
	return q
}

func (n *inode) survive(rng *rand.Rand) []byte {
	if slices.Equal(n.data, n.durable) {
		return slices.Clone(n.data)
	}
	size := len(n.data)
	if less := len(n.data) - len(n.durable); rng.IntN(2) == 0 {
		size = len(n.durable)
	} else if less > 0 && rng.IntN(2) == 0 {
		size = len(n.durable) + rng.IntN(less+1)
	}
	data := make([]byte, size)
	for at := 0; at < size; at += sector {
		to := min(at+sector, size)
		from := n.durable
		if rng.IntN(2) == 0 {
			from = n.data
		}
		if at < len(from) {
			copy(data[at:to], from[at:])
		}
	}
	return data
}

func (p *power) Open(name string, flag int) (File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.callLocked(); err != nil {
		return nil, err
	}
	node := p.names[name]
	switch {
	case node == nil && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case node != nil && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case node == nil:
		node = &inode{links: 1}
		p.names[name] = node
		p.changedLocked()
	}
	if flag&os.O_TRUNC != 0 {
		node.data = nil
	}
	return &powerFile{p, node}, nil
}

func (p *power) Rename(from, to string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.callLocked(); err != nil {
		return err
	}
	node := p.names[from]
	if node == nil {
		return fs.ErrNotExist
	}
	if old := p.names[to]; old != nil {
		old.links--
	}
	delete(p.names, from)
	p.names[to] = node
	p.changedLocked()
	return nil
}

func (p *power) Remove(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.callLocked(); err != nil {
		return err
	}
	node := p.names[name]
	if node == nil {
		return fs.ErrNotExist
	}
	node.links--
	delete(p.names, name)
	p.changedLocked()
	return nil
}

func (p *power) changedLocked() { p.journal = append(p.journal, maps.Clone(p.names)) }

func (p *power) Names(folder string) (names []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.names {
		if filepath.Dir(name) == folder {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names, p.callLocked()
}

func (p *power) MakeFolder(string) error { return nil }

func (p *power) SyncFolder(folder string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.callLocked(); err != nil || p.neverSync {
		return err
	}
	p.journal = nil
	for name := range p.durable {
		if filepath.Dir(name) == folder && p.names[name] == nil {
			delete(p.durable, name)
		}
	}
	for name, node := range p.names {
		if filepath.Dir(name) == folder {
			p.durable[name] = node
		}
	}
	return nil
}

type powerFile struct {
	p    *power
	node *inode
}

func (f *powerFile) Write(b []byte) (int, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if err := f.p.callLocked(); err != nil {
		return 0, err
	}
	n := len(b)
	if f.p.full >= 0 {
		n = min(n, f.p.full)
		f.p.full -= n
	}
	f.node.data = append(f.node.data[:len(f.node.data):len(f.node.data)], b[:n]...)
	if n < len(b) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

func (f *powerFile) ReadAt(b []byte, offset int64) (int, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if offset >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[offset:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *powerFile) Truncate(size int64) error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if err := f.p.callLocked(); err != nil {
		return err
	}
	f.node.data = slices.Clone(f.node.data[:size])
	return nil
}

func (f *powerFile) Sync() error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if err := f.p.callLocked(); err != nil || f.p.neverSync {
		return err
	}
	if f.p.failSync > 0 {
		f.p.failSync--
		return errors.New("input/output error")
	}
	f.node.durable = slices.Clone(f.node.data)
	return nil
}

func (f *powerFile) Close() error { return nil }

func (f *powerFile) Size() (int64, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *powerFile) Plain() bool { return true }

func (f *powerFile) Deleted() bool {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.node.links == 0
}

// content is all of a file.
func (p *power) content(name string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if node := p.names[name]; node != nil {
		return slices.Clone(node.data)
	}
	return nil
}

// runs is how many seeds a test walks: short, or long if LATCHKEY_LONG=1.
func runs(short, long int) int {
	if os.Getenv("LATCHKEY_LONG") == "1" {
		return long
	}
	return short
}

// firstSeed is LATCHKEY_SEED or drawn anew. Seeds choose when the power goes and what survives; the goroutines choose the rest.
func firstSeed(t *testing.T) uint64 {
	seed := rand.Uint64N(1 << 40)
	if text := os.Getenv("LATCHKEY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("first seed: LATCHKEY_SEED=%d", seed)
	return seed
}
