package outflow

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("latchkey_telemetry_"+name, help, labels, nil)
}

var (
	spoolBytes   = describe("spool_bytes", "Bytes of the telemetry spool.")
	spoolLimit   = describe("spool_limit_bytes", "Bytes that the telemetry spool may have.")
	spoolFull    = describe("spool_full", "1 while telemetry is not acknowledged because the spool is full.")
	outSent      = describe("output_records_total", "Telemetry records that the output's receiver has taken.", "output")
	outFailures  = describe("output_failures_total", "Attempts to forward that failed; each is made again.", "output")
	outRefused   = describe("output_refused_total", "Telemetry records that the receiver refused for what they hold; they are set aside.", "output")
	outFailing   = describe("output_failing", "1 while the output fails.", "output")
	outLag       = describe("output_lag_records", "Telemetry records that wait for the output.", "output")
	outLagBytes  = describe("output_lag_bytes", "About how many bytes they have.", "output")
	outLagOldest = describe("output_lag_seconds", "How long the oldest of them has waited.", "output")
)

// collector reads the state of a flow when it is asked.
type collector struct{ flow *Flow }

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	log := c.flow.log.State()
	gauge(spoolBytes, float64(log.Bytes))
	gauge(spoolLimit, float64(log.Limit))
	gauge(spoolFull, number(log.Full))
	for _, p := range c.flow.pumps {
		s, name := p.state(), p.output.Name
		records, bytes := p.cursor.Lag()
		oldest := 0.0
		if !s.oldest.IsZero() {
			oldest = max(0, time.Since(s.oldest).Seconds())
		}
		count(outSent, s.sent, name)
		count(outFailures, s.failures, name)
		count(outRefused, s.refused, name)
		gauge(outFailing, number(s.failing), name)
		gauge(outLag, float64(records), name)
		gauge(outLagBytes, float64(bytes), name)
		gauge(outLagOldest, oldest, name)
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
