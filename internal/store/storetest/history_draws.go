package storetest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// mix is what a history is made of, and how often.
var mix = []struct {
	method string
	weight int
	make   func(h *History) call
}{
	{"Redeem", 16, (*History).redeem}, {"Redeem", 6, (*History).redeemInGroup}, {"Refuse", 3, (*History).refuse}, {"Finish", 12, (*History).finish},
	{"Allocate", 6, (*History).allocate}, {"SaveMove", 5, (*History).saveMove},
	{"Device", 3, (*History).readDevice}, {"Operation", 3, (*History).readOperation}, {"Unfinished", 2, (*History).unfinished},
	{"Prune", 5, (*History).prune}, {"RememberOwner", 8, (*History).remember}, {"Owners", 2, (*History).readOwners},
	{"DeleteRegistration", 3, (*History).deleteRegistration}, {"PutIdentity", 8, (*History).putIdentity}, {"Identity", 2, (*History).readIdentity},
	{"DeleteIdentity", 4, (*History).deleteIdentity}, {"Identities", 2, (*History).listIdentities}, {"IdentityGeneration", 2, (*History).readGeneration},
	{"PutTwin", 5, (*History).putTwin}, {"Twin", 2, (*History).readTwin}, {"EnqueueMessage", 9, (*History).enqueueMessage}, {"Messages", 2, (*History).readMessages},
	{"Session", 2, (*History).readSession}, {"PutSession", 2, (*History).putSession},
	{"CountMessages", 2, (*History).countMessages}, {"SettleMessage", 3, (*History).settleMessage}, {"DeliveredMessage", 3, (*History).deliveredMessage},
	{"ExpireMessages", 3, (*History).expireMessages}, {"HubLeftovers", 2, (*History).hubLeftovers},
	{"HubOwner", 1, (*History).readHubOwner}, {"MoveHub", 4, (*History).moveHub}, {"ClaimOutbox", 4, (*History).claimOutbox},
	{"SettleOutbox", 4, (*History).settleOutbox}, {"PostponeOutbox", 4, (*History).postponeOutbox}, {"OutboxBacklog", 2, (*History).outboxBacklog},
	{"OutboxClaimed", 2, (*History).outboxClaimed}, {"PassOutbox", 2, (*History).passOutbox},

	{"PutEnrollment", 10, (*History).putEnrollment}, {"PutEnrollments", 4, (*History).putEnrollments}, {"PutAllEnrollments", 4, (*History).putAllEnrollments},
	{"DeleteEnrollment", 5, (*History).deleteEnrollment}, {"PutGroup", 9, (*History).putGroup}, {"DeleteGroup", 3, (*History).deleteGroup},
	{"Group", 2, (*History).readGroup}, {"Groups", 2, (*History).listGroups}, {"PutCACertificate", 7, (*History).putAuthority},
	{"DeleteCACertificate", 3, (*History).deleteAuthority}, {"CACertificates", 2, (*History).listAuthorities}, {"GroupsRevision", 2, (*History).readGroupsRevision},
	{"Enrollments", 2, (*History).listEnrollments}, {"Registrations", 5, (*History).listRegistrations}, {"Holdings", 2, (*History).countHoldings},

	{"CloseRegistration", 5, (*History).closeRegistration}, {"Closure", 2, (*History).readClosure}, {"PutOffer", 6, (*History).putOffer},
	{"DeleteOffer", 1, (*History).deleteOffer}, {"Offers", 1, (*History).listOffers}, {"Offered", 2, (*History).readOffered}, {"AcceptOffer", 6, (*History).acceptOffer},

	{"CreateScope", 2, (*History).createScope}, {"DeleteScope", 2, (*History).deleteScope}, {"Scopes", 2, (*History).readScopes}, {"ScopesRevision", 3, (*History).followScopes},
	{"PruneScopes", 2, (*History).pruneScopes}, {"PutScopeCertificate", 3, (*History).putScopeCertificate},
	{"PutPolicy", 8, (*History).putPolicy}, {"DeletePolicy", 4, (*History).deletePolicy},
	{"PutHub", 6, (*History).putHub}, {"DeleteHub", 3, (*History).deleteHub}, {"PutAllocation", 4, (*History).putAllocation},
	{"PutWebhookKey", 3, (*History).putWebhookKey}, {"HubDevices", 2, (*History).countHubDevices},

	{"AppendAudit", 2, (*History).appendAudit}, {"AuditByTrackingID", 2, (*History).auditByTrackingID}, {"AuditPage", 4, (*History).auditPage},
	{"ExpireAudit", 3, (*History).expireAudit}, {"SealedValues", 2, (*History).listSealed}, {"ReplaceSealed", 3, (*History).replaceSealed},
}

// Few names, so that calls meet each other; some differ by case alone.
var (
	someIDs    = []string{"a", "A", "b", "c-1", "C-1", "d"}
	someGroups = []string{"line", "Line", "hall"}
	someNames  = []string{"root", "Root", "other"}
	someHosts  = []string{"one.example", "ONE.example", "two.example", "three.example", "four.example", "five.example"}
)

// from draws one of a list.
func from[T any](h *History, what string, list []T) T { return list[h.draw(len(list), what)] }

// one in n draws says yes.
func (h *History) rarely(n int, what string) bool { return h.draw(n, what) == n-1 }

// scope draws one: mostly one of the latest that were created, be it deleted since, seldom one that never was.
func (h *History) scope() string {
	if h.rarely(40, "no scope") {
		return "nowhere"
	}
	home, latest := h.scopes[0], h.scopes[max(0, len(h.scopes)-2):]
	return from(h, "scope", append([]string{home, home, home, home}, latest...))
}

// name is one that no other call has.
func (h *History) name() string { return fmt.Sprintf("step-%d", h.steps) }

// audit is a row with a tracking id of this call's own, or with one that others have too.
func (h *History) audit() registration.Audit {
	a := audit(h.name(), h.now)
	if h.rarely(3, "shared tracking id") {
		a.TrackingID = "shared"
	}
	return a
}

// model is the device as the model has it. The numbers are the model's.
func (h *History) model(scope, id string) registration.Device {
	d, err := h.players[0].Store.Device(h.ctx, scope, id)
	if err != nil {
		panic(err)
	}
	return d
}

// named is a revision of the model's as every player knows it: looked at after it was given.
func (h *History) named(scope string, revision uint64) uint64 {
	if revision == 0 {
		return 0
	}
	name, known := h.players[0].revision(scope).of[revision]
	if !known {
		panic(fmt.Sprintf("revision %d of %s was given and not looked at", revision, scope))
	}
	return name
}

// expectation is what a caller expects of a row, in names.
type expectation struct {
	none, any bool
	name      uint64
}

func (e expectation) String() string {
	switch {
	case e.none:
		return "none"
	case e.any:
		return "any"
	}
	return fmt.Sprintf("revision %d", e.name)
}

// of is the expectation in a player's numbers.
func (e expectation) of(p *player, scope string) *uint64 {
	switch {
	case e.none:
		return nil
	case e.any:
		return anyRevision
	}
	return pointer(p.revision(scope).number(e.name))
}

// expect draws what a caller expects: nothing, any, the current revision, an older one, or one that was never given.
func (h *History) expect(current uint64) expectation {
	return from(h, "expect", []expectation{
		{none: true}, {none: true}, {any: true}, {name: current}, {name: current}, {name: current}, {name: max(1, current) - 1}, {name: max(1, current) - 1}, {name: 1 << 40},
	})
}

// then draws a time: one of the moments of the latest calls, to which rows belong, exactly or a microsecond later.
func (h *History) then(what string) time.Time {
	at := len(h.moments) - 1 - min(h.draw(80, what), len(h.moments)-1)
	return h.moments[at].Add(time.Duration(h.draw(2, "behind")) * time.Microsecond)
}

// edge draws a time at which rows of a kind change sides: that of one of them, as the model has it.
func (h *History) edge(what string, moments []time.Time) time.Time {
	if len(moments) == 0 || h.draw(3, what) == 0 {
		return h.then(what)
	}
	slices.SortFunc(moments, time.Time.Compare) // they come out of a map
	return from(h, what, moments).Add(time.Duration(h.draw(2, "behind")) * time.Microsecond)
}

// id draws one, mostly of a device that is as wanted.
func (h *History) id(scope string, wanted func(registration.Device) bool) string {
	id := from(h, "id", someIDs)
	for range 8 {
		if wanted(h.model(scope, id)) {
			break
		}
		id = from(h, "another id", someIDs)
	}
	return id
}

func enrolled(d registration.Device) bool   { return d.Enrollment != nil }
func unenrolled(d registration.Device) bool { return d.Enrollment == nil }
func assigning(d registration.Device) bool {
	return d.Registration != nil && d.Registration.Status == registration.Assigning
}

// certificates draws up to two of few.
func (h *History) certificates() [][32]byte {
	var sums [][32]byte
	for range []int{0, 1, 2}[h.draw(3, "certificates")] {
		sums = append(sums, sha256.Sum256([]byte{byte(h.draw(6, "certificate"))}))
	}
	return sums
}

// at draws a hub and a device id: those of its own, or of few that others want too.
func (h *History) at(hub, device *string) {
	if h.draw(2, "device id") == 0 {
		*hub, *device = "hub.example", from(h, "device id", []string{"pump", "Pump", "valve"})
	}
}

// limit draws the size of a page.
func (h *History) limit() int { return from(h, "limit", []int{1, 2, 3, 1000}) }
