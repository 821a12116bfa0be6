package cluster

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/test/faults"
	"latchkey.example/latchkey/test/pgserver"
	"latchkey.example/latchkey/test/rig"
)

// pair is a database server and its standby. The nodes know both, and go to whichever takes writes.
type pair struct {
	t                *testing.T
	primary, standby *pgserver.Server
}

// newPair starts both. Commits do not wait for the standby yet.
func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t}
	var err error
	if p.primary, err = pgserver.Start(pgserver.Replicated...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(p.primary) })
	if p.standby, err = p.primary.Standby("standby"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(p.standby) })
	return p
}

func (p *pair) stop(s *pgserver.Server) {
	if err := s.Stop(); err != nil {
		p.t.Error(err)
	}
}

func (p *pair) address() string { return pgserver.Either("postgres", p.primary, p.standby) }

// synchronous makes commits wait for the standby from now on.
func (p *pair) synchronous() {
	p.t.Helper()
	must(p.t, p.primary.WaitFor(p.t.Context(), "standby"))
}

// fail kills the primary and has the standby take its place. What takes its place has no standby, and waits for none.
func (p *pair) fail() {
	p.t.Helper()
	must(p.t, p.primary.Crash())
	p.promote()
}

func (p *pair) promote() {
	p.t.Helper()
	must(p.t, p.standby.Promote(p.t.Context()))
	p.primary, p.standby = p.standby, p.primary
	must(p.t, p.primary.WaitFor(p.t.Context(), ""))
}

// rebuild makes a standby of the server that was killed, and has commits wait for it.
func (p *pair) rebuild() {
	p.t.Helper()
	must(p.t, p.standby.Follow(p.primary, "standby"))
	p.synchronous()
}

// fleet is devices that register through the load balancer.
type fleet struct {
	*faults.Load
	devices []*faults.Device
}

func register(t *testing.T, c *Cluster, seed uint64) *fleet {
	t.Helper()
	devices, err := faults.Enroll(t.Context(), &c.Access, 0, 200)
	if err != nil {
		t.Fatal(err)
	}
	door := faults.NewDoor(c.Host, c.TLS())
	door.Move(c.HTTPS)
	return &fleet{devices: devices, Load: faults.Start(faults.Plan{Scope: c.IDScope, Doors: []*faults.Door{door}, Devices: devices, Workers: 16, Seed: seed})}
}

// check compares what the devices were told with the database that is left, when nobody writes to it any more.
func (f *fleet) check(ctx context.Context, c *Cluster, server *pgserver.Server) (found []faults.Finding, err error) {
	ring, err := keyring.Open(filepath.Join(c.Nodes[0].DataDir, "master.key"))
	if err != nil {
		return nil, err
	}
	store, err := postgres.Open(ctx, server.Address("postgres"), postgres.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	found, err = faults.Check(ctx, store, ring, c.IDScope, f.devices)
	return append(f.Findings(), found...), err
}

// stopNodes ends the nodes so that the database stands still.
func stopNodes(t *testing.T, c *Cluster) {
	t.Helper()
	for _, node := range c.Nodes {
		must(t, node.Stop())
	}
}

// fsck has a node's data directory checked.
func fsck(t *testing.T, c *Cluster) {
	t.Helper()
	result, err := rig.Run(t.Context(), rig.Command{Path: c.Programs().Service, Args: []string{"fsck", "--data", c.Nodes[0].DataDir}})
	if err != nil {
		t.Errorf("fsck: %v\n%s", err, result.Stdout)
	}
}
