package cluster

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"

	"latchkey.example/latchkey/test/rig"
)

// haproxy.cfg is a template of the configuration; docs/operations.md quotes what matters of it.
//
//go:embed haproxy.cfg
var haproxyText string

var haproxy = template.Must(template.New("haproxy.cfg").Funcs(template.FuncMap{
	"inc":  func(i int) int { return i + 1 },
	"port": func(address string) (string, error) { _, port, err := net.SplitHostPort(address); return port, err },
}).Parse(haproxyText))

// BalancerConfig says what a load balancer is in front of.
type BalancerConfig struct {
	Dir    string          // for its configuration
	Host   string          // the name that the nodes answer by
	CAFile string          // of their CA
	Listen rig.Addresses   // its own, HTTPS and MQTT; empty ones: free ports
	Nodes  []rig.Addresses // HTTPS of each node, and MQTT of those that serve the hub
}

// Balancer is an HAProxy that runs.
type Balancer struct {
	HTTPS, MQTT string // its own addresses

	process *rig.Background
}

// StartBalancer starts HAProxy. It takes connections when this returns; whether a node is there to serve them is another matter.
func StartBalancer(config BalancerConfig) (*Balancer, error) {
	program, err := findHAProxy()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := haproxy.Execute(&text, config); err != nil {
		return nil, err
	}
	file := filepath.Join(config.Dir, "haproxy.cfg")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return nil, err
	}
	// The sockets are made here and handed over, so that a free port is never lost to another program.
	https, err := listen(config.Listen.HTTPS)
	if err != nil {
		return nil, err
	}
	defer https.Close()
	mqtt, err := listen(config.Listen.MQTT)
	if err != nil {
		return nil, err
	}
	defer mqtt.Close()
	b := &Balancer{HTTPS: https.Addr().String(), MQTT: mqtt.Addr().String()}
	b.process, err = start(program, file, https, mqtt)
	return b, err
}

// findHAProxy: Debian installs it where only root's PATH leads.
func findHAProxy() (string, error) {
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("HAProxy is needed and not installed: run scripts/setup.sh test")
}

func listen(address string) (*net.TCPListener, error) {
	at, err := net.ResolveTCPAddr("tcp", cmp.Or(address, "127.0.0.1:0"))
	if err != nil {
		return nil, err
	}
	return net.ListenTCP("tcp", at)
}

func start(program, file string, sockets ...*net.TCPListener) (*rig.Background, error) {
	var files []*os.File
	for _, socket := range sockets {
		f, err := socket.File()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		files = append(files, f)
	}
	process, err := rig.StartBackground(rig.Command{Path: program, Args: []string{"-db", "-f", file}}, files...)
	if err != nil {
		return nil, fmt.Errorf("starting HAProxy: %w", err)
	}
	return process, nil
}

// Output is all that it has said so far: which nodes it takes for dead, among others.
func (b *Balancer) Output() string { return b.process.Output() }

// Done is closed when it has ended.
func (b *Balancer) Done() <-chan struct{} { return b.process.Done() }

// Close ends it, and the connections that it passes on.
func (b *Balancer) Close() error { return b.process.Stop() }
