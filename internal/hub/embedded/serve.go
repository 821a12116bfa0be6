package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// isExhausted says that accepting failed for want of descriptors or memory, which passes.
func isExhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ECONNABORTED)
}

// accept starts serving a connection, or closes it when there are too many.
func (h *Hub) accept(nc net.Conn) {
	c := newConn(h.base, nc, h.config.Limits)
	if why := h.addConn(c); why != "" {
		h.metrics.ended.WithLabelValues(string(why)).Inc()
		c.stop()
		c.Close()
		return
	}
	go h.serve(c)
}

func (h *Hub) addConn(c *conn) cause {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return causeShutdown
	case len(h.conns) >= h.config.Limits.Connections || !h.pending.add(c.address, h.config.Limits):
		return causeTooMany
	}
	h.conns[c] = struct{}{}
	h.metrics.connections.Inc()
	return ""
}

// serve runs one connection to its end. Whatever panics on its way, in the library or here, ends this connection and no other.
func (h *Hub) serve(c *conn) {
	defer h.removeConn(c)
	defer func() {
		if p := recover(); p != nil {
			h.metrics.panics.Inc()
			c.end(causePanic)
			c.distrusted = true
			h.log.Error("hub: a connection panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "remote", c.remote)
		}
		c.end(causeLost)
		c.Close()
		c.endSending()
		h.release(c)
	}()
	deadline := time.Now().Add(h.config.Limits.ConnectDeadline)
	c.SetDeadline(deadline) // unless it is draining already
	c.Conn.SetWriteDeadline(deadline)
	if why := h.handshake(c); why != "" {
		c.end(why)
		return
	}
	c.Conn.SetWriteDeadline(time.Time{})
	err := h.server.EstablishConnection("hub", c)
	// What was ended here is noted already; else a code of the library says that it could not make sense of a packet.
	if code, ok := errors.AsType[packets.Code](err); ok && code.Code >= packets.ErrUnspecifiedError.Code {
		c.end(causeMalformed)
	}
}

// handshake does TLS and takes the CONNECT packet off the wire, judged but not parsed.
func (h *Hub) handshake(c *conn) cause {
	if tls, ok := c.Conn.(interface{ HandshakeContext(context.Context) error }); ok {
		if err := tls.HandshakeContext(h.base); err != nil {
			return causeTLS
		}
	}
	packet, why := readConnect(c.Conn)
	switch why {
	case causeLevel:
		c.Conn.Write([]byte{0x20, 2, 0, 1}) // CONNACK, unacceptable protocol level: MQTT 3.1.1, 3.1.2.2
	case causeWill:
		c.Conn.Write([]byte{0x20, 2, 0, 5})
	}
	c.connect = packet
	return why
}

func (h *Hub) removeConn(c *conn) {
	h.metrics.connections.Dec()
	h.logEnd(c)
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.login == nil {
		h.pending.remove(c.address)
	}
	delete(h.conns, c)
	h.gone.Broadcast()
}

// logEnd writes the one line of an ended connection. Strangers share a budget of lines.
func (h *Hub) logEnd(c *conn) {
	why := c.why()
	h.metrics.ended.WithLabelValues(string(why)).Inc()
	if c.login == nil {
		h.refused(c, why)
		return
	}
	h.log.Info("hub: disconnected", "scope", c.login.scope, "hub", c.login.hub, "device", c.login.deviceID, "cause", why, "remote", c.remote)
}

func (h *Hub) refused(c *conn, why cause) {
	suppressed, ok := h.refusals.take(time.Now())
	if !ok {
		return
	}
	h.log.Info("hub: refused", "cause", why, "user", clip(c.user), "remote", c.remote, "suppressed", suppressed)
}

func clip(s string) string { return s[:min(len(s), 200)] }
