package registration

import (
	"time"

	"latchkey.example/latchkey/dps"
)

// Enrollment is the operator's entry for one device, as the store keeps it.
//
// The columns the device path decides by stand beside Document, which holds the whole accepted wire
// object; both are written together, so they cannot disagree.
type Enrollment struct {
	ID        string // registration id as the operator spelled it; stores key by dps.FoldID
	Revision  uint64 // set by the store: unique within the scope and rising with every write; the etag is made from it
	Mechanism Mechanism
	EK        []byte   // of a TPM: TPM2B_PUBLIC, TPM 2.0 Part 2, 12.2.5; nil otherwise
	EKKeyID   [32]byte // of a TPM: SHA-256 of the key's SubjectPublicKeyInfo: how EKs are compared
	PinnedSRK []byte   // of a TPM: TPM2B_PUBLIC, nil if any owner is accepted
	Keys      SealedKeys
	// Certificates are the SHA-256 of the DER of its client certificates: one or two with X509, none otherwise.
	Certificates [][32]byte
	DeviceID     string // name at the hub; empty means the registration id
	Disabled     bool
	Document     []byte // JSON of the enrollment as accepted, without its read-only members and without symmetric keys
	Created      time.Time
	Updated      time.Time
}

// Mechanism is how a device proves itself, spelled as on the wire.
type Mechanism string

// The closed set of mechanisms.
const (
	TPM          Mechanism = dps.AttestationTPM
	X509         Mechanism = dps.AttestationX509
	SymmetricKey Mechanism = dps.AttestationSymmetricKey
)

// SealedKeys are the symmetric keys of an enrollment or a group, sealed under ContextEnrollmentKey or ContextGroupKey; empty with other
// mechanisms.
type SealedKeys struct {
	Primary, Secondary []byte
}

// Group is the operator's entry for many devices: those that show a certificate under one of its CAs, or sign with a key derived from one
// of its own.
type Group struct {
	ID        string // as the operator spelled it; stores key by dps.FoldID
	Revision  uint64 // as Enrollment.Revision
	Mechanism Mechanism
	Keys      SealedKeys
	// Certificates are the SHA-256 of the DER of its signing certificates: none if it refers to CA certificates by name.
	Certificates [][32]byte
	Disabled     bool
	Document     []byte // as Enrollment.Document; holds the signing certificates themselves
	Created      time.Time
	Updated      time.Time
}

// CACertificate is a certificate authority that groups refer to by name.
type CACertificate struct {
	Name     string // stores key by dps.FoldID
	Revision uint64 // as Enrollment.Revision
	DER      []byte
	Verified bool // whoever put it here has shown that he holds its private key
	Created  time.Time
	Updated  time.Time
}

// Registration is the service's record of a device that proved itself.
type Registration struct {
	ID               string
	Revision         uint64 // set by the store, as Enrollment.Revision
	Status           Status
	Substatus        string
	Hub              string
	DeviceID         string
	Mechanism        Mechanism // of the last proof
	Group            string    // id of the group that let the device in; empty: its own enrollment did
	EKKeyID          [32]byte  // of a TPM: of the EK that proved itself last
	SRK              []byte    // of a TPM: TPM2B_PUBLIC of the owner that proved itself last
	SealedHubKey     []byte    // a Credential, sealed under ContextHubKey
	HubKeyGeneration uint64    // the generation whose redemption made the hub key
	OperationID      string    // the operation that moves this registration now, or moved it last
	ErrorCode        int
	ErrorMessage     string
	Created          time.Time
	Updated          time.Time
	// Leaving names hubs besides Hub where an identity of the device may still be: what a move that is under way, or failed, has yet to remove.
	Leaving []string
	Saved   []byte // device data that such a move has read: JSON, made by the core; empty if it has read none
	Payload []byte // JSON that the allocation webhook returned for the device at the last assignment; empty: none
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
	Generation     uint64 // the redemption count this operation's redemption reached: 1 for the first
	Revision       uint64 // set by the store: the revision that the registration got in this redemption; hubs compare it
	Mechanism      Mechanism
	Group          string   // as Registration.Group
	TokenDigest    [32]byte // dps.Token.Digest of the accepted SAS token; with X509 the SHA-256 of the client certificate
	SealedKey      []byte   // the key that verified the token, sealed under ContextChallengeKey; empty with X509
	EK             []byte   // of a TPM: TPM2B_PUBLIC as enrolled when the challenge was redeemed
	SRK            []byte   // of a TPM: TPM2B_PUBLIC of the owner that proved itself
	SealedHubKey   []byte   // the same bytes as Registration.SealedHubKey after this redemption
	Hub            string   // chosen by allocation, empty before it
	DeviceID       string
	ErrorCode      int
	ErrorMessage   string
	TrackingID     string // of the PUT that was accepted
	Created        time.Time
	Updated        time.Time
	Plan           []byte // what advancing it needs besides: JSON, made by the core; empty once it has ended
}

// HubOwner is the process that has the sessions of the embedded hub. The zero value but for its beat is nobody.
type HubOwner struct {
	ID    string    // opaque, another one at each start
	Host  string    // where it runs, for people
	Since time.Time // by its own clock, for people
	Beat  uint64    // moves as long as the process serves; nothing else of it says anything about time
}

// Scope is one tenant.
type Scope struct {
	ID         string   // as in device paths
	Hosts      []string // names that its management API answers to, lower case; the first names the embedded hub
	SealedRoot []byte   // 32-byte root of challenge keys, sealed under ContextScopeRoot
	Policies   []AccessPolicy
	Created    time.Time
	Home       bool // made by init: who may configure it creates and deletes the others
	// Certificate is the server certificate for Hosts, PEM, leaf first; empty if the one of the configuration covers them.
	Certificate          []byte
	SealedCertificateKey []byte      // PKCS #8 in PEM, sealed under ContextScopeCertificate; empty without a certificate
	Hubs                 []LinkedHub // in order of their names; the embedded hub is linked without a row, which only changes how
	Allocation           AllocationSettings
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

// The permissions: five of the provisioning service, and three of the service side of its embedded hub, each spelled as the imitated service
// spells it. A hub's write does not bring the read with it: who is to have both is given both, as there.
const (
	ServiceConfig Right = 1 << iota
	EnrollmentRead
	EnrollmentWrite
	RegistrationStatusRead
	RegistrationStatusWrite
	RegistryRead   // device identities with their keys, twins
	RegistryWrite  // device identities
	ServiceConnect // cloud-to-device messages, direct methods, twins

	ProvisioningRights = ServiceConfig | EnrollmentRead | EnrollmentWrite | RegistrationStatusRead | RegistrationStatusWrite // what the owner policies have that were made before there were others
	HubRights          = RegistryRead | RegistryWrite | ServiceConnect
	AllRights          = ProvisioningRights | HubRights
)
