package faults

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/test/cluster"
	"latchkey.example/latchkey/test/rig"
)

// house is nodes that share a database, behind a load balancer.
type house struct{ *cluster.Cluster }

func newHouse(t *testing.T, config cluster.Config) house { return house{cluster.New(t, config)} }

// victims are the nodes, killed so often together, and the database server.
func (h house) victims(nodeKills, serverKills int) []Victim {
	victims := []Victim{{Name: "postgres", Times: serverKills, Base: true, Kill: h.Database.Crash, Run: h.Database.Run}}
	for i, node := range h.Nodes {
		times := (nodeKills + i) / len(h.Nodes)
		victims = append(victims, NodeVictim(fmt.Sprint("node ", i+1), times, node, nil))
	}
	return victims
}

// doors are several ways to the load balancer, each with connections of its own, so that a device's next request goes to any node.
func (h house) doors() (doors []*Door) {
	for range 2 * len(h.Nodes) {
		door := NewDoor(h.Host, h.TLS())
		door.Move(h.HTTPS)
		doors = append(doors, door)
	}
	return doors
}

// load has a fleet register, each request at any node.
func (h house) load(t *testing.T, seed uint64) *Load {
	t.Helper()
	devices, err := Enroll(t.Context(), h, 0, 200)
	if err != nil {
		t.Fatal(err)
	}
	return Start(Plan{Scope: h.IDScope, Doors: h.doors(), Devices: devices, Workers: workers, Seed: seed})
}

// check compares the devices' memory with the database.
func (h house) check(ctx context.Context, devices []*Device) (found []Finding, err error) {
	ring, err := keyring.Open(filepath.Join(h.Nodes[0].DataDir, "master.key"))
	if err != nil {
		return nil, err
	}
	store, err := postgres.Open(ctx, h.Database.Address("postgres"), postgres.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return Check(ctx, store, ring, h.IDScope, devices)
}

// Three nodes and their database server are killed, one at a time and together, while devices send their requests
// through a load balancer to any of the nodes. What
// any of them was told holds afterwards.
func TestNodesAndTheirDatabaseKilledLoseNothingAcknowledged(t *testing.T) {
	h := newHouse(t, cluster.Config{})
	n := seed(t)
	load := h.load(t, n)
	report, err := Killing{
		Load: load, Victims: h.victims(kills(t, 30, 1), kills(t, 10, 5)),
		Seed: n, Least: 8, Most: 30, Floor: 5, Grace: 30 * time.Second, Look: looking(t, h.Nodes[0].DataDir),
	}.Run()
	load.Stop(endLimit)
	t.Logf("%v\n%v", report, load)
	if err != nil {
		t.Fatal(err)
	}
	mustRemember(t, load, workers*report.Kills["postgres"]) // a crash empties the table that it stands in
	mustWork(t, &h.Access, load)
	mustBeSound(t, h.Nodes[0].DataDir)
	found, err := h.check(t.Context(), load.devices)
	if err != nil {
		t.Fatal(err)
	}
	if err := Judge(append(load.Findings(), found...)); err != nil {
		t.Error(err)
	}
}

// A database that answers before its flush loses what it acknowledged when it dies, and the loop finds it. The store refuses such a server; this
// service first looks, and then tells the server not to flush.
func TestTheLoopCatchesADatabaseThatAnswersBeforeItsFlush(t *testing.T) {
	weak, err := rig.Weakness{File: "internal/store/postgres/store.go",
		Good: "return errors.Join(settle(ctx, pg), checkServer(ctx, pg))",
		Bad: `if err := errors.Join(settle(ctx, pg), checkServer(ctx, pg)); err != nil {
				return err
			}
			_, err := pg.Exec(ctx, "SET synchronous_commit = off")
			return err`}.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, cluster.Config{Nodes: 1, Programs: rig.Programs{Service: weak}})
	n := seed(t)
	for _, sql := range []string{`ALTER SYSTEM SET wal_writer_delay = '10s'`, `SELECT pg_reload_conf()`} { // who does not wait for a flush waits long for one
		if err := h.Database.Psql(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	load := h.load(t, n)
	report, err := Killing{Load: load, Victims: h.victims(0, 4), Seed: n, Least: 20, Most: 60, Floor: 5, Grace: 30 * time.Second}.Run()
	load.Stop(endLimit)
	t.Logf("%v\n%v", report, load)
	if err != nil {
		t.Fatal(err)
	}
	found, err := h.check(t.Context(), load.devices)
	if err != nil {
		t.Fatal(err)
	}
	wantFinding(t, found, Lost)
}
