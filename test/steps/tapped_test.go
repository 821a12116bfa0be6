package steps

import (
	"context"
	"time"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/storetest"
)

// tapped is a store behind a tap: every method of it goes through. One that does not is found by TestEveryCallIsTapped.
type tapped struct {
	storetest.Store
	tap     *tap
	noLease bool // claims are over at once: who dies has left nothing that others wait for
	noRest  bool // work that is put off for less than a minute is due at once
}

func (s *tapped) AppendAudit(ctx context.Context, a string, b registration.Audit) error {
	return none(s.tap, ctx, "AppendAudit", func(ctx context.Context) error { return s.Store.AppendAudit(ctx, a, b) })
}

func (s *tapped) AuditByTrackingID(ctx context.Context, a string, b string) ([]registration.Audit, error) {
	return one(s.tap, ctx, "AuditByTrackingID", func(ctx context.Context) ([]registration.Audit, error) { return s.Store.AuditByTrackingID(ctx, a, b) })
}

func (s *tapped) AuditPage(ctx context.Context, a string, b uint64, c int) ([]registration.AuditLine, error) {
	return one(s.tap, ctx, "AuditPage", func(ctx context.Context) ([]registration.AuditLine, error) { return s.Store.AuditPage(ctx, a, b, c) })
}

func (s *tapped) CACertificates(ctx context.Context, a string, b string, c int) ([]registration.CACertificate, error) {
	return one(s.tap, ctx, "CACertificates", func(ctx context.Context) ([]registration.CACertificate, error) {
		return s.Store.CACertificates(ctx, a, b, c)
	})
}

func (s *tapped) ClaimOutbox(ctx context.Context, a registration.OutboxClaim) ([]registration.OutboxRow, error) {
	if s.noLease {
		a.Lease = 0
	}
	return one(s.tap, ctx, "ClaimOutbox", func(ctx context.Context) ([]registration.OutboxRow, error) { return s.Store.ClaimOutbox(ctx, a) })
}

func (s *tapped) CreateScope(ctx context.Context, a registration.Scope, b registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "CreateScope", func(ctx context.Context) (registration.Verdict, error) { return s.Store.CreateScope(ctx, a, b) })
}

func (s *tapped) DeleteCACertificate(ctx context.Context, a string, b string, c *uint64, d registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeleteCACertificate", func(ctx context.Context) (registration.Verdict, error) {
		return s.Store.DeleteCACertificate(ctx, a, b, c, d)
	})
}

func (s *tapped) DeleteEnrollment(ctx context.Context, a string, b string, c *uint64, d registration.Audit, e registration.HubOrder) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeleteEnrollment", func(ctx context.Context) (registration.Verdict, error) {
		return s.Store.DeleteEnrollment(ctx, a, b, c, d, e)
	})
}

func (s *tapped) DeleteGroup(ctx context.Context, a string, b string, c *uint64, d registration.Audit, e registration.HubOrder) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeleteGroup", func(ctx context.Context) (registration.Verdict, error) {
		return s.Store.DeleteGroup(ctx, a, b, c, d, e)
	})
}

func (s *tapped) DeleteHub(ctx context.Context, a string, b string, c *uint64, d registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeleteHub", func(ctx context.Context) (registration.Verdict, error) { return s.Store.DeleteHub(ctx, a, b, c, d) })
}

func (s *tapped) DeletePolicy(ctx context.Context, a string, b string, c registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeletePolicy", func(ctx context.Context) (registration.Verdict, error) { return s.Store.DeletePolicy(ctx, a, b, c) })
}

func (s *tapped) DeleteRegistration(ctx context.Context, a string, b string, c *uint64, d registration.Audit, e registration.HubOrder) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeleteRegistration", func(ctx context.Context) (registration.Verdict, error) {
		return s.Store.DeleteRegistration(ctx, a, b, c, d, e)
	})
}

func (s *tapped) DeleteScope(ctx context.Context, a string, b registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeleteScope", func(ctx context.Context) (registration.Verdict, error) { return s.Store.DeleteScope(ctx, a, b) })
}

func (s *tapped) Device(ctx context.Context, a string, b string) (registration.Device, error) {
	return one(s.tap, ctx, "Device", func(ctx context.Context) (registration.Device, error) { return s.Store.Device(ctx, a, b) })
}

func (s *tapped) Enrollments(ctx context.Context, a string, b string, c int) ([]registration.Listed, error) {
	return one(s.tap, ctx, "Enrollments", func(ctx context.Context) ([]registration.Listed, error) { return s.Store.Enrollments(ctx, a, b, c) })
}

func (s *tapped) ExpireAudit(ctx context.Context, a string, b time.Time, c int, d *registration.Audit) (int, error) {
	return one(s.tap, ctx, "ExpireAudit", func(ctx context.Context) (int, error) { return s.Store.ExpireAudit(ctx, a, b, c, d) })
}

func (s *tapped) Finish(ctx context.Context, a string, b registration.Finish) (registration.Verdict, error) {
	return one(s.tap, ctx, "Finish", func(ctx context.Context) (registration.Verdict, error) { return s.Store.Finish(ctx, a, b) })
}

func (s *tapped) Group(ctx context.Context, a string, b string) (registration.Group, error) {
	return one(s.tap, ctx, "Group", func(ctx context.Context) (registration.Group, error) { return s.Store.Group(ctx, a, b) })
}

func (s *tapped) Groups(ctx context.Context, a string, b string, c int) ([]registration.Group, error) {
	return one(s.tap, ctx, "Groups", func(ctx context.Context) ([]registration.Group, error) { return s.Store.Groups(ctx, a, b, c) })
}

func (s *tapped) GroupsRevision(ctx context.Context, a string) (uint64, error) {
	return one(s.tap, ctx, "GroupsRevision", func(ctx context.Context) (uint64, error) { return s.Store.GroupsRevision(ctx, a) })
}

func (s *tapped) Holdings(ctx context.Context, a string) (registration.Holdings, error) {
	return one(s.tap, ctx, "Holdings", func(ctx context.Context) (registration.Holdings, error) { return s.Store.Holdings(ctx, a) })
}

func (s *tapped) HubDevices(ctx context.Context, a string) (map[string]registration.HubCount, error) {
	return one(s.tap, ctx, "HubDevices", func(ctx context.Context) (map[string]registration.HubCount, error) { return s.Store.HubDevices(ctx, a) })
}

func (s *tapped) HubOwner(ctx context.Context) (registration.HubOwner, error) {
	return one(s.tap, ctx, "HubOwner", func(ctx context.Context) (registration.HubOwner, error) { return s.Store.HubOwner(ctx) })
}

func (s *tapped) Identity(ctx context.Context, a string, b string, c string) (registration.Identity, error) {
	return one(s.tap, ctx, "Identity", func(ctx context.Context) (registration.Identity, error) { return s.Store.Identity(ctx, a, b, c) })
}

func (s *tapped) MoveHub(ctx context.Context, a registration.HubOwner, b registration.HubOwner) (registration.Verdict, error) {
	return one(s.tap, ctx, "MoveHub", func(ctx context.Context) (registration.Verdict, error) { return s.Store.MoveHub(ctx, a, b) })
}

func (s *tapped) Operation(ctx context.Context, a string, b string) (registration.Operation, error) {
	return one(s.tap, ctx, "Operation", func(ctx context.Context) (registration.Operation, error) { return s.Store.Operation(ctx, a, b) })
}

func (s *tapped) OutboxBacklog(ctx context.Context) (registration.OutboxBacklog, error) {
	return one(s.tap, ctx, "OutboxBacklog", func(ctx context.Context) (registration.OutboxBacklog, error) { return s.Store.OutboxBacklog(ctx) })
}

func (s *tapped) Owners(ctx context.Context, a string, b string, c time.Time) ([][]uint8, error) {
	return one(s.tap, ctx, "Owners", func(ctx context.Context) ([][]uint8, error) { return s.Store.Owners(ctx, a, b, c) })
}

func (s *tapped) Allocate(ctx context.Context, a string, b registration.Allocated) (registration.Verdict, error) {
	return one(s.tap, ctx, "Allocate", func(ctx context.Context) (registration.Verdict, error) { return s.Store.Allocate(ctx, a, b) })
}

func (s *tapped) SaveMove(ctx context.Context, a string, b registration.SavedMove) (registration.Verdict, error) {
	return one(s.tap, ctx, "SaveMove", func(ctx context.Context) (registration.Verdict, error) { return s.Store.SaveMove(ctx, a, b) })
}

func (s *tapped) OutboxClaimed(ctx context.Context, a string, b registration.Outbox) (bool, error) {
	return one(s.tap, ctx, "OutboxClaimed", func(ctx context.Context) (bool, error) { return s.Store.OutboxClaimed(ctx, a, b) })
}

func (s *tapped) PassOutbox(ctx context.Context, a string, b registration.Outbox, c string, d []registration.Outbox) (registration.Verdict, error) {
	return one(s.tap, ctx, "PassOutbox", func(ctx context.Context) (registration.Verdict, error) { return s.Store.PassOutbox(ctx, a, b, c, d) })
}

func (s *tapped) PostponeOutbox(ctx context.Context, a string, b registration.Outbox, c string, d time.Duration, e string) (registration.Verdict, error) {
	if s.noRest && d < time.Minute {
		d = 0
	}
	return one(s.tap, ctx, "PostponeOutbox", func(ctx context.Context) (registration.Verdict, error) {
		return s.Store.PostponeOutbox(ctx, a, b, c, d, e)
	})
}

func (s *tapped) Prune(ctx context.Context, a time.Time, b time.Time, c int) (int, error) {
	return one(s.tap, ctx, "Prune", func(ctx context.Context) (int, error) { return s.Store.Prune(ctx, a, b, c) })
}

func (s *tapped) PruneScopes(ctx context.Context, a time.Time, b int) (int, error) {
	return one(s.tap, ctx, "PruneScopes", func(ctx context.Context) (int, error) { return s.Store.PruneScopes(ctx, a, b) })
}

func (s *tapped) PutAllEnrollments(ctx context.Context, a string, b []registration.EnrollmentPut) ([]registration.Verdict, error) {
	return one(s.tap, ctx, "PutAllEnrollments", func(ctx context.Context) ([]registration.Verdict, error) { return s.Store.PutAllEnrollments(ctx, a, b) })
}

func (s *tapped) PutAllocation(ctx context.Context, a string, b registration.AllocationSettings, c *uint64, d registration.Audit) (registration.AllocationSettings, registration.Verdict, error) {
	return two(s.tap, ctx, "PutAllocation", func(ctx context.Context) (registration.AllocationSettings, registration.Verdict, error) {
		return s.Store.PutAllocation(ctx, a, b, c, d)
	})
}

func (s *tapped) PutCACertificate(ctx context.Context, a string, b registration.CACertificate, c *uint64, d registration.Audit) (registration.CACertificate, registration.Verdict, error) {
	return two(s.tap, ctx, "PutCACertificate", func(ctx context.Context) (registration.CACertificate, registration.Verdict, error) {
		return s.Store.PutCACertificate(ctx, a, b, c, d)
	})
}

func (s *tapped) PutEnrollment(ctx context.Context, a string, b registration.Enrollment, c *uint64, d registration.Audit, e registration.HubOrder) (registration.Enrollment, registration.Verdict, error) {
	return two(s.tap, ctx, "PutEnrollment", func(ctx context.Context) (registration.Enrollment, registration.Verdict, error) {
		return s.Store.PutEnrollment(ctx, a, b, c, d, e)
	})
}

func (s *tapped) PutEnrollments(ctx context.Context, a string, b []registration.EnrollmentPut) ([]registration.Verdict, error) {
	return one(s.tap, ctx, "PutEnrollments", func(ctx context.Context) ([]registration.Verdict, error) { return s.Store.PutEnrollments(ctx, a, b) })
}

func (s *tapped) PutGroup(ctx context.Context, a string, b registration.Group, c *uint64, d registration.Audit, e registration.HubOrder) (registration.Group, registration.Verdict, error) {
	return two(s.tap, ctx, "PutGroup", func(ctx context.Context) (registration.Group, registration.Verdict, error) {
		return s.Store.PutGroup(ctx, a, b, c, d, e)
	})
}

func (s *tapped) PutHub(ctx context.Context, a string, b registration.LinkedHub, c *uint64, d registration.Audit) (registration.LinkedHub, registration.Verdict, error) {
	return two(s.tap, ctx, "PutHub", func(ctx context.Context) (registration.LinkedHub, registration.Verdict, error) {
		return s.Store.PutHub(ctx, a, b, c, d)
	})
}

func (s *tapped) Session(ctx context.Context, a string, b string, c string) (uint32, error) {
	return one(s.tap, ctx, "Session", func(ctx context.Context) (uint32, error) { return s.Store.Session(ctx, a, b, c) })
}

func (s *tapped) PutSession(ctx context.Context, a string, b string, c string, d uint32) (registration.Verdict, error) {
	return one(s.tap, ctx, "PutSession", func(ctx context.Context) (registration.Verdict, error) { return s.Store.PutSession(ctx, a, b, c, d) })
}

func (s *tapped) CountMessages(ctx context.Context, a string, b string, c string) (int, error) {
	return one(s.tap, ctx, "CountMessages", func(ctx context.Context) (int, error) { return s.Store.CountMessages(ctx, a, b, c) })
}

func (s *tapped) DeleteIdentity(ctx context.Context, a string, b registration.IdentityDelete, c registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeleteIdentity", func(ctx context.Context) (registration.Verdict, error) { return s.Store.DeleteIdentity(ctx, a, b, c) })
}

func (s *tapped) DeliveredMessage(ctx context.Context, a string, b string, c string, d uint64) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeliveredMessage", func(ctx context.Context) (registration.Verdict, error) {
		return s.Store.DeliveredMessage(ctx, a, b, c, d)
	})
}

func (s *tapped) EnqueueMessage(ctx context.Context, a string, b registration.HubMessage, c int) (uint64, registration.Verdict, error) {
	return two(s.tap, ctx, "EnqueueMessage", func(ctx context.Context) (uint64, registration.Verdict, error) {
		return s.Store.EnqueueMessage(ctx, a, b, c)
	})
}

func (s *tapped) ExpireMessages(ctx context.Context, a time.Time, b int) ([]registration.ExpiredMessage, error) {
	return one(s.tap, ctx, "ExpireMessages", func(ctx context.Context) ([]registration.ExpiredMessage, error) {
		return s.Store.ExpireMessages(ctx, a, b)
	})
}

func (s *tapped) HubLeftovers(ctx context.Context, a int) ([]registration.HubLeftover, error) {
	return one(s.tap, ctx, "HubLeftovers", func(ctx context.Context) ([]registration.HubLeftover, error) { return s.Store.HubLeftovers(ctx, a) })
}

func (s *tapped) Identities(ctx context.Context, a string, b string, c string, d int) ([]registration.Identity, error) {
	return one(s.tap, ctx, "Identities", func(ctx context.Context) ([]registration.Identity, error) { return s.Store.Identities(ctx, a, b, c, d) })
}

func (s *tapped) IdentityGeneration(ctx context.Context, a string, b string, c string) (uint64, error) {
	return one(s.tap, ctx, "IdentityGeneration", func(ctx context.Context) (uint64, error) { return s.Store.IdentityGeneration(ctx, a, b, c) })
}

func (s *tapped) Messages(ctx context.Context, a string, b string, c string, d uint64, e int) ([]registration.HubMessage, error) {
	return one(s.tap, ctx, "Messages", func(ctx context.Context) ([]registration.HubMessage, error) {
		return s.Store.Messages(ctx, a, b, c, d, e)
	})
}

func (s *tapped) PutTwin(ctx context.Context, a string, b registration.TwinPut) (registration.Verdict, error) {
	return one(s.tap, ctx, "PutTwin", func(ctx context.Context) (registration.Verdict, error) { return s.Store.PutTwin(ctx, a, b) })
}

func (s *tapped) SettleMessage(ctx context.Context, a string, b string, c string, d uint64) (registration.Verdict, error) {
	return one(s.tap, ctx, "SettleMessage", func(ctx context.Context) (registration.Verdict, error) { return s.Store.SettleMessage(ctx, a, b, c, d) })
}

func (s *tapped) Twin(ctx context.Context, a string, b string, c string) (registration.Twin, error) {
	return one(s.tap, ctx, "Twin", func(ctx context.Context) (registration.Twin, error) { return s.Store.Twin(ctx, a, b, c) })
}

func (s *tapped) PutIdentity(ctx context.Context, a string, b registration.IdentityPut, c registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "PutIdentity", func(ctx context.Context) (registration.Verdict, error) { return s.Store.PutIdentity(ctx, a, b, c) })
}

func (s *tapped) PutPolicy(ctx context.Context, a string, b *registration.AccessPolicy, c registration.AccessPolicy, d registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "PutPolicy", func(ctx context.Context) (registration.Verdict, error) { return s.Store.PutPolicy(ctx, a, b, c, d) })
}

func (s *tapped) PutScopeCertificate(ctx context.Context, a string, b []uint8, c []uint8, d registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "PutScopeCertificate", func(ctx context.Context) (registration.Verdict, error) {
		return s.Store.PutScopeCertificate(ctx, a, b, c, d)
	})
}

func (s *tapped) PutWebhookKey(ctx context.Context, a string, b []byte, c *uint64, d registration.Audit) (registration.AllocationSettings, registration.Verdict, error) {
	return two(s.tap, ctx, "PutWebhookKey", func(ctx context.Context) (registration.AllocationSettings, registration.Verdict, error) {
		return s.Store.PutWebhookKey(ctx, a, b, c, d)
	})
}

func (s *tapped) Redeem(ctx context.Context, a string, b registration.Redemption) (uint64, registration.Verdict, error) {
	return two(s.tap, ctx, "Redeem", func(ctx context.Context) (uint64, registration.Verdict, error) { return s.Store.Redeem(ctx, a, b) })
}

func (s *tapped) Refuse(ctx context.Context, a string, b registration.Refused) (registration.Verdict, error) {
	return one(s.tap, ctx, "Refuse", func(ctx context.Context) (registration.Verdict, error) { return s.Store.Refuse(ctx, a, b) })
}

func (s *tapped) Registrations(ctx context.Context, a string, b string, c string, d int) ([]registration.Registration, error) {
	return one(s.tap, ctx, "Registrations", func(ctx context.Context) ([]registration.Registration, error) {
		return s.Store.Registrations(ctx, a, b, c, d)
	})
}

func (s *tapped) RememberOwner(ctx context.Context, a string, b string, c []uint8, d time.Time) error {
	return none(s.tap, ctx, "RememberOwner", func(ctx context.Context) error { return s.Store.RememberOwner(ctx, a, b, c, d) })
}

func (s *tapped) ReplaceSealed(ctx context.Context, a []registration.SealedReplacement) (int, error) {
	return one(s.tap, ctx, "ReplaceSealed", func(ctx context.Context) (int, error) { return s.Store.ReplaceSealed(ctx, a) })
}

func (s *tapped) Scopes(ctx context.Context) ([]registration.Scope, error) {
	return one(s.tap, ctx, "Scopes", func(ctx context.Context) ([]registration.Scope, error) { return s.Store.Scopes(ctx) })
}

func (s *tapped) ScopesRevision(ctx context.Context) (uint64, error) {
	return one(s.tap, ctx, "ScopesRevision", func(ctx context.Context) (uint64, error) { return s.Store.ScopesRevision(ctx) })
}

func (s *tapped) SealedValues(ctx context.Context, a string, b int) ([]registration.SealedValue, string, error) {
	return two(s.tap, ctx, "SealedValues", func(ctx context.Context) ([]registration.SealedValue, string, error) {
		return s.Store.SealedValues(ctx, a, b)
	})
}

func (s *tapped) SettleOutbox(ctx context.Context, a string, b registration.Outbox, c string) (registration.Verdict, error) {
	return one(s.tap, ctx, "SettleOutbox", func(ctx context.Context) (registration.Verdict, error) { return s.Store.SettleOutbox(ctx, a, b, c) })
}

func (s *tapped) Unfinished(ctx context.Context, a time.Time, b registration.Unfinished, c int) ([]registration.Unfinished, error) {
	return one(s.tap, ctx, "Unfinished", func(ctx context.Context) ([]registration.Unfinished, error) { return s.Store.Unfinished(ctx, a, b, c) })
}

// tappedHub is a hub behind the same tap.
type tappedHub struct {
	registration.Hub
	tap *tap
}

func (h *tappedHub) EnsureDevice(ctx context.Context, a, b string, c registration.HubDevice) error {
	return none(h.tap, ctx, "EnsureDevice", func(ctx context.Context) error { return h.Hub.EnsureDevice(ctx, a, b, c) })
}

func (h *tappedHub) RemoveDevice(ctx context.Context, a, b, c string, d uint64) error {
	return none(h.tap, ctx, "RemoveDevice", func(ctx context.Context) error { return h.Hub.RemoveDevice(ctx, a, b, c, d) })
}

func (h *tappedHub) DisableDevice(ctx context.Context, a, b, c string, d uint64) error {
	return none(h.tap, ctx, "DisableDevice", func(ctx context.Context) error { return h.Hub.DisableDevice(ctx, a, b, c, d) })
}

func (h *tappedHub) DeviceData(ctx context.Context, a, b, c string) (registration.DeviceData, error) {
	return one(h.tap, ctx, "DeviceData", func(ctx context.Context) (registration.DeviceData, error) { return h.Hub.DeviceData(ctx, a, b, c) })
}

func (h *tappedHub) Drop(ctx context.Context, a, b string) error {
	return none(h.tap, ctx, "Drop", func(ctx context.Context) error { return h.Hub.Drop(ctx, a, b) })
}

func (s *tapped) CloseRegistration(ctx context.Context, a string, b registration.Closing) (uint64, registration.Verdict, error) {
	return two(s.tap, ctx, "CloseRegistration", func(ctx context.Context) (uint64, registration.Verdict, error) {
		return s.Store.CloseRegistration(ctx, a, b)
	})
}

func (s *tapped) Closure(ctx context.Context, a string, b string) (registration.Closure, error) {
	return one(s.tap, ctx, "Closure", func(ctx context.Context) (registration.Closure, error) { return s.Store.Closure(ctx, a, b) })
}

func (s *tapped) PutOffer(ctx context.Context, a string, b registration.Offer, c uint64, d registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "PutOffer", func(ctx context.Context) (registration.Verdict, error) { return s.Store.PutOffer(ctx, a, b, c, d) })
}

func (s *tapped) DeleteOffer(ctx context.Context, a string, b string, c registration.Audit) (registration.Verdict, error) {
	return one(s.tap, ctx, "DeleteOffer", func(ctx context.Context) (registration.Verdict, error) { return s.Store.DeleteOffer(ctx, a, b, c) })
}

func (s *tapped) Offers(ctx context.Context, a string, b string, c int) ([]registration.Offer, error) {
	return one(s.tap, ctx, "Offers", func(ctx context.Context) ([]registration.Offer, error) { return s.Store.Offers(ctx, a, b, c) })
}

func (s *tapped) Offered(ctx context.Context, a string, b [32]byte) (registration.Offered, error) {
	return one(s.tap, ctx, "Offered", func(ctx context.Context) (registration.Offered, error) { return s.Store.Offered(ctx, a, b) })
}

func (s *tapped) AcceptOffer(ctx context.Context, a string, b registration.Acceptance) (registration.Accepted, registration.Verdict, error) {
	return two(s.tap, ctx, "AcceptOffer", func(ctx context.Context) (registration.Accepted, registration.Verdict, error) {
		return s.Store.AcceptOffer(ctx, a, b)
	})
}
