package web

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/registration"
)

// Metrics of the HTTP rooms. Labels come from closed sets.
type Metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "latchkey_requests_total", Help: "Answered requests by API, operation and reason."}, []string{"api", "operation", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "latchkey_request_seconds", Help: "Time from the request's header to its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"api", "operation"}),
	}
	r.MustRegister(m.requests, m.seconds)
	return m
}

func (m *Metrics) observe(api, operation string, reason registration.Reason, took time.Duration) {
	m.requests.WithLabelValues(api, operation, reason.String()).Inc()
	m.seconds.WithLabelValues(api, operation).Observe(took.Seconds())
}
