package embedded

import (
	"context"

	"latchkey.example/latchkey/internal/registration"
)

// Reach implements registration.Hub, for every embedded hub of this process alike.
func (h *Hub) Reach(_, _ string) registration.Reach {
	reach, _ := h.owner.reach()
	return reach
}

// Acquire makes this process the one that serves the hub, if it is to be it. It is over at once unless another one was the owner before: of that it waits to
// see for a lease whether it lives. If so, it returns an ErrOwned that names it.
func (h *Hub) Acquire(ctx context.Context) error {
	if h.config.Owners == nil {
		return nil
	}
	if !h.config.Serve {
		_, err := h.owner.look(ctx)
		return err
	}
	if err := h.owner.acquire(ctx); err != nil {
		return err
	}
	h.log.Info("hub: this process serves it")
	return nil
}

// Keep keeps the hub, or watches who does, until Close has ended the last session; it then returns nil. An ErrOwned says that another
// process serves the hub by now and this one has ended all sessions.
//
// While the store cannot be reached the hub is suspended when the lease is nearly over: all connections are cut and no one gets in. It serves again once
// the store has confirmed that nobody else does.
func (h *Hub) Keep(ctx context.Context) error {
	if h.config.Owners == nil || !h.startKeeping() {
		return nil
	}
	defer h.keeping.Done()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	go func() {
		select {
		case <-h.kept:
			cancel()
		case <-ctx.Done():
		}
	}()
	return h.owner.keep(ctx)
}

func (h *Hub) startKeeping() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.keeping.Add(1)
	return true
}

// giveUp ends the ownership after the last session, so that the next process need not wait.
func (h *Hub) giveUp(ctx context.Context) error {
	close(h.kept)
	h.keeping.Wait()
	if h.config.Owners == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.owner.interval())
	defer cancel()
	if err := h.owner.release(ctx); err != nil {
		h.log.Warn("hub: it could not be given up, the next process waits for a while before it serves it", "error", err)
	}
	return nil
}

// suspend cuts all connections: this process cannot know any more that no other serves the hub. Logins fail in register, under the same lock
// under which they are listed here.
func (h *Hub) suspend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log.Error("hub: suspended, as the store has not confirmed in time that this process alone serves it; all connections are cut", "connections", len(h.conns))
	for c := range h.conns {
		c.cut(causeUnowned)
	}
}
