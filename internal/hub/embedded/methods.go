package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// maxCalls bounds the direct methods of a device that are waited for at a time, for the device or for its answer.
const maxCalls = 10

// answer is what a device says to a direct method.
type answer struct {
	status  int
	payload []byte
}

// calls are the direct methods of one device that wait, by request id.
type calls struct {
	mu      sync.Mutex
	waiting map[string]chan answer
	last    uint64
}

// begin gives a call its request id, and the channel that its answer comes on.
func (s *calls) begin() (string, chan answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		s.waiting = map[string]chan answer{}
	}
	s.last++
	rid, come := strconv.FormatUint(s.last, 16), make(chan answer, 1)
	s.waiting[rid] = come
	return rid, come
}

func (s *calls) end(rid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, rid)
}

// take hands an answer to who waits for it. One that nobody waits for came too late, or was never asked for.
func (s *calls) take(rid string, a answer) (wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	come, wanted := s.waiting[rid]
	if wanted {
		delete(s.waiting, rid)
		come <- a
	}
	return wanted
}

// callers are those who wait for a device, whether it has a session or not.
type callers struct {
	count  int
	arrive chan struct{} // closed when the device begins to listen
}

// InvokeMethod asks a device that is connected to this process and waits for its answer: connect is how long to wait for a device that does not listen yet,
// respond how long for the answer after that. payload and answer are JSON, or empty.
//
// registration.ErrNotFound without such a device; ErrOffline if it does not listen in time; ErrNoAnswer if it was asked and no answer came, whether it acted or not;
// ErrBusy if maxCalls of it are waiting; ErrElsewhere if another process has the sessions; an *iothub.MessageError if method or payload are to blame.
func (h *Hub) InvokeMethod(ctx context.Context, scope, hub, deviceID, method string, payload json.RawMessage, connect, respond time.Duration) (int, json.RawMessage, error) {
	hub = hostOf(hub)
	if err := iothub.CheckMethodName(method); err != nil {
		return 0, nil, err
	}
	if err := iothub.CheckMethodPayload(payload); err != nil {
		return 0, nil, err
	}
	if _, err := h.config.Identities.Identity(ctx, scope, hub, deviceID); err != nil {
		return 0, nil, err
	}
	if !h.owner.serving() {
		return 0, nil, registration.ErrElsewhere
	}
	key := deviceKey(hub, deviceID)
	if !h.enterCall(key) {
		return 0, nil, registration.ErrBusy
	}
	defer h.leaveCall(key)
	d, c, err := h.awaitListener(ctx, key, connect)
	if err != nil {
		return 0, nil, err
	}
	got, err := h.ask(ctx, d, c, method, payload, respond)
	h.metrics.methods.WithLabelValues(outcomeOf(err)).Inc()
	return got.status, got.payload, err
}

func outcomeOf(err error) string {
	if err != nil {
		return "unanswered"
	}
	return "answered"
}

func (h *Hub) enterCall(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.callers[key]
	if w == nil {
		w = &callers{arrive: make(chan struct{})}
		h.callers[key] = w
	}
	if w.count >= maxCalls {
		return false
	}
	w.count++
	return true
}

func (h *Hub) leaveCall(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.callers[key]; w.count == 1 {
		delete(h.callers, key)
	} else {
		w.count--
	}
}

// arrived tells who waits for a device that it listens to direct methods now.
func (h *Hub) arrived(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.callers[key]; w != nil {
		close(w.arrive)
		w.arrive = make(chan struct{})
	}
}

// awaitListener finds the device's session and a connection that listens to direct methods, and waits for one if there is none.
func (h *Hub) awaitListener(ctx context.Context, key string, patience time.Duration) (*device, *conn, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		h.mu.Lock()
		d, arrive := h.devices[key], h.callers[key].arrive
		var c *conn
		if d != nil {
			c = d.conn
		}
		h.mu.Unlock()
		if c != nil && c.listens(hearMethods) {
			return d, c, nil
		}
		if patience <= 0 {
			return nil, nil, registration.ErrOffline
		}
		select {
		case <-arrive:
		case <-late.C:
			return nil, nil, registration.ErrOffline
		case <-h.base.Done():
			return nil, nil, registration.ErrElsewhere
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// ask sends a call and waits. The answer may come on a later connection of the same session: a device that renews its SAS token comes back while it works.
func (h *Hub) ask(ctx context.Context, d *device, c *conn, method string, payload []byte, patience time.Duration) (answer, error) {
	if why := h.over(c); why != "" {
		c.cut(why)
		return answer{}, registration.ErrOffline
	}
	rid, come := d.calls.begin()
	defer d.calls.end(rid)
	if !c.beginSending() {
		return answer{}, registration.ErrOffline
	}
	sent := make(chan error, 1)
	go func() { // a write may wait for longer than the caller
		defer c.senders.Done()
		defer h.recovered(c)
		_, err := c.Write(publishPacket("$iothub/methods/POST/"+method+"/?$rid="+rid, 0, false, payload))
		sent <- err
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case err := <-sent:
			if err != nil {
				return answer{}, fmt.Errorf("%w: it reads nothing", registration.ErrOffline)
			}
			sent = nil
		case a := <-come:
			if a.payload != nil && !json.Valid(a.payload) {
				return answer{}, fmt.Errorf("%w: what it answered is no JSON", registration.ErrNoAnswer)
			}
			return a, nil
		case <-d.dropped:
			return answer{}, fmt.Errorf("%w: its session has ended", registration.ErrNoAnswer)
		case <-late.C:
			return answer{}, registration.ErrNoAnswer
		case <-h.base.Done():
			return answer{}, registration.ErrNoAnswer
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
}

// takeAnswer hands what a device answered to who asked. Answers that nobody waits for are passed over.
func (h *Hub) takeAnswer(c *conn, topic string, payload []byte) cause {
	rest, _ := strings.CutPrefix(topic, methodAnswer)
	status, query, ok := strings.Cut(rest, "/")
	code, err := strconv.ParseInt(status, 10, 32)
	rid, known := requestID(query)
	if !ok || err != nil || !known || len(payload) > iothub.MaxMethodPayload {
		return causeMethod
	}
	if len(payload) == 0 {
		payload = nil
	}
	if !c.device.calls.take(rid, answer{int(code), payload}) {
		h.metrics.methods.WithLabelValues("late").Inc()
	}
	return ""
}
