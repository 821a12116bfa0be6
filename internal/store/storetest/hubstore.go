package storetest

import (
	"context"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// HubStore is what the embedded hub keeps, in the words of embedded.Identities: this room does not import that one.
type HubStore interface {
	PutIdentity(ctx context.Context, scope string, put registration.IdentityPut, audit registration.Audit) (registration.Verdict, error)
	Identity(ctx context.Context, scope, hub, deviceID string) (registration.Identity, error)
	Identities(ctx context.Context, scope, hub, after string, limit int) ([]registration.Identity, error)
	DeleteIdentity(ctx context.Context, scope string, d registration.IdentityDelete, audit registration.Audit) (registration.Verdict, error)
	IdentityGeneration(ctx context.Context, scope, hub, deviceID string) (uint64, error)

	Twin(ctx context.Context, scope, hub, deviceID string) (registration.Twin, error)
	PutTwin(ctx context.Context, scope string, put registration.TwinPut) (registration.Verdict, error)

	// HubLeftovers is for fsck: there never are any, unless somebody else has written to the store.
	HubLeftovers(ctx context.Context, limit int) ([]registration.HubLeftover, error)

	EnqueueMessage(ctx context.Context, scope string, m registration.HubMessage, most int) (seq uint64, verdict registration.Verdict, err error)
	Messages(ctx context.Context, scope, hub, deviceID string, after uint64, limit int) ([]registration.HubMessage, error)
	CountMessages(ctx context.Context, scope, hub, deviceID string) (int, error)
	SettleMessage(ctx context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error)
	DeliveredMessage(ctx context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error)
	ExpireMessages(ctx context.Context, before time.Time, limit int) ([]registration.ExpiredMessage, error)

	Session(ctx context.Context, scope, hub, deviceID string) (listens uint32, err error)
	PutSession(ctx context.Context, scope, hub, deviceID string, listens uint32) (registration.Verdict, error)
}
