package storetest

import (
	"fmt"
	"net/netip"

	"latchkey.example/latchkey/internal/registration"
)

// tenant is a scope as the model has it.
func (h *History) tenant(id string) registration.Scope {
	for _, s := range h.tenants() {
		if s.ID == id {
			return s
		}
	}
	return registration.Scope{}
}

// someHubs are names that scopes want too.
var someHubs = []string{"one.example", "Two.example", "hub.example", "HUB.example", "other.example"}

func (h *History) putHub() call {
	scope, a := h.scope(), h.audit()
	hub := registration.LinkedHub{
		Name: from(h, "hub", someHubs), Kind: registration.HubAzure, Weight: 1 + h.draw(3, "weight"), Allocate: h.draw(2, "allocate") == 1,
		Draining: h.draw(2, "draining") == 1, Region: h.name(), Settings: []byte("settings " + h.name()), Created: h.now, Updated: h.now,
	}
	if h.draw(3, "secret") > 0 {
		hub.SealedSecret = []byte("secret " + h.name())
	}
	expect := h.expect(h.named(scope, h.hubRevision(scope, hub.Name)))
	return call{method: "PutHub", args: fmt.Sprintf("%s %s %s %s", scope, show(hub), expect, show(a)), run: func(p *player) string {
		stored, verdict, err := p.PutHub(h.ctx, scope, hub, expect.of(p, scope), a)
		return p.verdict(verdict, err) + " " + p.hub(scope, stored)
	}}
}

func (h *History) hubRevision(scope, name string) uint64 {
	hubs := h.tenant(scope).Hubs
	if at := hubAt(hubs, fold(scope, name).id); at >= 0 {
		return hubs[at].Revision
	}
	return 0
}

func (h *History) deleteHub() call {
	scope, name, a := h.scope(), from(h, "hub", someHubs), h.audit()
	expect := h.expect(h.named(scope, h.hubRevision(scope, name)))
	return call{method: "DeleteHub", args: fmt.Sprintf("%s %s %s %s", scope, name, expect, show(a)), run: func(p *player) string {
		return p.verdict(p.DeleteHub(h.ctx, scope, name, expect.of(p, scope), a))
	}}
}

func (h *History) putAllocation() call {
	scope, a := h.scope(), h.audit()
	settings := registration.AllocationSettings{Default: from(h, "default", []string{"", "hashed", "static"}), Updated: h.now}
	if h.draw(2, "regions") == 1 {
		settings.Regions = []registration.Region{{Name: h.name(), Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Latency: map[string]int{"hub.example": h.steps, "other.example": 3}}}
	}
	expect := h.expect(h.named(scope, h.tenant(scope).Allocation.Revision))
	return call{method: "PutAllocation", args: fmt.Sprintf("%s %s %s %s", scope, show(settings), expect, show(a)), run: func(p *player) string {
		stored, verdict, err := p.PutAllocation(h.ctx, scope, settings, expect.of(p, scope), a)
		return p.verdict(verdict, err) + " " + p.allocation(scope, stored)
	}}
}

func (h *History) putWebhookKey() call {
	scope, a := h.scope(), h.audit()
	var sealed []byte
	if h.draw(4, "key") > 0 {
		sealed = []byte("webhook key " + h.name())
	}
	expect := h.expect(h.named(scope, h.tenant(scope).Allocation.Revision))
	return call{method: "PutWebhookKey", args: fmt.Sprintf("%s %q %s %s", scope, sealed, expect, show(a)), run: func(p *player) string {
		stored, verdict, err := p.PutWebhookKey(h.ctx, scope, sealed, expect.of(p, scope), a)
		return p.verdict(verdict, err) + " " + p.allocation(scope, stored)
	}}
}

func (h *History) countHubDevices() call {
	scope := h.scope()
	return call{method: "HubDevices", args: scope, run: func(p *player) string {
		devices, err := p.HubDevices(h.ctx, scope)
		if err != nil {
			return p.failed(err)
		}
		return fmt.Sprint(devices) // in order of the names
	}}
}
