package registration

import (
	"context"
	"errors"
	"time"

	"latchkey.example/latchkey/dps"
)

// ClosingStore is what a device leaves behind when it closes its own registration.
type ClosingStore interface {
	// CloseRegistration consumes a proof as Redeem does, and with it ends all of the registration: if generation and revisions are still as expected, it
	// moves the generation by one, writes the enrollment as given (Created kept), removes the registration with its operations, writes
	// Closing.Orders, which the id from then on awaits, keeps what a repeat of the request is known by, and appends the audit row. It
	// returns the revision that the enrollment got, which is the orders' generation too. Conflict otherwise.
	CloseRegistration(ctx context.Context, scope string, c Closing) (revision uint64, verdict Verdict, err error)
	// Closure reads, in one snapshot, the last closing of an id and what the id awaits; the zero value if there is neither.
	Closure(ctx context.Context, scope, id string) (Closure, error)
}

// Closing is the transition that answers the proof of a device that closes its registration.
type Closing struct {
	ID                 string
	Generation         uint64     // expected, before
	RegistrationBefore uint64     // expected revision; 0: none
	Enrollment         Enrollment // as it is from now on, with the revision that is expected before
	After              []string   // operations for which somebody may still be at a hub
	TokenDigest        [32]byte   // of the SAS token that proved it
	Audit              Audit
}

// Check refuses a closing whose parts name different things, or that would leave its device let in. Every store calls it before it writes.
func (c Closing) Check() error {
	switch {
	case dps.FoldID(c.Enrollment.ID) != dps.FoldID(c.ID):
		return errors.New("closing: the enrollment is not of the id")
	case !c.Enrollment.Disabled:
		return errors.New("closing: the enrollment would let the device in again")
	case c.Enrollment.Mechanism != TPM:
		return errors.New("closing: the enrollment is not a TPM's")
	}
	return nil
}

// Orders is the work that a closing is at the hubs where the device of a registration is, or may be. The generation is one that the closing transition has
// given out: whatever was proved before it is meant.
func (c Closing) Orders(r Registration, generation uint64) []Outbox {
	return ordersAfter(HubRemove, r, generation, c.Audit.TrackingID, c.After)
}

// Closure is what is kept of the last closing of an id.
type Closure struct {
	Generation  uint64 // that the closing reached; 0: there is none, and nothing below but Awaited is set
	TokenDigest [32]byte
	TrackingID  string
	At          time.Time
	// Awaited counts the orders that are not carried out yet: of every closing of the id, and of the registration that a transfer has ended elsewhere. As long
	// as there is one, a hub key of before may be alive.
	Awaited int
}
