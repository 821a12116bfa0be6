package broker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

const (
	sweepTime  = 2 * time.Minute // for one look at all connections of one broker
	sweepCheck = time.Second     // how often it is looked whose turn it is
	identities = 200             // read at a time
	// sameLogin is how far the time of a login that this process knows, and that of a connection that the broker shows, may lie apart for them to be the same: the
	// question comes before the connection stands.
	sameLogin = 30 * time.Second
)

// Keep looks at the connections of all linked brokers, each as often as its settings say, until ctx ends. Brokers do not look again at what they have let
// in: who shows a SAS token of an hour would stay for ever.
//
// Of several processes each ends the connections that it has let in, whose tokens' ends it knows; of those of another, and of those from before its own start,
// it knows that no token lives longer than MaxTokenLife.
func (h *Hub) Keep(ctx context.Context) error {
	tick, note := time.NewTicker(sweepCheck), time.NewTicker(rememberEvery)
	defer tick.Stop()
	defer note.Stop()
	defer h.remember()
	turns := map[string]time.Time{}
	var work sync.WaitGroup
	defer work.Wait()
	busy := &sync.Map{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-note.C:
			h.remember()
			continue
		case <-tick.C:
		}
		for _, l := range h.due(turns) {
			if _, running := busy.LoadOrStore(l.Name, true); running {
				continue
			}
			work.Go(func() {
				defer busy.Delete(l.Name)
				h.sweepOnce(ctx, l)
			})
		}
		h.logins.prune(h.config.Now().Add(-2 * time.Hour)) // longer than any CheckEvery
	}
}

// due names the brokers whose turn has come, and gives them the next.
func (h *Hub) due(turns map[string]time.Time) (due []*link) {
	now := time.Now()
	for scope, hubs := range h.config.All() {
		for _, linked := range hubs {
			if linked.Kind != registration.HubBroker || now.Before(turns[linked.Name]) {
				continue
			}
			l, err := h.of(scope, linked.Name)
			if err != nil {
				h.log.Error("a linked broker cannot be used", "hub", linked.Name, "err", err)
				turns[linked.Name] = now.Add(time.Minute)
				continue
			}
			turns[linked.Name] = now.Add(time.Duration(l.settings.CheckEvery))
			if l.manager != nil {
				due = append(due, l)
			}
		}
	}
	return due
}

func (h *Hub) sweepOnce(ctx context.Context, l *link) {
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	closed, err := h.Sweep(ctx, l.Scope, l.Name)
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		h.metrics.sweeps.WithLabelValues("failed").Inc()
		h.log.Warn("looking for connections that should have ended: tried again", "hub", l.Name, "closed", closed, "in", time.Duration(l.settings.CheckEvery), "err", err)
	case err == nil:
		h.metrics.sweeps.WithLabelValues("done").Inc()
		if closed > 0 {
			h.log.Info("connections that should have ended were closed", "hub", l.Name, "closed", closed)
		}
	}
}

// Sweep looks once at all connections of a linked broker, and ends those of devices that may not be there any more. It reports how many.
//
// A connection whose user is neither the device id of an identity nor has the form of a device of this hub is not touched: brokers have users of their own.
func (h *Hub) Sweep(ctx context.Context, scope, hub string) (closed int, err error) {
	l, err := h.of(scope, hub)
	if err != nil || l.manager == nil {
		return 0, err
	}
	began := h.config.Now()
	found, err := h.connections(ctx, l)
	if err != nil {
		return 0, err
	}
	var failed error
	err = h.eachIdentity(ctx, l, found, func(c seen, id registration.Identity, known bool) {
		why := h.verdict(l, c, id, known)
		if why == "" {
			return
		}
		if err := h.endOne(ctx, l, c, id, known); err != nil {
			failed = err
			return
		}
		closed++
		h.metrics.closed.WithLabelValues(why).Inc()
	})
	if err = errors.Join(err, failed); err == nil {
		h.mu.Lock()
		l.swept = began
		h.mu.Unlock()
	}
	return closed, err
}

// endOne ends a connection; of a device that is to be shut out what the broker keeps goes too.
func (h *Hub) endOne(ctx context.Context, l *link, c seen, id registration.Identity, known bool) error {
	if known && (id.Disabled || id.Cutting) {
		_, err := l.manager.cut(ctx, c.deviceID)
		return err
	}
	return l.manager.end(ctx, c.connection)
}

// seen is a connection with the device that it seems to be of.
type seen struct {
	connection
	deviceID string
	certain  bool // its user name can be nothing but that of a device of this hub
}

func (h *Hub) connections(ctx context.Context, l *link) (all []seen, err error) {
	err = l.manager.list(ctx, func(page []connection) {
		for _, c := range page {
			if _, id, ok := l.device(c.user); ok {
				all = append(all, seen{c, id, id != c.user})
			}
		}
	})
	slices.SortFunc(all, func(a, b seen) int { return cmp.Compare(a.deviceID, b.deviceID) })
	return all, err
}

// eachIdentity walks the connections and the identities of the hub side by side: both are in the order of device ids.
func (h *Hub) eachIdentity(ctx context.Context, l *link, found []seen, judge func(c seen, id registration.Identity, known bool)) error {
	var page []registration.Identity
	after, more := "", true
	for _, c := range found {
		for more && (len(page) == 0 || page[len(page)-1].DeviceID < c.deviceID) {
			if len(page) > 0 {
				after = page[len(page)-1].DeviceID
			}
			var err error
			if page, err = h.config.Identities.Identities(ctx, l.Scope, l.Name, max(after, before(c.deviceID)), identities); err != nil {
				return err
			}
			more = len(page) == identities
		}
		i, known := slices.BinarySearchFunc(page, c.deviceID, func(id registration.Identity, want string) int { return cmp.Compare(id.DeviceID, want) })
		var id registration.Identity
		if known {
			id = page[i]
		}
		judge(c, id, known)
	}
	return nil
}

// before is a text behind which the device id comes, with none of the same alphabet between that matters: lists begin behind it.
func before(deviceID string) string { return deviceID[:len(deviceID)-1] }

// verdict says why a connection is to be ended; empty if it may stay.
func (h *Hub) verdict(l *link, c seen, id registration.Identity, known bool) string {
	switch {
	case !known && c.certain, known && c.clientID != "" && c.clientID != c.deviceID:
		return causeStranger
	case !known:
		return ""
	case id.Disabled, id.Cutting:
		return causeChanged
	}
	last, remembered := h.logins.of(l.Name, c.deviceID)
	now := h.config.Now()
	same := remembered && (c.since.IsZero() || c.since.Sub(last.at).Abs() <= sameLogin)
	switch {
	case same && !now.Before(last.expires):
		return causeExpired
	case same && last.digest != [32]byte{} && id.Updated.After(last.at.Add(-sameLogin)) && !h.holds(l, id, last.digest):
		return causeChanged
	case !same && !c.since.IsZero() && now.Sub(c.since) > h.config.MaxTokenLife+lifeLeeway:
		return causeExpired
	}
	return ""
}

// holds: the identity's credential is still the one that let the connection in. One that cannot be opened is not judged here.
func (h *Hub) holds(l *link, id registration.Identity, digest [32]byte) bool {
	held, err := h.openCredential(l, id, true)
	return err != nil || slices.Contains(digestsOf(held), digest)
}

// Drop implements registration.Hub. The hub is not linked any more, so no login and no topic is allowed; what the broker still has is ended as far as this process
// remembers how.
func (h *Hub) Drop(ctx context.Context, scope, hub string) error {
	h.mu.Lock()
	l, ok := h.links[hub]
	h.mu.Unlock()
	if !ok || l.Scope != scope {
		return nil
	}
	if l.manager != nil {
		found, err := h.connections(ctx, l)
		if err != nil {
			return err
		}
		for _, c := range found {
			if _, remembered := h.logins.of(l.Name, c.deviceID); !c.certain && !remembered {
				continue
			}
			if err := l.manager.end(ctx, c.connection); err != nil {
				return err
			}
			h.metrics.closed.WithLabelValues(causeDropped).Inc()
		}
	}
	l.close()
	h.mu.Lock()
	if h.links[hub] == l {
		delete(h.links, hub)
	}
	h.mu.Unlock()
	return nil
}
