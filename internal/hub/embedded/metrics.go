package embedded

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the hub does. Labels come from closed sets.
type Metrics struct {
	connections, sessions       prometheus.Gauge
	logins, rekeyed, panics     prometheus.Counter
	ended                       *prometheus.CounterVec // by cause
	messages, bytes, sinkErrors prometheus.Counter
	refusedFilters, desired     prometheus.Counter
	twinRequests                *prometheus.CounterVec // by status
	messagesTo, methods         *prometheus.CounterVec // by what became of them
}

// NewMetrics makes the hub's metrics and registers them at r, if r is not nil. It panics if they are registered there already.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "latchkey", Subsystem: "hub", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "latchkey", Subsystem: "hub", Name: name, Help: help})
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "latchkey", Subsystem: "hub", Name: name, Help: help}, []string{label})
	}
	m := &Metrics{
		connections:    gauge("connections", "Open MQTT connections, logged in or not."),
		sessions:       gauge("sessions", "MQTT connections that have logged in."),
		logins:         counter("logins_total", "Accepted logins."),
		rekeyed:        counter("devices_rekeyed_total", "Devices that got another key."),
		panics:         counter("panics_total", "Connections that ended in a panic."),
		ended:          vector("connections_ended_total", "Ended MQTT connections, by cause.", "cause"),
		twinRequests:   vector("twin_requests_total", "Requests of devices to their twins, by the status of the answer.", "status"),
		messagesTo:     vector("device_messages_total", "Messages from the cloud to devices, by what became of them: enqueued, sent (QoS 0), completed, expired, dead-lettered, purged.", "state"),
		methods:        vector("methods_total", "Direct methods of devices, by outcome: answered, unanswered, and answers that came too late.", "outcome"),
		desired:        counter("desired_notifications_total", "Notifications of changed desired properties."),
		messages:       counter("telemetry_messages_total", "Telemetry messages whose record was written."),
		bytes:          counter("telemetry_bytes_total", "Payload bytes of these messages."),
		sinkErrors:     counter("telemetry_errors_total", "Telemetry messages whose record could not be written; they were not acknowledged."),
		refusedFilters: counter("topic_filters_refused_total", "Topic filters that a device may not subscribe to."),
	}
	if r != nil {
		r.MustRegister(m.connections, m.sessions, m.logins, m.rekeyed, m.panics, m.ended, m.messages, m.bytes, m.sinkErrors, m.refusedFilters,
			m.desired, m.twinRequests, m.messagesTo, m.methods)
	}
	return m
}
