// Package proxied tells a listener behind load balancers who its peers are: PROXY protocol version 2 (HAProxy's proxy-protocol.txt), before TLS.
//
// It guarantees that a connection from a listed address begins with a header, whose address is the peer from then on, or is refused; that one
// from any other address is handed over untouched, so that a header in it is no TLS and ends it; that headers are read beside the accepting,
// each within a time and a number of bytes, a bounded number at once, and that none of it ends the process. It trusts the listed
// addresses to tell the truth, and the network to keep others from using them.
//
// Our own reader, and not a library: docs/decisions/0008-proxy-protocol.md.
package proxied

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// maxPending is how many headers are awaited at one time. A balancer sends them with its first packet, so that they are there at once.
const maxPending = 256

// Config of a Listener. All of it must be given.
type Config struct {
	From       []netip.Prefix // of the balancers; IPv4 as such, not mapped into IPv6
	HeaderTime time.Duration  // from accepting a connection to its header's end
	Name       string         // of the listener, in logs and metrics
	Log        *slog.Logger
	Metrics    *Metrics
}

// Listener is a net.Listener. A connection's RemoteAddr is the real peer and blocks nobody.
type Listener struct {
	net.Listener
	config  Config
	ready   chan accepted
	closed  chan struct{}
	running sync.WaitGroup
	burst   burst

	mu      sync.Mutex
	ended   bool
	pending map[net.Conn]struct{} // their header is read
}

// accepted is what one Accept gives.
type accepted struct {
	conn net.Conn
	err  error
}

// conn is a connection whose header has named another peer.
type conn struct {
	net.Conn
	peer *net.TCPAddr
}

// RemoteAddr is the peer that the header has named.
func (c *conn) RemoteAddr() net.Addr { return c.peer }

// Listen takes over l and accepts from it until Close.
func Listen(l net.Listener, config Config) *Listener {
	p := &Listener{Listener: l, config: config, ready: make(chan accepted), closed: make(chan struct{}), pending: map[net.Conn]struct{}{}}
	p.running.Go(p.run)
	return p
}

// Accept gives the next connection whose peer is known. Errors are those of the listener below, net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends accepting and the connections whose header is awaited; those that Accept has given go on.
func (l *Listener) Close() error {
	if !l.end() {
		return nil
	}
	err := l.Listener.Close()
	l.running.Wait()
	return err
}

// end notes the end and ends what is awaited; it reports false if that was done before.
func (l *Listener) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.ended = true
	close(l.closed)
	for c := range l.pending {
		c.Close()
	}
	return true
}

// run accepts. It waits for nobody but the caller of Accept: an error below is his to judge, and paces this loop.
func (l *Listener) run() {
	for {
		c, err := l.Listener.Accept()
		switch {
		case err != nil:
			if !l.deliver(accepted{err: err}) {
				return
			}
		case !l.listed(c.RemoteAddr()):
			l.deliver(accepted{conn: c})
		default:
			l.begin(c)
		}
	}
}

// deliver hands over to Accept; after Close it ends what it was given and reports false.
func (l *Listener) deliver(a accepted) bool {
	select {
	case l.ready <- a:
		return true
	case <-l.closed:
		if a.conn != nil {
			a.conn.Close()
		}
		return false
	}
}

// listed says whether a connection is a balancer's.
func (l *Listener) listed(remote net.Addr) bool {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(l.config.From, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// begin reads a connection's header beside the accepting, if there is a place.
func (l *Listener) begin(c net.Conn) {
	l.mu.Lock()
	ended, full := l.ended, len(l.pending) >= maxPending
	if !ended && !full {
		l.pending[c] = struct{}{}
	}
	l.mu.Unlock()
	switch {
	case ended:
		c.Close()
	case full:
		l.refuse(c, refusedCrowded)
	default:
		l.running.Go(func() { l.identify(c) })
	}
}

func (l *Listener) letGo(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, c)
}

// identify reads a header and hands the connection over. A panic ends this connection and no other.
func (l *Listener) identify(c net.Conn) {
	defer func() {
		if p := recover(); p != nil {
			l.letGo(c)
			l.config.Log.Error("proxy: reading a header panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			l.refuse(c, refusedPanic)
		}
	}()
	c.SetReadDeadline(time.Now().Add(l.config.HeaderTime))
	peer, err := readHeader(c)
	l.letGo(c)
	if err != nil {
		l.refuse(c, err.(refusal))
		return
	}
	c.SetReadDeadline(time.Time{})
	if peer.IsValid() {
		l.deliver(accepted{conn: &conn{c, net.TCPAddrFromAddrPort(peer)}})
		return
	}
	l.deliver(accepted{conn: c})
}

// refuse ends a connection. Balancers' connections may be many: one line a second is logged, and none of those that Close has ended.
func (l *Listener) refuse(c net.Conn, why refusal) {
	c.Close()
	select {
	case <-l.closed:
		return
	default:
	}
	l.config.Metrics.refused.WithLabelValues(l.config.Name, string(why)).Inc()
	if suppressed, ok := l.burst.take(time.Now()); ok {
		l.config.Log.Warn("proxy: refused a balancer's connection", "listener", l.config.Name, "reason", string(why), "balancer", c.RemoteAddr().String(),
			"suppressed", suppressed)
	}
}
