package linked

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/registration"
)

// The labels of calls, in closed sets.
var (
	kinds    = []registration.HubKind{registration.HubEmbedded, registration.HubAzure, registration.HubBroker}
	verbs    = []string{"ensure", "remove", "disable", "data"}
	outcomes = []string{"ok", "refused", "later", "failed"}
)

// counts are calls by kind of hub, what was asked and what it came to.
type counts struct {
	n [3][4][4]atomic.Uint64
}

func (c *counts) count(kind registration.HubKind, verb string, err error) {
	at := func(list []string, word string) int {
		for i, known := range list {
			if known == word {
				return i
			}
		}
		return 0
	}
	for i, known := range kinds {
		if known == kind {
			c.n[i][at(verbs, verb)][at(outcomes, outcome(err))].Add(1)
		}
	}
}

func outcome(err error) string {
	var refused *registration.RefusedError
	var later *registration.RetryError
	switch {
	case err == nil, !tells(err):
		return "ok"
	case errors.As(err, &refused):
		return "refused"
	case errors.As(err, &later):
		return "later"
	}
	return "failed"
}

// maxShown bounds the hubs that have series of their own; with more of them there are the numbers of each kind and state alone.
const maxShown = 1000

var (
	hubsDesc = prometheus.NewDesc("latchkey_linked_hubs", "Linked hubs of all scopes by kind and state, as this node sees them.", []string{"kind", "state"}, nil)
	upDesc   = prometheus.NewDesc("latchkey_linked_hub_up", "1 if the linked hub does well, 0 if it fails or is left alone; nothing while that is not known.", []string{"kind", "hub"}, nil)
	tookDesc = prometheus.NewDesc("latchkey_linked_hub_latency_seconds", "How long the linked hub took to answer this node's last look.", []string{"kind", "hub"}, nil)
	callDesc = prometheus.NewDesc("latchkey_linked_hub_calls_total", "Calls of this node for devices, by kind of hub, call and outcome.", []string{"kind", "call", "outcome"}, nil)
)

// Describe implements prometheus.Collector.
func (h *Hub) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{hubsDesc, upDesc, tookDesc, callDesc} {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (h *Hub) Collect(to chan<- prometheus.Metric) {
	type group struct {
		kind  registration.HubKind
		state registration.HubState
	}
	all, groups, total := h.config.All(), map[group]int{}, 0
	for _, hubs := range all {
		total += len(hubs)
	}
	for scope, hubs := range all {
		for _, hub := range hubs {
			health := h.Health(scope, hub.Name)
			groups[group{hub.Kind, health.State}]++
			if total <= maxShown {
				collect(to, hub, health)
			}
		}
	}
	for g, n := range groups {
		to <- prometheus.MustNewConstMetric(hubsDesc, prometheus.GaugeValue, float64(n), string(g.kind), string(g.state))
	}
	for i, kind := range kinds {
		for j, verb := range verbs {
			for k, outcome := range outcomes {
				if n := h.calls.n[i][j][k].Load(); n > 0 {
					to <- prometheus.MustNewConstMetric(callDesc, prometheus.CounterValue, float64(n), string(kind), verb, outcome)
				}
			}
		}
	}
}

func collect(to chan<- prometheus.Metric, hub registration.LinkedHub, health registration.HubHealth) {
	if health.Latency > 0 {
		to <- prometheus.MustNewConstMetric(tookDesc, prometheus.GaugeValue, health.Latency.Seconds(), string(hub.Kind), hub.Name)
	}
	switch health.State {
	case registration.HubOK:
		to <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, 1, string(hub.Kind), hub.Name)
	case registration.HubFailing, registration.HubCircuitOpen:
		to <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, 0, string(hub.Kind), hub.Name)
	}
}
