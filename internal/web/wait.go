package web

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"
)

// WaitPlaces is how many requests of a process may wait for others at once, outside the gate: for the answer of a device to a direct method.
const WaitPlaces = 256

// WaitPlacesPerScope is how many of these one scope may take, so that no tenant has all of them for itself.
const WaitPlacesPerScope = WaitPlaces / 2

// Wait is the part of a request that waits for somebody else. The request was admitted and judged; now it leaves the gate, so that those who wait
// keep nobody out, and takes one of a bounded number of places. Its context ends with Most, when the client hangs up, and when the service drains.
type Wait struct {
	Most time.Duration
	For  func(context.Context) (Reply, error)
}

// wait runs it. The answer may come later than the server's limits allow for others.
func (s *Server) wait(w http.ResponseWriter, call Call, route Route, wait Wait) (reply Reply, err error) {
	if !s.shared.enterWait(route.Scope) {
		return Reply{}, s.overloaded(route)
	}
	defer s.shared.leaveWait(route.Scope)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait.Most + 10*time.Second)) // unsupported only by test recorders
	ctx, cancel := context.WithTimeout(call.Context(), wait.Most)
	defer cancel()
	defer context.AfterFunc(s.shared.ending, cancel)()
	defer func() {
		if cause := recover(); cause != nil {
			s.log.Error("panic", "operation", route.Operation, "cause", cause, "stack", string(debug.Stack()))
			reply, err = Reply{}, fmt.Errorf("panic: %v", cause)
		}
	}()
	return wait.For(ctx)
}

func (s *Shared) enterWait(scope string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting >= WaitPlaces || s.waits[scope] >= WaitPlacesPerScope {
		return false
	}
	s.waiting++
	s.waits[scope]++
	return true
}

func (s *Shared) leaveWait(scope string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	if s.waits[scope]--; s.waits[scope] == 0 {
		delete(s.waits, scope)
	}
}
