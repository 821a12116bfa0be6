package faults

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// answerLimit is how long a device waits for an answer before it asks again.
const answerLimit = 30 * time.Second

// Door is an address that devices knock at: a node's or a balancer's. The address may change while they do.
type Door struct {
	Host    string // the name in its certificate
	client  *http.Client
	address atomic.Pointer[string]
}

// NewDoor is a door without an address: who knocks is refused.
func NewDoor(host string, trust *tls.Config) *Door {
	d := &Door{Host: host}
	d.client = &http.Client{Timeout: answerLimit, Transport: &http.Transport{
		TLSClientConfig: trust, MaxIdleConnsPerHost: 64, TLSHandshakeTimeout: answerLimit, DialContext: d.dial,
	}}
	return d
}

// DoorOf is the door of a service of its own, which leads to where it listens now.
func DoorOf(s *rig.Service) *Door {
	d := NewDoor(s.Host, s.TLS())
	d.Move(s.HTTPS)
	return d
}

// Move sets where it leads to.
func (d *Door) Move(address string) { d.address.Store(&address) }

// Close drops the connections that nobody uses.
func (d *Door) Close() { d.client.CloseIdleConnections() }

func (d *Door) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	address := d.address.Load()
	if address == nil {
		return nil, errors.New("there is nothing behind this door yet")
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, *address)
}
