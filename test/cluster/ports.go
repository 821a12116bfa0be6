package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"

	"latchkey.example/latchkey/test/rig"
)

// Ports of nodes, which keep them when they are started again, lie below those that systems give to outgoing connections: one of these could else
// hold a node's port while it is down.
const (
	lowestPort  = 20000
	highestPort = 32000
	portTries   = 100
)

// freeAddresses are three that nobody listens on.
func freeAddresses() (a rig.Addresses, err error) {
	for _, to := range []*string{&a.HTTPS, &a.MQTT, &a.Metrics} {
		if *to, err = freeAddress(); err != nil {
			return a, err
		}
	}
	return a, nil
}

func freeAddress() (string, error) {
	for range portTries {
		address := fmt.Sprintf("127.0.0.1:%d", lowestPort+rand.IntN(highestPort-lowestPort))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("cluster: no free port was found")
}
