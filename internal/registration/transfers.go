package registration

import (
	"context"
	"errors"
	"time"
)

// TransferStore keeps offers: with one, the operator of a scope lets that of another take over the enrollment of a device.
type TransferStore interface {
	// PutOffer writes an offer with an audit row. Missing if the scope has no enrollment of the id, Conflict if that has another revision than the offer
	// was made from, Exists if there is an offer of the id that has not ended at offer.Created.
	PutOffer(ctx context.Context, scope string, offer Offer, revision uint64, audit Audit) (Verdict, error)
	// DeleteOffer removes the offer of an id; Missing.
	DeleteOffer(ctx context.Context, scope, id string, audit Audit) (Verdict, error)
	// Offers is a page as Enrollments gives it, of the offers that a scope has made.
	Offers(ctx context.Context, scope, after string, limit int) ([]Offer, error)
	// Offered reads the offer that was made to a scope under a code, whatever its age, with the device as it is at its source; ErrNotFound.
	Offered(ctx context.Context, target string, code [32]byte) (Offered, error)
	// AcceptOffer moves a device: if the offer is still there, and the enrollment and the registration at its source have the revisions that are expected,
	// it removes all three there, with the orders that remove the device from the hubs where it may be, writes the enrollment
	// into the target, which awaits those orders and whatever the id awaits at its source, and appends an audit row in both scopes. Missing if
	// there is no such offer, Exists if the target has an enrollment of the id, Taken if an enrollment of the target has one of its EKs, Conflict otherwise.
	AcceptOffer(ctx context.Context, target string, a Acceptance) (Accepted, Verdict, error)
}

// Offer is the consent of a scope that another takes a device over.
type Offer struct {
	ID      string // registration id at the source
	Target  string // scope that may take it
	Code    [32]byte
	EKKeyID [32]byte // of the enrollment
	// Keys names all EKs of the enrollment: SHA-256 over their key ids in order.
	Keys     [32]byte
	Enrolled time.Time // Enrollment.Created: an id that was enrolled anew is another device
	Policy   string    // access policy of whoever made it
	Created  time.Time
	Expires  time.Time
}

// Check refuses an offer that nobody could take. Every store calls it before it writes.
func (o Offer) Check() error {
	switch {
	case o.Target == "" || o.Code == [32]byte{} || o.EKKeyID == [32]byte{}:
		return errors.New("offer: it names no target, no code or no key")
	case !o.Expires.After(o.Created):
		return errors.New("offer: it ends before it begins")
	}
	return nil
}

// Offered is an offer as whoever takes it needs it.
type Offered struct {
	Source string
	Offer  Offer
	Device Device // at the source
}

// Acceptance is the transition that takes an offer.
type Acceptance struct {
	Source             string
	ID                 string // at the source
	Code               [32]byte
	EnrollmentBefore   uint64     // expected revision of the enrollment at the source
	RegistrationBefore uint64     // of the registration there; 0: none
	After              []string   // as Closing.After
	Enrollment         Enrollment // for the target
	SourceAudit        Audit
	Audit              Audit
}

// Check refuses an acceptance that would bring a device where it is, or something else than a TPM. Every store calls it before it writes.
func (a Acceptance) Check(target string) error {
	switch {
	case a.Source == target:
		return errors.New("acceptance: source and target are the same")
	case a.Enrollment.Mechanism != TPM:
		return errors.New("acceptance: the enrollment is not a TPM's")
	case a.EnrollmentBefore == 0:
		return errors.New("acceptance: there is always an enrollment before")
	}
	return nil
}

// Orders is as Closing.Orders, at the source.
func (a Acceptance) Orders(r Registration, generation uint64) []Outbox {
	return ordersAfter(HubRemove, r, generation, a.SourceAudit.TrackingID, a.After)
}

// Accepted is what came of an acceptance.
type Accepted struct {
	Enrollment Enrollment // as it is stored in the target
	Left       uint64     // revision of the source, which is the orders' generation
}
