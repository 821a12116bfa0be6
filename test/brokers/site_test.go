package brokers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"

	"latchkey.example/latchkey/test/rig"
)

// What every test of the package works with.
var (
	service *rig.Service
	broker  *rabbit
	door    *gate // between Latchkey and the management API
)

func TestMain(m *testing.M) { os.Exit(all(m)) }

func all(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "latchkey-brokers")
	if err == nil {
		defer os.RemoveAll(dir)
		err = begin(dir)
	}
	defer func() {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if code = m.Run(); code != 0 {
		fmt.Fprintf(os.Stderr, "the service's log:\n%s\nRabbitMQ said:\n%s\n", service.Log(), broker.node.Output())
	}
	return code
}

func begin(dir string) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir+"/rabbitmq", 0o700); err != nil {
		return err
	}
	// RabbitMQ takes long to start, so it comes first. Its configuration names Latchkey's port, which stays the same when the service comes back.
	if broker, err = startRabbit(dir+"/rabbitmq", rig.DefaultHost, fmt.Sprint(ports[0])); err != nil {
		return err
	}
	if service, err = rig.Start(rig.Config{Listen: rig.Addresses{HTTPS: fmt.Sprintf("127.0.0.1:%d", ports[0])}}); err != nil {
		return err
	}
	if err := errors.Join(broker.trust(service.CAFile), broker.ready()); err != nil {
		return err
	}
	if door, err = newGate(broker.management); err != nil {
		return err
	}
	return link()
}

func end() error {
	var errs []error
	if door != nil {
		door.close()
	}
	if broker != nil {
		errs = append(errs, broker.stop())
	}
	if service != nil {
		errs = append(errs, service.Close())
	}
	return errors.Join(append(errs, rig.Cleanup())...)
}

// link makes the broker a hub, as docs/hubs/brokers.md says. Its times are the shortest that there are: RabbitMQ's statistics are a third of a second old here.
func link() error {
	settings, err := json.Marshal(map[string]any{"product": "rabbitmq", "managementUrl": "https://localhost:" + door.port(), "managementUser": adminUser, "checkEvery": "5s", "listDelay": "1s"})
	if err != nil {
		return err
	}
	secret, err := json.Marshal(map[string]any{"managementPassword": adminPass, "sharedSecret": sharedSecret})
	if err != nil {
		return err
	}
	if err := errors.Join(broker.write("settings.json", settings), broker.write("secret.json", secret)); err != nil {
		return err
	}
	_, err = service.Latchkey(background(), "hub", "link", brokerName, "--kind", "broker", "--allocate=false",
		"--settings", broker.file("settings.json"), "--secret", broker.file("secret.json"), "--hub-ca-file", broker.file("chain.pem"))
	return err
}

// gate passes connections on, until it is shut: then it ends those it has and refuses others.
type gate struct {
	listener net.Listener
	to       string

	mu   sync.Mutex
	shut bool
	open map[net.Conn]bool
}

func newGate(to string) (*gate, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gate{listener: l, to: to, open: map[net.Conn]bool{}}
	go g.serve()
	return g, nil
}

func (g *gate) port() string {
	_, port, _ := net.SplitHostPort(g.listener.Addr().String())
	return port
}

func (g *gate) close() {
	g.turn(true)
	g.listener.Close()
}

func (g *gate) turn(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut = shut; shut {
		for c := range g.open {
			c.Close()
		}
	}
}

func (g *gate) serve() {
	for {
		in, err := g.listener.Accept()
		if err != nil {
			return
		}
		if !g.enter(in) {
			continue
		}
		go func() {
			defer g.leave(in)
			out, err := net.Dial("tcp", g.to)
			if err != nil {
				return
			}
			defer out.Close()
			go func() { io.Copy(out, in); out.Close() }()
			io.Copy(in, out)
		}()
	}
}

func (g *gate) enter(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		c.Close()
		return false
	}
	g.open[c] = true
	return true
}

func (g *gate) leave(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.Close()
	delete(g.open, c)
}
