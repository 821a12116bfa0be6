package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"latchkey.example/latchkey/test/pgserver"
	"latchkey.example/latchkey/test/rig"
)

// servedLimit is what the whole may take to serve, once all of it runs.
const servedLimit = 30 * time.Second

// balancerSource is where the load balancer's connections come from.
const balancerSource = "127.0.0.1"

// Config says what to run. The zero value is three nodes on a PostgreSQL of their own.
type Config struct {
	Programs rig.Programs             // zero: those of rig.Build
	Dir      string                   // for all files but the database's; empty: one that goes away with Close
	Host     string                   // the service's DNS name; empty: rig.DefaultHost
	Nodes    int                      // zero: 3
	Store    string                   // postgres:// address of a database without an installation; empty: a server of its own
	Listen   rig.Addresses            // the load balancer's, HTTPS and MQTT; empty ones: free ports
	Log      func(node int) io.Writer // where a copy of each node's log goes, by its number from 0; nil: nowhere
	Flags    []string                 // more flags for every `latchkey serve`
	Env      []string                 // more environment for it, NAME=value
}

// Cluster is nodes behind a load balancer, which its Access leads to. Its methods are for one goroutine.
type Cluster struct {
	rig.Access
	Nodes    []*rig.Service   // the first serves the hub; each may be stopped, killed and run again, on its old ports
	Database *pgserver.Server // nil if Config named a store
	Balancer *Balancer

	config  Config
	scratch string // ours, removed by Close
}

// Start makes an installation on an empty database, starts the nodes one after the other and then the load balancer, and returns when all of it
// serves. On an error nothing is left running.
func Start(config Config) (*Cluster, error) {
	config.Nodes = cmp.Or(config.Nodes, 3)
	c := &Cluster{config: config}
	for _, step := range []func() error{c.makeDir, c.startDatabase, c.startNodes, c.startBalancer} {
		if err := step(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// New starts a cluster for tb. When the test ends all that runs must stop in an orderly way; a failed test shows the end of each node's log.
func New(tb testing.TB, config Config) *Cluster {
	tb.Helper()
	if config.Dir == "" {
		config.Dir = tb.TempDir()
	}
	c, err := Start(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
		if tb.Failed() {
			for i, node := range c.Nodes {
				tb.Logf("node %d, the end of its log:\n%s", i+1, node.LogEnd(100))
			}
		}
	})
	return c
}

func (c *Cluster) makeDir() (err error) {
	if c.config.Dir == "" {
		c.config.Dir, err = os.MkdirTemp("", "latchkey-cluster")
		c.scratch = c.config.Dir
	}
	return err
}

func (c *Cluster) startDatabase() (err error) {
	if c.config.Store == "" {
		if c.Database, err = pgserver.Start(); err == nil {
			c.config.Store = c.Database.Address("postgres")
		}
	}
	return err
}

func (c *Cluster) startNodes() error {
	for i := range c.config.Nodes {
		node, err := c.startNode(i)
		if err != nil {
			return fmt.Errorf("node %d: %w", i+1, err)
		}
		c.Nodes = append(c.Nodes, node)
	}
	return nil
}

// startNode makes the installation for the first, and copies of its keys for the others.
func (c *Cluster) startNode(i int) (*rig.Service, error) {
	listen, err := freeAddresses()
	if err != nil {
		return nil, err
	}
	config := rig.Config{Programs: c.config.Programs, Host: c.config.Host, Store: c.config.Store, Dir: filepath.Join(c.config.Dir, fmt.Sprintf("node%d", i+1)),
		Listen: listen, NoHub: i > 0, Proxy: balancerSource, Flags: c.config.Flags, Env: c.config.Env}
	if c.config.Log != nil {
		config.Log = c.config.Log(i)
	}
	if i == 0 {
		return rig.Start(config)
	}
	return c.Nodes[0].Join(config)
}

func (c *Cluster) startBalancer() error {
	first := c.Nodes[0]
	nodes := []rig.Addresses{{HTTPS: first.HTTPS, MQTT: first.MQTT}}
	for _, node := range c.Nodes[1:] {
		nodes = append(nodes, rig.Addresses{HTTPS: node.HTTPS})
	}
	balancer, err := StartBalancer(BalancerConfig{Dir: c.config.Dir, Host: first.Host, CAFile: first.CAFile, Listen: c.config.Listen, Nodes: nodes})
	if err != nil {
		return err
	}
	c.Balancer = balancer
	c.Access = first.At(balancer.HTTPS, balancer.MQTT)
	return c.waitServed()
}

// waitServed returns when the load balancer leads to a node that is ready.
func (c *Cluster) waitServed() error {
	ctx, cancel := context.WithTimeout(context.Background(), servedLimit)
	defer cancel()
	client := c.Client()
	defer client.CloseIdleConnections()
	_, err := rig.Poll(ctx, func() (struct{}, bool, error) {
		select {
		case <-c.Balancer.Done():
			return struct{}{}, false, fmt.Errorf("HAProxy has ended: %s", c.Balancer.Output())
		default:
		}
		answer, err := client.Get(c.URL("/readyz"))
		if err != nil {
			return struct{}{}, false, nil
		}
		return struct{}{}, answer.StatusCode == http.StatusOK, answer.Body.Close()
	})
	return err
}

// Close stops what runs, the nodes last started first, and removes the files that are its own.
func (c *Cluster) Close() error {
	var errs []error
	if c.Balancer != nil {
		errs = append(errs, c.Balancer.Close())
	}
	for i := len(c.Nodes) - 1; i >= 0; i-- {
		if err := c.Nodes[i].Close(); err != nil {
			errs = append(errs, fmt.Errorf("node %d: %w", i+1, err))
		}
	}
	if c.Database != nil {
		errs = append(errs, c.Database.Stop())
	}
	if c.scratch != "" {
		errs = append(errs, os.RemoveAll(c.scratch))
	}
	return errors.Join(errs...)
}
