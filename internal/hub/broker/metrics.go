package broker

import "github.com/prometheus/client_golang/prometheus"

// Metrics of linked brokers. Labels come from closed sets.
type Metrics struct {
	closed *prometheus.CounterVec
	sweeps *prometheus.CounterVec
}

// Why a connection was closed.
const (
	causeChanged  = "changed"  // its device got another key, was disabled or removed
	causeExpired  = "expired"  // its SAS token has ended
	causeStranger = "stranger" // found in a sweep without an identity that lets it in
	causeDropped  = "dropped"  // its hub is not linked any more
)

// NewMetrics registers the metrics; r may be nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "latchkey_broker_closed_total", Help: "Connections closed at linked brokers, by cause."}, []string{"cause"}),
		sweeps: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "latchkey_broker_sweeps_total", Help: "Looks at all connections of a linked broker, by outcome."}, []string{"outcome"}),
	}
	if r != nil {
		r.MustRegister(m.closed, m.sweeps)
	}
	return m
}
