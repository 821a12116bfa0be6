package hubapi

import (
	"context"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// walksPerScope is how many requests of a scope read through its devices at once. Each may take seconds, and all requests of all scopes share one
// gate, registrations too: one tenant's applications must not fill it.
const walksPerScope = 16

// walks counts them, by scope.
type walks struct {
	mu sync.Mutex
	at map[string]int
}

func (w *walks) enter(scope string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = map[string]int{}
	}
	if w.at[scope] >= walksPerScope {
		return false
	}
	w.at[scope]++
	return true
}

func (w *walks) leave(scope string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at[scope]--; w.at[scope] == 0 {
		delete(w.at, scope)
	}
}

// walking runs a handler that reads through the devices of the hub, unless as many of the scope are at it as may be.
func (a *API) walking(handle handler) handler {
	return func(ctx context.Context, c call) (web.Reply, error) {
		if !a.walks.enter(c.by.Scope) {
			fault := a.core.Fault(c.by.Scope, 429001, registration.ReasonOverload, "Too many queries, lists and statistics of this hub are under way. Wait as long as Retry-After says.", nil)
			fault.RetryAfter = 5 * time.Second
			return web.Reply{}, fault
		}
		defer a.walks.leave(c.by.Scope)
		return handle(ctx, c)
	}
}
