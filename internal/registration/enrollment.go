package registration

import "time"

// Enrollment is the operator's entry for one device, as the store keeps it.
//
// The columns the device path decides by stand beside Document, which holds the whole accepted wire
// object; both are written together, so they cannot disagree.
type Enrollment struct {
	ID        string   // registration id as the operator spelled it; stores key by dps.FoldID
	Revision  uint64   // set by the store: unique within the scope and rising with every write; the etag is made from it
	EK        []byte   // TPM2B_PUBLIC, TPM 2.0 Part 2, 12.2.5
	EKKeyID   [32]byte // SHA-256 of the key's SubjectPublicKeyInfo: how EKs are compared
	PinnedSRK []byte   // TPM2B_PUBLIC, nil if any owner is accepted
	DeviceID  string   // name at the hub; empty means the registration id
	Disabled  bool
	Document  []byte // JSON of the enrollment as accepted, without its read-only members
	Created   time.Time
	Updated   time.Time
}

// Registration is the service's record of a device that proved itself.
type Registration struct {
	ID               string
	Revision         uint64 // set by the store, as Enrollment.Revision
	Status           Status
	Substatus        string
	Hub              string
	DeviceID         string
	EKKeyID          [32]byte // of the EK that proved itself last
	SRK              []byte   // TPM2B_PUBLIC of the owner that proved itself last
	SealedHubKey     []byte   // sealed under ContextHubKey
	HubKeyGeneration uint64   // the generation whose redemption made the hub key
	OperationID      string   // the operation that moves this registration now, or moved it last
	ErrorCode        int
	ErrorMessage     string
	Created          time.Time
	Updated          time.Time
}

// Status of a registration or an operation, spelled as on the wire.
type Status string

// The closed set of states. Unassigned is only ever shown, never stored.
const (
	Unassigned Status = "unassigned"
	Assigning  Status = "assigning"
	Assigned   Status = "assigned"
	Failed     Status = "failed"
	Disabled   Status = "disabled"
)

// Operation is one attempt to register. It carries all that a poll needs, so that a poll is one read.
type Operation struct {
	ID             string // opaque, made by the core before the write
	RegistrationID string
	Status         Status
	Substatus      string
	Generation     uint64   // the redemption count this operation's redemption reached: 1 for the first
	Revision       uint64   // set by the store: the revision that the registration got in this redemption; hubs compare it
	TokenDigest    [32]byte // dps.Token.Digest of the accepted SAS token
	SealedKey      []byte   // the redeemed challenge key, sealed under ContextChallengeKey
	EK             []byte   // TPM2B_PUBLIC as enrolled when the challenge was redeemed
	SRK            []byte   // TPM2B_PUBLIC of the owner that proved itself
	SealedHubKey   []byte   // the same bytes as Registration.SealedHubKey after this redemption
	Hub            string   // chosen by allocation, empty before it
	DeviceID       string
	ErrorCode      int
	ErrorMessage   string
	TrackingID     string // of the PUT that was accepted
	Created        time.Time
	Updated        time.Time
}

// Identity is a device as the embedded hub knows it.
type Identity struct {
	Hub        string
	DeviceID   string // case-sensitive
	SealedKey  []byte // sealed under ContextIdentityKey
	Generation uint64 // HubDevice.Generation of the last EnsureDevice; never moves back
	Updated    time.Time
}

// Scope is one tenant.
type Scope struct {
	ID         string   // as in device paths
	Hosts      []string // names that its management API answers to, lower case; the first names the embedded hub
	SealedRoot []byte   // 32-byte root of challenge keys, sealed under ContextScopeRoot
	Policies   []AccessPolicy
	Created    time.Time
}

// AccessPolicy is a shared access policy of the management API.
type AccessPolicy struct {
	Name            string
	Rights          Right
	SealedPrimary   []byte // sealed under ContextPolicyKey
	SealedSecondary []byte
}

// Right is a set of permissions of the management API (reference: permissions of a shared access policy).
type Right uint8

// The five permissions.
const (
	ServiceConfig Right = 1 << iota
	EnrollmentRead
	EnrollmentWrite
	RegistrationStatusRead
	RegistrationStatusWrite

	AllRights = ServiceConfig | EnrollmentRead | EnrollmentWrite | RegistrationStatusRead | RegistrationStatusWrite
)
