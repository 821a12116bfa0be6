package proxied

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of all listeners of a process.
type Metrics struct {
	refused *prometheus.CounterVec
}

// NewMetrics makes and registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "latchkey_proxy_refused_total", Help: "Connections from proxyFrom that were refused, by listener and reason.",
	}, []string{"listener", "reason"})}
	registry.MustRegister(m.refused)
	return m
}

// burst lets one line a second through and counts the others.
type burst struct {
	mu         sync.Mutex
	last       time.Time
	suppressed int
}

func (b *burst) take(now time.Time) (suppressed int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if since := now.Sub(b.last); since >= 0 && since < time.Second {
		b.suppressed++
		return 0, false
	}
	suppressed, b.suppressed, b.last = b.suppressed, 0, now
	return suppressed, true
}
