package storetest

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

func (h *history) key(scope, id string) key { return key{scope, dps.FoldID(id)} }

// check compares all that the store shows with the model, after every step.
func (h *history) check(t *rapid.T) {
	h.T = t
	for _, scope := range []string{"s1", "s2"} {
		for _, id := range []string{"a", "b"} {
			d, err := h.store.Device(h.ctx, scope, id)
			h.same("device", d, err, h.model.device(scope, id))
			srks, err := h.store.Owners(h.ctx, scope, id, time.Time{})
			var want [][]byte
			for _, o := range h.model.owners[key{scope, id}] {
				want = append(want, []byte(o.srk))
			}
			h.same("owners", srks, err, want)
			g, err := h.store.Group(h.ctx, scope, id)
			if isNotFound(err) {
				g, err = registration.Group{}, nil
			}
			h.same("group", g, err, h.model.groups[key{scope, id}])
		}
		for _, device := range []string{"a", "A", "b"} {
			i, err := h.store.Identity(h.ctx, scope, "hub", device)
			want, found := h.model.identities[key{scope, "hub/" + device}]
			if !found && isNotFound(err) {
				err = nil
			}
			h.same("identity", i, err, want)
		}
		// Every step has its own name, for its operation and its audit row: the last few suffice, the earlier ones were
		// compared before and nothing may change an audit row or an operation of the past but a prune, which the current
		// operations show.
		for n := max(1, h.steps-5); n <= h.steps; n++ {
			h.checkStep(scope, numbered("step", n))
		}
	}
	h.checkUnfinished(h.now)
	h.checkUnfinished(h.now.Add(time.Minute))
	owner, err := h.store.HubOwner(h.ctx)
	h.same("hub owner", owner, err, h.model.hub)
	backlog, err := h.store.OutboxBacklog(h.ctx)
	h.same("outbox", backlog.Waiting, err, len(h.model.outbox))
}

func (h *history) checkUnfinished(createdBefore time.Time) {
	got, err := unfinishedPages(h.ctx, h.store, createdBefore, 3)
	want := h.model.unfinished(createdBefore)
	slices.SortFunc(want, unfinishedOrder)
	h.same("unfinished", got, err, want)
}

func (h *history) checkStep(scope, name string) {
	op, err := h.store.Operation(h.ctx, scope, name)
	want, found := h.model.operations[key{scope, name}]
	if !found && isNotFound(err) {
		op, err = registration.Operation{}, nil
	}
	h.same("operation "+name, op, err, want)
	rows, err := h.store.AuditByTrackingID(h.ctx, scope, name)
	h.same("audit of "+name, rows, err, h.model.audit[key{scope, name}])
}

func (h *history) same(what string, got any, err error, want any) {
	if err != nil {
		h.Fatalf("%s: %v", what, err)
	}
	if d := diff(got, want); d != "" {
		h.Fatalf("%s (-model +store):\n%s", what, d)
	}
}
