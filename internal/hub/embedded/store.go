package embedded

import (
	"context"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// Identities keeps devices and what they have at the hub, by scope, hub name (lower case, no port) and device id (case-sensitive). Transitions are as in
// registration.Store: atomic, durable when they return nil, and a Verdict other than Applied changes nothing.
type Identities interface {
	// PutIdentity writes the identity and its audit row together, and the twin that it is given, and purges the messages if it says so. Conflict if the stored generation or version is
	// not the one that was read, or the new generation is smaller, or the twin's version is not the one that was read; Superseded if a new identity has a smaller
	// generation than one that was deleted; OtherOwner if an owner is named that does not have the hub now. Created is kept on replace.
	PutIdentity(ctx context.Context, scope string, put registration.IdentityPut, audit registration.Audit) (registration.Verdict, error)
	// Identity reads one identity; registration.ErrNotFound if there is none.
	Identity(ctx context.Context, scope, hub, deviceID string) (registration.Identity, error)
	// Identities returns at most limit identities of a hub whose device id is greater than after ("" from the first), in order of its bytes.
	Identities(ctx context.Context, scope, hub, after string, limit int) ([]registration.Identity, error)
	// DeleteIdentity removes an identity with its twin and its messages, leaves the generation behind and writes the audit row. Missing if one was read and
	// there is none, Conflict if the stored generation or version is not the one that was read, Superseded if a greater generation was
	// left behind before, OtherOwner as PutIdentity. What is left behind is kept until registration.Store.Prune finds it idle.
	DeleteIdentity(ctx context.Context, scope string, d registration.IdentityDelete, audit registration.Audit) (registration.Verdict, error)
	// IdentityGeneration is that of the identity, or what a deleted one has left behind; 0 if there is neither.
	IdentityGeneration(ctx context.Context, scope, hub, deviceID string) (uint64, error)

	Twins
	Messages
	Sessions
}

// Sessions keeps what the session of a device listens to, in whatever bits the hub has for that, so that it outlives the process. It goes with the identity, and
// with a purge.
type Sessions interface {
	// Session is what was put last; 0 if nothing was.
	Session(ctx context.Context, scope, hub, deviceID string) (listens uint32, err error)
	// PutSession replaces it: Missing without an identity.
	PutSession(ctx context.Context, scope, hub, deviceID string, listens uint32) (registration.Verdict, error)
}

// News is the part of registration.OutboxStore that hands out rows of registration.OutboxDevice.
type News interface {
	ClaimOutbox(ctx context.Context, claim registration.OutboxClaim) ([]registration.OutboxRow, error)
	SettleOutbox(ctx context.Context, scope string, work registration.Outbox, claim string) (registration.Verdict, error)
}

// Twins keeps the twins of identities. They go with these.
type Twins interface {
	// Twin reads a twin; registration.ErrNotFound if the identity has none, or there is no identity.
	Twin(ctx context.Context, scope, hub, deviceID string) (registration.Twin, error)
	// PutTwin writes a twin, with its outbox row: Missing without an identity, Conflict if the stored version is not the one that was read.
	PutTwin(ctx context.Context, scope string, put registration.TwinPut) (registration.Verdict, error)
}

// Messages keeps what waits for devices. It goes with their identities.
type Messages interface {
	// EnqueueMessage appends a message, with its outbox row, to those of the device, of which there are then at most so many (expired ones count until they are removed), and
	// returns its number: Full, or Missing without an identity.
	EnqueueMessage(ctx context.Context, scope string, m registration.HubMessage, most int) (seq uint64, verdict registration.Verdict, err error)
	// Messages returns at most limit messages of a device with a number greater than after, in order.
	Messages(ctx context.Context, scope, hub, deviceID string, after uint64, limit int) ([]registration.HubMessage, error)
	// CountMessages counts those of a device.
	CountMessages(ctx context.Context, scope, hub, deviceID string) (int, error)
	// SettleMessage removes a message; Missing.
	SettleMessage(ctx context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error)
	// DeliveredMessage counts an attempt to deliver a message; Missing.
	DeliveredMessage(ctx context.Context, scope, hub, deviceID string, seq uint64) (registration.Verdict, error)
	// ExpireMessages removes messages of all scopes that expire before the given time, those first that expired first, at most limit, and returns
	// them without their bodies, in any order.
	ExpireMessages(ctx context.Context, before time.Time, limit int) ([]registration.ExpiredMessage, error)
}
