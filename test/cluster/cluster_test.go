package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"latchkey.example/latchkey/test/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// What three nodes and a load balancer are for.
func TestNodesBehindALoadBalancerAreOneService(t *testing.T) {
	c := New(t, Config{})
	t.Run("each request of a device goes to another node", func(t *testing.T) { eachRequestElsewhere(t, c) })
	t.Run("nodes come and go under a device", func(t *testing.T) { nodesComeAndGo(t, c) })
	t.Run("the audit log has a device's own address", func(t *testing.T) { auditHasAddresses(t, c) })
	t.Run("a TLS session goes on at every node", func(t *testing.T) { sessionsGoOn(t, c) })
	t.Run("the hub lets in who was assigned by any node", func(t *testing.T) { hubLetsIn(t, c) })
	t.Run("a new owner at any node ends the old one's session at the hub", func(t *testing.T) { newOwnerCuts(t, c) })
	t.Run("the store is whole", func(t *testing.T) { storeIsWhole(t, c) })
}

// eachRequestElsewhere: the load balancer takes turns, so that of some devices one has met three nodes.
func eachRequestElsewhere(t *testing.T, c *Cluster) {
	met := 0
	for chip := range 4 {
		var nodes []int
		for _, tracking := range newDevice(t, &c.Access, chip).register() {
			nodes = append(nodes, nodeOf(t, c, tracking))
		}
		slices.Sort(nodes)
		met = max(met, len(slices.Compact(nodes)))
	}
	if met != 3 {
		t.Errorf("no device met three nodes, but at most %d", met)
	}
}

// nodeOf finds the node that gave an answer; the line in its log comes behind the answer.
func nodeOf(t *testing.T, c *Cluster, tracking string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found, err := rig.Poll(ctx, func() (int, bool, error) {
		found := slices.IndexFunc(c.Nodes, func(s *rig.Service) bool { return strings.Contains(s.Log(), `"trackingId":"`+tracking+`"`) })
		return found, found >= 0, nil
	})
	if err != nil {
		t.Fatalf("no node has answered %s: %v", tracking, err)
	}
	return found
}

// auditHasAddresses: the load balancer's is 127.0.0.1, as is that of the operator here.
func auditHasAddresses(t *testing.T, c *Cluster) {
	d := newDevice(t, &c.Access, 15)
	d.register()
	got := map[string]string{}
	for _, row := range audited(t, c, d.id) {
		got[row.Action] = row.Address
	}
	if got["device.register"] != comesFrom || got["enrollment.put"] != balancerSource {
		t.Errorf("addresses in the audit log: %v", got)
	}
}

// sessionsGoOn: a device that comes again shows the ticket of whichever node it met first, and each of them takes it.
func sessionsGoOn(t *testing.T, c *Cluster) {
	d := newDevice(t, &c.Access, 16)
	d.client.Transport.(*http.Transport).TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	met := map[int]bool{}
	for try := range 6 {
		got := d.ask(http.MethodPut, "/register", "", d.body(), http.StatusUnauthorized)
		node := nodeOf(t, c, got.tracking)
		if met[node] = true; got.resumed != (try > 0) {
			t.Errorf("connection %d, at node %d: resumed %v", try+1, node+1, got.resumed)
		}
	}
	if len(met) < 2 {
		t.Error("all connections led to one node")
	}
}

// nodesComeAndGo: between a device's requests one node is stopped and another is killed; the one that is left finishes it. Then they come back, and
// the first goes.
func nodesComeAndGo(t *testing.T, c *Cluster) {
	d := newDevice(t, &c.Access, 10)
	d.contact()
	must(t, c.Nodes[1].Stop())
	d.prove()
	must(t, c.Nodes[2].Kill())
	if node := nodeOf(t, c, d.poll()); node != 0 {
		t.Errorf("node %d answered, which is not there", node+1)
	}
	must(t, c.Nodes[1].Run())
	must(t, c.Nodes[2].Run())
	must(t, c.Nodes[0].Kill())
	d.register()
	must(t, c.Nodes[0].Run())
}

func hubLetsIn(t *testing.T, c *Cluster) {
	for chip := range 3 {
		d := newDevice(t, &c.Access, 20+chip)
		d.register()
		d.login()
		want := fmt.Sprintf("%s|%s|%s", c.IDScope, c.Host, d.id)
		if got, err := c.Database.Ask(t.Context(), "postgres", `SELECT scope, hub, device_id FROM identities WHERE device_id = '`+d.id+`'`); got != want || err != nil {
			t.Errorf("the store's identity is %q, want %q, %v", got, want, err)
		}
	}
}

// newOwnerCuts: the node that serves the hub is told of a key that was changed at one that does not.
func newOwnerCuts(t *testing.T, c *Cluster) {
	d := newDevice(t, &c.Access, 30)
	d.register()
	session, old := d.login(), d.hubToken()
	d.tpm.Clear()
	second := c.At(c.Nodes[1].HTTPS, c.MQTT)
	d.service = &second
	d.register()
	select {
	case <-session.lost:
	case <-time.After(patience):
		t.Error("the old owner's session is still open")
	}
	if _, err := d.connect(old); !errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) && !errors.Is(err, packets.ErrorRefusedNotAuthorised) {
		t.Errorf("the old owner's token: %v", err)
	}
	d.login()
}

func storeIsWhole(t *testing.T, c *Cluster) {
	for _, node := range c.Nodes {
		result, err := rig.Run(t.Context(), rig.Command{Path: c.Programs().Service, Args: []string{"fsck", "--data", node.DataDir}})
		if err != nil || !strings.Contains(result.Stdout, "10 registrations") || !strings.Contains(result.Stdout, ": 0 problems") {
			t.Errorf("fsck: %v: %s", err, result.Stdout)
		}
	}
}

// auditRow is a line of `latchkey audit --output json`.
type auditRow struct{ Actor, Address, Action, TrackingID string }

// audited reads the audit rows about a registration id.
func audited(t *testing.T, c *Cluster, id string) (rows []auditRow) {
	t.Helper()
	result, err := c.Latchkey(t.Context(), "audit", "--object", id, "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(result.Stdout) {
		var row auditRow
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	return rows
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
