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
	"latchkey.example/latchkey/test/pgserver"
	"latchkey.example/latchkey/test/rig"
)

// house is nodes that share a database.
type house struct {
	server *pgserver.Server
	nodes  []*rig.Service
	doors  []*Door // one for each node
}

func newHouse(t *testing.T, programs rig.Programs, nodes int) *house {
	t.Helper()
	server, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	h := &house{server: server}
	h.nodes = append(h.nodes, rig.New(t, rig.Config{Programs: programs, Store: server.Address("postgres")}))
	for range nodes - 1 {
		node, err := h.nodes[0].Join(rig.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := node.Close(); err != nil {
				t.Error(err)
			}
		})
		h.nodes = append(h.nodes, node)
	}
	for _, node := range h.nodes {
		h.doors = append(h.doors, DoorOf(node))
	}
	return h
}

// victims are the nodes, killed so often together, and the database server.
func (h *house) victims(nodeKills, serverKills int) []Victim {
	victims := []Victim{{Name: "postgres", Times: serverKills, Base: true, Kill: h.server.Crash, Run: h.server.Run}}
	for i, node := range h.nodes {
		times := (nodeKills + i) / len(h.nodes)
		victims = append(victims, NodeVictim(fmt.Sprint("node ", i+1), times, node, h.doors[i]))
	}
	return victims
}

// load has a fleet register, each request at any node.
func (h *house) load(t *testing.T, seed uint64) *Load {
	t.Helper()
	devices, err := Enroll(t.Context(), h.nodes[0], 0, 300)
	if err != nil {
		t.Fatal(err)
	}
	return Start(Plan{Scope: h.nodes[0].IDScope, Doors: h.doors, Devices: devices, Workers: 24, Seed: seed})
}

// check compares the devices' memory with the database.
func (h *house) check(ctx context.Context, devices []*Device) (found []Finding, err error) {
	ring, err := keyring.Open(filepath.Join(h.nodes[0].DataDir, "master.key"))
	if err != nil {
		return nil, err
	}
	store, err := postgres.Open(ctx, h.server.Address("postgres"), postgres.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return Check(ctx, store, ring, h.nodes[0].IDScope, devices)
}

func (h *house) stop(t *testing.T) {
	t.Helper()
	for _, node := range h.nodes {
		if err := node.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// Three nodes and their database server are killed, one at a time and together, while devices send each request to any of the nodes. What
// any of them was told holds afterwards.
func TestNodesAndTheirDatabaseKilledLoseNothingAcknowledged(t *testing.T) {
	h := newHouse(t, rig.Programs{}, 3)
	n := seed(t)
	load := h.load(t, n)
	report, err := Killing{
		Load: load, Victims: h.victims(kills(t, 30, 1), kills(t, 10, 5)),
		Seed: n, Least: 10, Most: 60, Floor: 5, Grace: 30 * time.Second, Tell: t.Logf,
	}.Run()
	load.Stop(endLimit)
	t.Logf("%v\n%v", report, load)
	if err != nil {
		t.Fatal(err)
	}
	mustBeSound(t, h.nodes[0].DataDir)
	h.stop(t)
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
	h := newHouse(t, rig.Programs{Service: weak}, 1)
	n := seed(t)
	load := h.load(t, n)
	report, err := Killing{Load: load, Victims: h.victims(0, 3), Seed: n, Least: 20, Most: 60, Floor: 5, Grace: 30 * time.Second}.Run()
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
