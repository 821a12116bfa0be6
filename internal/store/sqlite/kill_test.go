package sqlite

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ncruces/go-sqlite3/vfs"
)

// killed is a new disk with what the next process finds after a kill -9: everything that was written, synced or not, since the
// machine's cache outlives the process. What was not synced can still be lost.
func (d *disk) killed(t testing.TB) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	copies := map[*inode]*inode{}
	copyAll := func(names map[string]*inode) map[string]*inode {
		names = maps.Clone(names)
		for name, f := range names {
			if copies[f] == nil {
				copies[f] = &inode{data: slices.Clone(f.data), safe: slices.Clone(f.safe), pending: slices.Clone(f.pending)}
			}
			names[name] = copies[f]
		}
		return names
	}
	after := &disk{files: copyAll(d.files), platter: copyAll(d.platter)}
	after.plugIn(t)
	return after
}

// What a restarted service reads it tells its clients, so it must be as safe as what the killed one had acknowledged: a kill between the
// write of a commit and its sync leaves rows that can be read and that nothing else would ever sync.
func TestPowerLossLosesNothingThatARestartedServiceHasSeen(t *testing.T) {
	t.Parallel()
	first, seen, least := firstSeed(t), 0, 10
	for i := 0; i < runs(60, 3000) || seen < least && i < 600; i++ { // on a busy machine a kill finds less between a write and its sync
		run := powerRun{seed: first + uint64(i)}
		seen += run.killRestartLose(t)
		if len(run.found) > 0 {
			t.Fatalf("seed %d: %v", run.seed, run.found)
		}
	}
	t.Logf("%d redemptions never acknowledged, seen after the restart and kept", seen)
	if seen < least {
		t.Fatalf("only %d redemptions were seen that had not been acknowledged: the test tests little", seen)
	}
}

func TestKillTestCatchesAStoreThatDoesNotSync(t *testing.T) {
	t.Parallel()
	first, caught, n := firstSeed(t), 0, runs(30, 300)
	for i := range n {
		run := powerRun{seed: first + uint64(i), faults: faults{neverSync: true}}
		run.killRestartLose(t)
		if len(run.found) > 0 {
			caught++
		}
	}
	t.Logf("%d of %d power losses showed the fault", caught, n)
	if caught < n/10 {
		t.Fatalf("only %d of %d power losses showed the fault", caught, n)
	}
}

// killRestartLose is a life that ends in a kill, a second one that only reads, and a power loss; it returns how many redemptions were
// first seen by the second.
func (r *powerRun) killRestartLose(t *testing.T) (seen int) {
	rng := rand.New(rand.NewPCG(r.seed, 1))
	d := newDisk(t)
	r.opts = Options{VFS: d.name, Readers: 1, faults: r.faults, checkpointEvery: 20, checkpointForce: 60, Linger: -1}
	if d.cutAt = 1 + rng.IntN(1900); rng.IntN(3) > 0 {
		d.cutAt, d.cutSync = 0, 1+rng.IntN(40) // between the write and the sync
	}
	r.live()
	kept := d.killed(t)
	vfs.Unregister(d.name)
	r.opts.VFS = kept.name
	seen = r.look(kept)
	after := kept.afterPowerLoss(t, rng)
	vfs.Unregister(kept.name)
	r.opts.VFS, r.opts.faults = after.name, faults{}
	r.reopen()
	vfs.Unregister(after.name)
	return seen
}

// look opens the database, takes for acknowledged what it reads there, and dies with the disk.
func (r *powerRun) look(d *disk) (seen int) {
	ctx := context.Background()
	s, err := Open(ctx, powerPath, r.opts)
	if err != nil {
		if r.created {
			r.wrong("open after the kill: %v", err)
		}
		return 0
	}
	r.created = true // whatever Create was told
	for i := range powerIDs {
		if device, err := s.Device(ctx, powerScope, powerID(i)); err != nil {
			r.wrong("device after the kill: %v", err)
		} else if device.Enrollment != nil {
			r.enrolled[i] = device.Enrollment
		}
	}
	for i := range r.attempts {
		a := &r.attempts[i]
		if _, err := s.Operation(ctx, powerScope, a.redemption.Operation.ID); err == nil && !a.acknowledged {
			a.acknowledged = true
			seen++
		}
	}
	d.cut()
	s.Close() // fails: there is no disk any more
	return seen
}
