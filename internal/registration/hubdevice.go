package registration

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Identity is a device as the embedded hub knows it.
type Identity struct {
	Hub        string
	DeviceID   string // case-sensitive
	SealedKey  []byte // sealed under ContextIdentityKey
	Generation uint64 // HubDevice.Generation of the last EnsureDevice; never moves back; at least 1
	// Version is set by the store: 1 when the identity is created, or what follows on that of one of this id that was deleted and whose generation is
	// still kept, and one more with each write.
	Version uint64
	Created time.Time // kept by the store when the identity is replaced; zero if that was before it was noted
	Updated time.Time
	// Cutting says that sessions made with what it held before may still be up at the process that serves the hub.
	Cutting       bool
	Disabled      bool      // it cannot log in
	StatusReason  string    // for people, at most MaxStatusReason bytes
	StatusUpdated time.Time // when Disabled was last changed; zero if never
	IoTEdge       bool
}

// MaxStatusReason bounds Identity.StatusReason, in bytes.
const MaxStatusReason = 128

// ErrNoGeneration refuses an identity of generation 0, which stands for none.
var ErrNoGeneration = errors.New("an identity must have a generation")

// IdentityPut is a compare-and-set of an identity.
type IdentityPut struct {
	Identity
	Was uint64 // generation of the identity that was read; 0: there was none
	// WasVersion is the version of the identity that was read; 0: whichever it has now.
	WasVersion uint64
	// Owner is the HubOwner.ID that the hub must have, so that who is not the owner any more writes nothing; empty: nobody serves it. Nil: whoever does.
	Owner *string
	// Purge removes the messages that wait for the device: they were for who had it before.
	Purge bool
	// Twin is written with the identity; its hub and device id are the identity's, whatever it says. Nil: the twin stays as it is, if there is one.
	Twin *TwinPut
}

// Check refuses what no store may keep. Every store calls it before it writes.
func (p IdentityPut) Check() error {
	switch {
	case p.Generation == 0:
		return ErrNoGeneration
	case len(p.StatusReason) > MaxStatusReason || !isText(p.StatusReason):
		return fmt.Errorf("the status reason of an identity is text of at most %d bytes", MaxStatusReason)
	case p.Twin != nil:
		return p.Twin.Check()
	}
	return nil
}

// IdentityDelete removes an identity with its twin and its messages, as it was read, and leaves a generation behind: of a smaller one no identity
// is created while that is kept.
type IdentityDelete struct {
	Hub, DeviceID string
	Was           uint64 // generation of the identity that was read; 0: there was none, and only the generation is left behind
	WasVersion    uint64 // as IdentityPut.WasVersion
	Generation    uint64 // to leave behind: at least Was, and at least 1
	At            time.Time
	Owner         *string // as IdentityPut.Owner
}

// Check refuses what would leave nothing behind. Every store calls it before it writes.
func (d IdentityDelete) Check() error {
	switch {
	case d.Generation == 0:
		return ErrNoGeneration
	case d.Generation < d.Was:
		return errors.New("an identity's generation does not move back when it is deleted")
	}
	return nil
}

// Twin is the document of a device at the embedded hub. Its parts are JSON objects without $metadata and $version. Who writes it keeps them
// within the limits of the hub.
type Twin struct {
	Hub, DeviceID                     string
	Tags, Desired, Reported           []byte
	DesiredMetadata, ReportedMetadata []byte // JSON objects: when which member was written last
	DesiredVersion, ReportedVersion   uint64
	Version                           uint64 // set by the store: 1 for the first of an identity, one more with each write
	Updated                           time.Time
}

// TwinPut is a compare-and-set of a twin.
type TwinPut struct {
	Twin
	Was    uint64  // version of the twin that was read; 0: there was none
	Outbox *Outbox // written with it; may be nil
}

// maxTwinPart stands well above the limits of the hub, metadata included: what is larger was never judged.
const maxTwinPart = 1 << 20

// Check refuses what was not judged by the limits of the hub. Every store calls it before it writes.
func (p TwinPut) Check() error {
	for _, part := range [][]byte{p.Tags, p.Desired, p.Reported, p.DesiredMetadata, p.ReportedMetadata} {
		if len(part) > maxTwinPart {
			return errors.New("a part of the twin is larger than any hub allows")
		}
	}
	return nil
}

// HubMessage is a message from the cloud to a device that waits at the embedded hub.
type HubMessage struct {
	Hub, DeviceID string
	Seq           uint64 // set by the store: rises from one message of an identity to the next, from 1
	ID            string
	CorrelationID string
	UserID        string
	Ack           string // feedback that the sender wants: none, positive, negative or full
	Properties    []byte // the property bag, as it goes to the device
	Body          []byte
	Enqueued      time.Time
	Expires       time.Time
	Deliveries    int     // attempts so far; set by the store
	Outbox        *Outbox // for EnqueueMessage: written with it; may be nil. It is not kept with the message
}

// Bounds of one message, in bytes.
const (
	MaxMessageBody       = 64 << 10
	MaxMessageProperties = 16 << 10
	maxMessageField      = 256
)

// Check refuses a message that is too large. Every store calls it before it writes.
func (m HubMessage) Check() error {
	switch {
	case len(m.Body) > MaxMessageBody:
		return fmt.Errorf("the message has more than %d bytes", MaxMessageBody)
	case len(m.Properties) > MaxMessageProperties:
		return fmt.Errorf("the message's properties have more than %d bytes", MaxMessageProperties)
	}
	for _, field := range []string{m.ID, m.CorrelationID, m.UserID, m.Ack} {
		if len(field) > maxMessageField || !isText(field) {
			return fmt.Errorf("a system property of a message is text of at most %d bytes", maxMessageField)
		}
	}
	return nil
}

// isText says whether every store takes it for text.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// ExpiredMessage is a message that was removed because nobody took it in time. Its body is gone.
type ExpiredMessage struct {
	Scope string
	HubMessage
}

// DeviceData is what a device has at its hub besides its credential: what moves with it from one hub to another.
type DeviceData struct {
	Tags, Desired, Reported json.RawMessage // objects without $metadata and $version; empty: none
	IoTEdge                 bool
	Replace                 bool // for EnsureDevice: a device that is there already gets it too
}

// HubLeftover names a device whose identity is gone while its twin or its messages are there, which no transition leaves behind.
type HubLeftover struct{ Scope, Hub, DeviceID string }
