package embedded

import (
	"context"
	"slices"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// device is what the hub remembers of a device while it has a session: a connection, or subscriptions that outlive one.
//
// Who holds the device's lock (Hub.logins) decides about its session: a login and EnsureDevice first cut the connection that is
// there and wait until the library has let go of it. So the library never sees two connections of one device at a time, and its
// races between a leaving and an arriving client do not come up.
type device struct {
	digest [32]byte // of the key or certificate that the session was made with
	conn   *conn    // nil while the session outlives its connection
	timer  *time.Timer

	changed time.Time // when the connection came or went
	login   login     // the last one, without what let it in
	flights flights
	calls   calls
	dropped chan struct{} // closed when the session is gone
}

// admit makes l the device's session on c, after the one that was there has ended. It does not trust what was verified before
// the lock was taken: meanwhile EnsureDevice may have given the device another key.
func (h *Hub) admit(ctx context.Context, c *conn, l *login) cause {
	unlock, err := h.logins.lock(ctx, l.key())
	if err != nil {
		return causeUnavailable
	}
	defer unlock()
	if why := h.verify(ctx, l); why != "" {
		return why
	}
	if err := h.evict(ctx, l.key(), causeTakeover); err != nil {
		return causeUnavailable
	}
	h.forgetOthers(l.key(), l.digest)
	if why := h.restore(ctx, c, l); why != "" {
		return why
	}
	why := h.register(c, l)
	if why != "" {
		h.unprepare(l.key())
	}
	return why
}

// evict cuts the device's connection and returns when it is gone. The caller holds the device's lock.
func (h *Hub) evict(ctx context.Context, key string, why cause) error {
	h.mu.Lock()
	d := h.devices[key]
	var old *conn
	if d != nil {
		old = d.conn
	}
	h.mu.Unlock()
	if old == nil {
		return nil
	}
	old.cut(why)
	select {
	case <-old.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// boundToOther reports whether the device has a session that was made with something else than the digests name.
func (h *Hub) boundToOther(key string, digests ...[32]byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.devices[key]
	return d != nil && !slices.Contains(digests, d.digest)
}

// forgetOthers drops what is left of a session that was made with something else. The caller holds the device's lock and has evicted.
func (h *Hub) forgetOthers(key string, digests ...[32]byte) {
	if !h.boundToOther(key, digests...) {
		return
	}
	h.forget(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.devices[key].timer.Stop()
	h.dropLocked(key)
}

// dropLocked ends a device's session for good.
func (h *Hub) dropLocked(key string) {
	if d := h.devices[key]; d != nil {
		close(d.dropped)
		delete(h.devices, key)
	}
}

// forget removes the device's subscriptions and messages from the library. Its connection has ended.
func (h *Hub) forget(key string) {
	if cl, ok := h.server.Clients.Get(key); ok {
		h.server.UnsubscribeClient(cl)
		cl.ClearInflights()
		h.server.Clients.Delete(key)
	}
}

// register makes c the device's connection, unless the hub is closed or suspended or the name is no more of the scope that l was judged in. All are
// looked at under the lock under which Close, suspend and Drop list what they end, so that no session comes up behind them.
func (h *Hub) register(c *conn, l *login) cause {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return causeShutdown
	}
	if !h.owner.serving() {
		return causeUnowned
	}
	if scope, ok := h.config.Names(l.hub); !ok || scope != l.scope { // gone since: Drop may have taken its list of devices already
		return causeUser
	}
	d := h.devices[l.key()]
	if d == nil {
		d = &device{dropped: make(chan struct{})}
		h.devices[l.key()] = d
	} else {
		d.timer.Stop()
	}
	d.digest, d.conn, d.changed = l.digest, c, h.config.Now()
	if c.clean {
		d.flights.clear()
	}
	c.device, c.flights = d, &d.flights
	d.login = login{scope: l.scope, hub: l.hub, deviceID: l.deviceID}
	d.timer = time.AfterFunc(l.expires.Sub(h.config.Now()), func() { c.cut(causeExpired) })
	c.login = l
	h.pending.remove(c.address)
	h.metrics.sessions.Inc()
	return ""
}

// release settles the session of a connection that the library has let go of, then lets the next one in.
func (h *Hub) release(c *conn) {
	defer close(c.done)
	if c.login == nil {
		return
	}
	h.metrics.sessions.Dec()
	key := c.login.key()
	gone := c.clean || c.distrusted
	if gone {
		h.forget(key) // the library does so too, but not on every path
	} else if cl, ok := h.server.Clients.Get(key); ok {
		cl.Net = mqtt.ClientConnection{} // a session without connection need not keep TLS state and buffers
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.devices[key]
	d.timer.Stop()
	d.conn, d.changed = nil, h.config.Now()
	switch {
	case gone:
		h.dropLocked(key)
	case !h.closed:
		d.timer = time.AfterFunc(h.config.SessionExpiry, func() { h.expire(key, d) })
	}
}

// expire ends a session whose device stayed away.
func (h *Hub) expire(key string, d *device) {
	unlock, err := h.logins.lock(h.base, key)
	if err != nil {
		return
	}
	defer unlock()
	h.mu.Lock()
	stale := h.devices[key] == d && d.conn == nil
	h.mu.Unlock()
	if !stale {
		return
	}
	h.forget(key)
	if h.owner.serving() {
		ctx, cancel := context.WithTimeout(h.base, deviceTimeout)
		defer cancel()
		h.storeSession(ctx, &d.login, 0)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropLocked(key)
}
