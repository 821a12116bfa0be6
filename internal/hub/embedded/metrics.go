package embedded

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the hub does. Labels come from closed sets.
type Metrics struct {
	connections, sessions       prometheus.Gauge
	logins, rekeyed, panics     prometheus.Counter
	ended                       *prometheus.CounterVec // by cause
	messages, bytes, sinkErrors prometheus.Counter
	refusedFilters              prometheus.Counter
}

// NewMetrics makes the hub's metrics and registers them at r, if r is not nil. It panics if they are registered there already.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "latchkey", Subsystem: "hub", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "latchkey", Subsystem: "hub", Name: name, Help: help})
	}
	m := &Metrics{
		connections: gauge("connections", "Open MQTT connections, logged in or not."),
		sessions:    gauge("sessions", "MQTT connections that have logged in."),
		logins:      counter("logins_total", "Accepted logins."),
		rekeyed:     counter("devices_rekeyed_total", "Devices that got another key."),
		panics:      counter("panics_total", "Connections that ended in a panic."),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "latchkey", Subsystem: "hub", Name: "connections_ended_total", Help: "Ended MQTT connections, by cause.",
		}, []string{"cause"}),
		messages:       counter("telemetry_messages_total", "Telemetry messages whose record was written."),
		bytes:          counter("telemetry_bytes_total", "Payload bytes of these messages."),
		sinkErrors:     counter("telemetry_errors_total", "Telemetry messages whose record could not be written; they were not acknowledged."),
		refusedFilters: counter("topic_filters_refused_total", "Topic filters that a device may not subscribe to."),
	}
	if r != nil {
		r.MustRegister(m.connections, m.sessions, m.logins, m.rekeyed, m.panics, m.ended, m.messages, m.bytes, m.sinkErrors, m.refusedFilters)
	}
	return m
}
