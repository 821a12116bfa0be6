package registration

import (
	"context"
	"errors"
	"time"

	"latchkey.example/latchkey/dps"
)

// Store is what the core needs of a database. It is one contract in parts; storetest is its
// executable form and every implementation passes all of it.
//
// Each method is one whole transition or one consistent read. A transition is atomic, and durable when it
// returns nil; the rows it is given (audit rows too) are in it or none is. All methods are safe together.
// Every key starts with the scope; ids are compared after dps.FoldID (ASCII lower case), hub device ids as they
// stand. A transition that loses a compare-and-set returns a Verdict and nil; an error means the outcome is
// unknown to the caller (it may have been applied), except ErrNotFound and errors before any write.
// A refused transition changes nothing and never fails another that shares its commit.
type Store interface {
	ScopeStore
	HubStore
	EnrollmentStore
	GroupStore
	ListStore
	DeviceStore
	ClosingStore
	TransferStore
	OwnerMemory
	OutboxStore
	AuditStore
	SealedStore
}

// ErrNotFound says that the addressed row does not exist.
var ErrNotFound = errors.New("not found")

// Verdict is the outcome of a compare-and-set.
type Verdict int

// Applied means done and durable. Every other verdict means nothing was changed.
const (
	Applied    Verdict = iota
	Conflict           // a revision or generation named in the request is no longer the current one
	Exists             // create found a row
	Missing            // update or delete found none
	Superseded         // the operation is no longer the registration's current one
	Taken              // another registration of the scope has the device id at that hub, or another entry of the scope the certificate
	LastOne            // nobody could manage the scope any more: no other access policy of it has ServiceConfig
	OtherOwner         // the hub is served by another process than was named
	Full               // the device has as many messages waiting as it may have
)

// ScopeStore keeps tenants.
type ScopeStore interface {
	// CreateScope writes a scope with its access policies and an audit row, which goes into the log of the home scope too if there is another. Exists
	// if the id, or a host name of it, is taken (compared without case; by a linked hub, too), or the id was ever a scope's, or both it and a stored one
	// are home. Linked hubs and how they are chosen are put later.
	CreateScope(ctx context.Context, scope Scope, audit Audit) (Verdict, error)
	// Scopes returns all scopes, in order of id.
	Scopes(ctx context.Context) ([]Scope, error)
	// ScopesRevision moves with every transition after which Scopes may return something else, PruneScopes excepted, so that whoever holds a copy knows when it is
	// old. What Scopes returns is at least as new as a revision read before.
	ScopesRevision(ctx context.Context) (uint64, error)
	// DeleteScope removes a scope with its host names, access policies and linked hubs; the audit row goes into its log, which stays, and into that of the home
	// scope. Missing if there is none, LastOne if it is the home scope. Its other rows stay until PruneScopes has removed them.
	DeleteScope(ctx context.Context, id string, audit Audit) (Verdict, error)
	// PruneScopes removes what deleted scopes have left but their logs, at most limit rows, and returns how many it removed. A scope that was deleted
	// before the given time (by its audit row) and has nothing left is not looked at again.
	PruneScopes(ctx context.Context, settledBefore time.Time, limit int) (int, error)
	// PutScopeCertificate replaces a scope's certificate and its sealed key, with an audit row in its log; Missing.
	PutScopeCertificate(ctx context.Context, id string, chain, sealedKey []byte, audit Audit) (Verdict, error)
	// PutPolicy creates an access policy (was nil: Exists if the name is taken, Missing if there is no such scope) or replaces all of it but
	// its name (Missing if there is none, Conflict if its rights or a sealed key differ from was). LastOne if that would take ServiceConfig
	// from the only access policy of the scope that has it. Names are compared as they stand.
	PutPolicy(ctx context.Context, scope string, was *AccessPolicy, policy AccessPolicy, audit Audit) (Verdict, error)
	// DeletePolicy removes an access policy: Missing if there is none, LastOne as PutPolicy.
	DeletePolicy(ctx context.Context, scope, name string, audit Audit) (Verdict, error)
}

// EnrollmentStore is the operator's side. An order is for the device of the id, if it is registered, at each hub where it may be: its outbox rows
// (OrdersFor, with the tracking id of the audit row) are written with the rest, but for those that are there.
type EnrollmentStore interface {
	// PutEnrollment creates (Expect nil: Exists if there is one) or replaces (Expect: Missing if there is none,
	// Conflict if its revision differs and Expect is not AnyRevision; Taken if a certificate of it is another enrollment's or a group's).
	// Created is kept on replace; an offer to transfer it goes if its EKKeyID changes. It returns the enrollment as stored, with its new revision.
	PutEnrollment(ctx context.Context, scope string, e Enrollment, expect *uint64, audit Audit, order HubOrder) (Enrollment, Verdict, error)
	// PutEnrollments is PutEnrollment for each of at most MaxPuts rows, in their order, in one transition: each has its own verdict, and one that
	// is refused changes nothing and does not hinder the others. An error means that all of them are unknown; none is applied
	// without the others that would be. More rows than MaxPuts are an error before any write.
	PutEnrollments(ctx context.Context, scope string, puts []EnrollmentPut) ([]Verdict, error)
	// PutAllEnrollments is PutEnrollments for at most MaxAtomic rows that stand or fall together: all are applied, or nothing is written, no
	// audit row either. The verdicts are what each row met, with the rows before it applied: who is not all Applied learns of every row that is
	// refused. More rows than MaxAtomic are an error before any write.
	PutAllEnrollments(ctx context.Context, scope string, puts []EnrollmentPut) ([]Verdict, error)
	// DeleteEnrollment removes the enrollment and its registration, and the offer to transfer it. The generation of the id stays, its age counted from now.
	// Operations of the id stop being answered: they are removed too. Expect nil or AnyRevision: unconditional.
	DeleteEnrollment(ctx context.Context, scope, id string, expect *uint64, audit Audit, order HubOrder) (Verdict, error)
	// DeleteRegistration removes the registration and its operations, never the enrollment; generation as above.
	DeleteRegistration(ctx context.Context, scope, id string, expect *uint64, audit Audit, order HubOrder) (Verdict, error)
}

// GroupStore keeps enrollment groups, and the CA certificates that they refer to. Every transition of it that is applied moves the
// scope's GroupsRevision, so that whoever holds a copy of them knows when it is old.
type GroupStore interface {
	// PutGroup is PutEnrollment for a group. The order, here and below, is for all devices that it has let in: the row of OrderForGroup.
	PutGroup(ctx context.Context, scope string, g Group, expect *uint64, audit Audit, order HubOrder) (Group, Verdict, error)
	// DeleteGroup removes the group and nothing else: the registrations of its devices stay, as in the imitated service. Expect nil or AnyRevision:
	// unconditional.
	DeleteGroup(ctx context.Context, scope, id string, expect *uint64, audit Audit, order HubOrder) (Verdict, error)
	// Group reads one group; ErrNotFound.
	Group(ctx context.Context, scope, id string) (Group, error)
	// Groups is a page as Enrollments gives it.
	Groups(ctx context.Context, scope, after string, limit int) ([]Group, error)
	// PutCACertificate is PutEnrollment for a CA certificate; two of one scope may hold the same DER.
	PutCACertificate(ctx context.Context, scope string, c CACertificate, expect *uint64, audit Audit) (CACertificate, Verdict, error)
	// DeleteCACertificate is DeleteGroup for a CA certificate. Whether a group refers to it is not looked at.
	DeleteCACertificate(ctx context.Context, scope, name string, expect *uint64, audit Audit) (Verdict, error)
	// CACertificates is a page as Enrollments gives it.
	CACertificates(ctx context.Context, scope, after string, limit int) ([]CACertificate, error)
	// GroupsRevision is Device.GroupsRevision alone.
	GroupsRevision(ctx context.Context, scope string) (uint64, error)
}

// MaxPuts bounds one PutEnrollments, so that whoever waits behind it does not wait long.
const MaxPuts = 500

// MaxAtomic bounds one PutAllEnrollments, behind which others may wait for a part of a second.
const MaxAtomic = 10_000

// EnrollmentPut is one row of PutEnrollments: the arguments of a PutEnrollment of its own, its audit row too.
type EnrollmentPut struct {
	Enrollment Enrollment
	Expect     *uint64
	Audit      Audit
}

// ListStore reads many rows a page at a time. A page costs the same wherever it begins.
type ListStore interface {
	// Enrollments returns at most limit enrollments of a scope whose folded id is greater than after ("" from the first), in order of the
	// folded id's bytes, each with its registration if there is one.
	Enrollments(ctx context.Context, scope, after string, limit int) ([]Listed, error)
	// Registrations is such a page of registrations: of all in the scope, or of those that the named group let in.
	Registrations(ctx context.Context, scope, group, after string, limit int) ([]Registration, error)
	// Holdings counts what a scope holds. It costs time that grows with what it counts, but holds up no transition.
	Holdings(ctx context.Context, scope string) (Holdings, error)
}

// Holdings says how many rows of each kind a scope has. Kinds of which there are none are not in the maps.
type Holdings struct {
	Enrollments   map[Mechanism]uint64
	Disabled      uint64 // of the enrollments
	Groups        map[Mechanism]uint64
	Registrations map[Status]uint64
}

// Listed is one line of a list.
type Listed struct {
	Enrollment   Enrollment
	Registration *Registration
}

// AnyRevision matches every revision of an existing row (If-Match: *).
const AnyRevision = ^uint64(0)

// DeviceStore is the device's side.
type DeviceStore interface {
	// Device reads, in one consistent snapshot, all that is known of an id: absent parts are nil, never an error.
	Device(ctx context.Context, scope, id string) (Device, error)
	// Operation reads one operation; ErrNotFound if it is not there or belongs to another scope.
	Operation(ctx context.Context, scope, operationID string) (Operation, error)
	// Redeem consumes a proof: if the generation, the registration's revision, and the enrollment's revision or, with a Group, the absence of an
	// enrollment and the scope's GroupsRevision are still as expected, it sets the generation to Operation.Generation (= expected + 1), writes the operation, replaces the registration
	// (Created kept) and appends the audit row. It returns the revision that the registration got, which the operation keeps. Taken if
	// another registration of the scope has the same hub and device id; Conflict otherwise.
	Redeem(ctx context.Context, scope string, r Redemption) (revision uint64, verdict Verdict, err error)
	// Refuse consumes a challenge without an operation: after proof, the refusal is durable audit and the
	// challenge is spent. Generation as Redeem; Conflict if it moved.
	Refuse(ctx context.Context, scope string, r Refused) (Verdict, error)
	// Allocate gives an operation that is assigning, and has no hub yet, the hub that was chosen for it after its redemption, and its registration the
	// same. Superseded if the registration's OperationID is another (or there is no registration), Missing if there is no such operation, Conflict
	// if the operation is no longer assigning or has a hub, Taken as Redeem.
	Allocate(ctx context.Context, scope string, a Allocated) (Verdict, error)
	// SaveMove keeps what was read of a device at the hub that it leaves, before it is removed there. Superseded and Missing as Allocate; Conflict if the
	// operation is no longer assigning.
	SaveMove(ctx context.Context, scope string, m SavedMove) (Verdict, error)
	// Finish moves an operation that is assigning, and its registration, to a final status, with the audit row that P3 demands. Superseded,
	// Missing and Conflict as SaveMove, Taken as Redeem. Assigned, the registration leaves no hub any more and nothing is saved of a move; Failed, it keeps
	// these, its hub, its device id and its substatus, which the next operation needs.
	Finish(ctx context.Context, scope string, f Finish) (Verdict, error)
	// Unfinished lists operations, without their plans, of all scopes that are assigning and current for their registration, created before the given time: what a
	// crash or a hub that was down left behind. They come by time, scope and id, oldest first, and start behind the operation given, which need
	// not be there any more; the zero one is before all. At most limit of them.
	Unfinished(ctx context.Context, createdBefore time.Time, after Unfinished, limit int) ([]Unfinished, error)
	// Prune removes operations created before the given time (never one that Unfinished would list) and generations of ids that have neither enrollment
	// nor registration and were last moved before idleBefore, and forgets owners remembered before idleBefore; at most limit rows
	// of each. Likewise what is kept of closings before operationsBefore, what ids have awaited since before that and is carried out, and offers that
	// ended before it. It returns the rows removed.
	Prune(ctx context.Context, operationsBefore, idleBefore time.Time, limit int) (int, error)
}

// Unfinished is an operation that nobody may be polling.
type Unfinished struct {
	Scope     string
	Operation Operation
}

// Device is one snapshot of an id.
type Device struct {
	Enrollment   *Enrollment
	Registration *Registration
	Operation    *Operation // the registration's current operation, if it is still kept
	Generation   uint64     // redemptions so far; 0 if the id was never redeemed
	// GroupsRevision is that of the last transition of the scope's groups and CA certificates; 0 if there never was one.
	GroupsRevision uint64
}

// Redemption is the transition that answers a proof.
type Redemption struct {
	ID                 string
	Generation         uint64 // expected, before
	EnrollmentRevision uint64 // expected; with Registration.Group unused
	GroupsRevision     uint64 // expected with Registration.Group
	RegistrationBefore uint64 // expected revision of the registration; 0: none
	Operation          Operation
	Registration       Registration
	Outbox             *Outbox // written with the rest, due at once; nil: none
	Audit              Audit
}

// Check refuses a redemption whose parts name different things: it would write rows that no read puts together again. Every store calls it
// before it writes.
func (r Redemption) Check() error {
	folded := dps.FoldID(r.ID)
	switch {
	case r.Operation.Generation != r.Generation+1:
		return errors.New("redemption: the operation's generation does not follow the expected one")
	case dps.FoldID(r.Operation.RegistrationID) != folded || dps.FoldID(r.Registration.ID) != folded:
		return errors.New("redemption: operation and registration are not of the redeemed id")
	case r.Registration.OperationID != r.Operation.ID:
		return errors.New("redemption: the registration names another operation")
	}
	return nil
}

// RestsOn reports whether what let the device in, by the revisions of its enrollment and of the scope's groups, is as expected. Revisions start
// at 1, so 0 stands for a row that is not there. An enrollment must be there, or, where a group let the device in, must not.
func (r Redemption) RestsOn(enrollment, groups uint64) bool {
	if r.Registration.Group != "" {
		return enrollment == 0 && groups != 0 && groups == r.GroupsRevision
	}
	return enrollment != 0 && enrollment == r.EnrollmentRevision
}

// Refused is the transition that answers a proof with a refusal.
type Refused struct {
	ID         string
	Generation uint64 // expected, before
	Audit      Audit
}

// Allocated is a late allocation.
type Allocated struct {
	OperationID    string
	RegistrationID string
	Hub            string
	DeviceID       string
	Leaving        []string // Registration.Leaving from now on
	Substatus      string   // of the operation
	Plan           []byte   // Operation.Plan from now on
	Outbox         *Outbox  // takes the place of the row that was to advance the operation; nil: that stays
	At             time.Time
}

// SavedMove is what a move has read.
type SavedMove struct {
	OperationID    string
	RegistrationID string
	Data           []byte // Registration.Saved from now on
	At             time.Time
}

// Finish is the end of an operation. The outbox row that was to advance it goes with it, if there is one.
type Finish struct {
	OperationID    string
	RegistrationID string
	Status         Status // Assigned or Failed
	Substatus      string
	Hub            string
	DeviceID       string
	ErrorCode      int
	ErrorMessage   string
	Payload        []byte // Registration.Payload from now on
	At             time.Time
	Audit          Audit
}

// OwnerMemory remembers the SRKs of open challenges for clients that omit the tpm object on their second PUT.
// It need not be durable, but all nodes share it. At most MaxOwners per id: a new one drops the one remembered longest ago. Newest means remembered
// last, whatever the times say: clocks of nodes differ, and jump.
type OwnerMemory interface {
	RememberOwner(ctx context.Context, scope, id string, srk []byte, at time.Time) error
	// Owners returns the SRKs whose time is since or later, newest first, each once.
	Owners(ctx context.Context, scope, id string, since time.Time) ([][]byte, error)
}

// MaxOwners bounds OwnerMemory for one id. The last proven owner is in the registration and is never dropped.
const MaxOwners = 8

// AuditStore reads what transitions wrote, and takes the rows that belong to none.
type AuditStore interface {
	// AppendAudit writes one row: a refusal after proof that changes nothing else.
	AppendAudit(ctx context.Context, scope string, audit Audit) error
	// AuditByTrackingID returns the rows of a scope that carry a tracking id, oldest first, at most 100.
	AuditByTrackingID(ctx context.Context, scope, trackingID string) ([]Audit, error)
	// ExpireAudit removes the oldest rows of a scope whose At is before the given time, at most limit, never one that is not; and, if it
	// removed any and the row is not nil, appends the row. It returns how many it removed. Nothing else ever removes or changes a row.
	ExpireAudit(ctx context.Context, scope string, before time.Time, limit int, audit *Audit) (int, error)
	// AuditPage returns at most limit rows of a scope whose sequence is greater than after (0: from the first), in order of their sequence. A page
	// costs the same wherever it begins. A row that is not yet seen has a greater sequence than every row that is, so that who
	// goes on from the last sequence met misses none.
	AuditPage(ctx context.Context, scope string, after uint64, limit int) ([]AuditLine, error)
}

// AuditLine is an audit row with its place in the log: places rise, with gaps, in the order of commits.
type AuditLine struct {
	Seq uint64 // at least 1, at most 1<<63 - 1
	Audit
}

// Audit is one row of the durable audit. It never holds a secret.
type Audit struct {
	At         time.Time
	Actor      string // "device", "policy:NAME", "operator" (local command), "service"
	Address    string // network address of the actor, may be empty
	Action     string // closed set, see audit.go
	Object     string // registration id, enrollment id, scope id
	Outcome    string // "ok" or "refused"
	Reason     Reason
	TrackingID string
	Detail     string // JSON object, may be empty
}

// SealedStore lists and replaces sealed values, so that the master key can be rotated while the service runs.
type SealedStore interface {
	// SealedValues returns up to limit sealed values after the cursor ("" first), in a stable order that covers every row once, and the
	// cursor to go on from; the cursor is "" when there are no more. A value keeps its place while its row lives, whatever is written: the
	// same cursor gives the same page again, but for rows that came, went or were sealed anew since.
	SealedValues(ctx context.Context, cursor string, limit int) ([]SealedValue, string, error)
	// ReplaceSealed writes New where the row still holds Old, and returns how many it replaced.
	ReplaceSealed(ctx context.Context, values []SealedReplacement) (int, error)
}

// SealedValue is one sealed column of one row.
type SealedValue struct {
	Kind   SealedKind
	Scope  string
	Key    string // scope root, certificate and webhook key: ""; policy, linked hub: name; enrollment, group, registration: id; operation: operation id; identity: hub "\x00" device id
	Sealed []byte
}

// SealedReplacement is a compare-and-set of one sealed value.
type SealedReplacement struct {
	SealedValue        // what was read
	New         []byte // the same plaintext under the primary key
}

// SealedKind names a sealed column.
type SealedKind string

// InScopes says whether what Scopes returns has a column of this kind in it.
func (k SealedKind) InScopes() bool {
	switch k {
	case SealedScopeRoot, SealedScopeCertificate, SealedPolicyPrimary, SealedPolicySecondary, SealedHubSecret, SealedWebhookKey:
		return true
	}
	return false
}

// The closed set of sealed columns. OperationHubKey and RegistrationHubKey share their context.
const (
	SealedScopeRoot        SealedKind = "scope-root"
	SealedScopeCertificate SealedKind = "scope-certificate-key"
	SealedPolicyPrimary    SealedKind = "policy-primary"
	SealedPolicySecondary  SealedKind = "policy-secondary"
	SealedRegistrationKey  SealedKind = "registration-hub-key"
	SealedOperationHubKey  SealedKind = "operation-hub-key"
	SealedOperationKey     SealedKind = "operation-challenge-key"
	SealedHubIdentity      SealedKind = "hub-identity"
	SealedHubSecret        SealedKind = "linked-hub-secret"
	SealedWebhookKey       SealedKind = "webhook-key"
	SealedEnrollmentFirst  SealedKind = "enrollment-primary"
	SealedEnrollmentSecond SealedKind = "enrollment-secondary"
	SealedGroupFirst       SealedKind = "group-primary"
	SealedGroupSecond      SealedKind = "group-secondary"
)
