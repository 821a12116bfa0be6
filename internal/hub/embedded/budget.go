package embedded

import "time"

// What a device makes the store read and write of its own accord is bounded, so that one that has gone mad leaves room for the others: so many at once, and so
// many a second after that. An IoT Hub of the smallest size allows as much to all its devices together.
const (
	budgetBurst  = 200
	budgetSecond = 100
)

// budget is a connection's; its zero value is full. It is used by the goroutine that serves the connection.
type budget struct {
	spent float64
	last  time.Time
}

// take reports whether one more is allowed now.
func (b *budget) take(now time.Time) bool {
	if since := now.Sub(b.last); since > 0 {
		b.spent = max(0, b.spent-since.Seconds()*budgetSecond)
	}
	b.last = now
	if b.spent >= budgetBurst {
		return false
	}
	b.spent++
	return true
}

// afford takes one from the budget for what a SUBSCRIBE or UNSUBSCRIBE makes the store do, or ends the connection.
func (h *Hub) afford(c *conn) bool {
	if c.budget.take(h.config.Now()) {
		return true
	}
	c.cut(causeFlood)
	return false
}
