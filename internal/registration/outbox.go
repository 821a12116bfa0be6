package registration

import (
	"context"
	"strings"
	"time"
)

// OutboxStore keeps work that a transition has ordered and that is done after it, by whichever node comes first: a hub of another process must be
// called. A row is written by the transition itself (Redemption.Outbox, HubOrder), or not at all.
//
// A claim hands rows to one caller for a lease. Whoever does not end in time, because it died or hangs, loses them: the next claim
// takes them over. So work may be done twice, and must be such that this does no harm; settling is a compare-and-set by the claim, so that who
// has lost a row does not end it for the one who has it now.
//
// Due times and leases are of the store's own clock alone (the database server's, or that of the one process that has the file), and are
// given as spans: nodes whose clocks differ agree about them. None lies further ahead than OutboxHorizon; one that
// does was written before that clock was set back, and counts as due.
type OutboxStore interface {
	// ClaimOutbox gives at most claim.Limit rows of one kind that are due, those first that are due longest, to a claim that nobody has used before. No row is
	// given to two claims at a time. After an error rows may be claimed; they are due when the lease has run out.
	ClaimOutbox(ctx context.Context, claim OutboxClaim) ([]OutboxRow, error)
	// SettleOutbox removes a row that was done. Missing if there is none, Conflict if another claim has it, or none.
	SettleOutbox(ctx context.Context, scope string, work Outbox, claim string) (Verdict, error)
	// PostponeOutbox gives a row back, due after a span, with the reason why it could not be done; verdicts as SettleOutbox.
	PostponeOutbox(ctx context.Context, scope string, work Outbox, claim string, by time.Duration, failure string) (Verdict, error)
	// PassOutbox removes a row that was done, as SettleOutbox does, and writes the work that follows on it, all at once, due at once. Of rows that are there
	// already none is written again.
	PassOutbox(ctx context.Context, scope string, work Outbox, claim string, next []Outbox) (Verdict, error)
	// OutboxClaimed says whether a claim has a row and its lease has not run out: somebody may be at that work.
	OutboxClaimed(ctx context.Context, scope string, work Outbox) (bool, error)
	// OutboxBacklog counts the rows of all scopes. It costs time that grows with what it counts, but holds up no transition.
	OutboxBacklog(ctx context.Context) (OutboxBacklog, error)
}

// OutboxHorizon bounds leases and postponements; longer ones are cut to it.
const OutboxHorizon = time.Hour

// OutboxKind is what is to be done. The set is closed.
type OutboxKind string

// A call of Advance for the operation that Object names.
const (
	OutboxAdvance       OutboxKind = "advance"        // for a process that reaches the embedded hub's sessions
	OutboxAdvanceRemote OutboxKind = "advance.remote" // for any process: it calls hubs and webhooks over the network
	// OutboxDevice is for the process that has the embedded hub's sessions: there is something new for a device. Object is made by DeviceNews.
	OutboxDevice OutboxKind = "device"
)

// Orders for devices at their hubs.
const (
	OutboxDeviceOrder         OutboxKind = "device.order"          // a DeviceOrder, for any process
	OutboxDeviceOrderEmbedded OutboxKind = "device.order.embedded" // one that needs a process that reaches the embedded hub's sessions
	OutboxGroupOrder          OutboxKind = "group.order"           // a GroupOrder
)

// Outbox is a piece of work, and the key of its row within the scope.
type Outbox struct {
	Kind   OutboxKind
	Object string // what the work is about: an operation id
}

// DeviceNews orders that a device at the embedded hub is told what is new. unique is another one at each call: work of an earlier call may be under way, and may
// have looked already.
func DeviceNews(hub, deviceID, unique string) *Outbox {
	return &Outbox{Kind: OutboxDevice, Object: hub + "/" + deviceID + "/" + unique}
}

// NewsOf is the way back from DeviceNews.
func NewsOf(object string) (hub, deviceID string, ok bool) {
	hub, rest, _ := strings.Cut(object, "/")
	deviceID, _, ok = strings.Cut(rest, "/")
	return hub, deviceID, ok
}

// OutboxClaim asks for rows.
type OutboxClaim struct {
	ID    string // opaque, made by the caller, another one at each call; not empty
	Kind  OutboxKind
	Lease time.Duration
	Limit int
}

// OutboxRow is a claimed row.
type OutboxRow struct {
	Scope string
	Outbox
	Attempts int           // claims so far, this one too
	Failure  string        // why the attempt before ended in a postponement
	Age      time.Duration // since it was written
}

// OutboxBacklog says what waits.
type OutboxBacklog struct {
	Waiting int           // rows, claimed or not
	Oldest  time.Duration // age of the oldest
}

// OutboxSpan is a lease or postponement as stores take it.
func OutboxSpan(d time.Duration) time.Duration { return min(max(d, 0), OutboxHorizon) }
