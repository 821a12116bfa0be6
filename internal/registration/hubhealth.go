package registration

import (
	"context"
	"errors"
	"time"
)

// HubState is how a linked hub does, as one node sees it. The set is closed.
type HubState string

// The states of a hub.
const (
	HubUnknown     HubState = "unknown" // nobody has asked it yet, or another process serves it
	HubOK          HubState = "ok"
	HubFailing     HubState = "failing"
	HubCircuitOpen HubState = "circuit open" // it failed so often, or throttles so, that it is left alone for a while
)

// HubHealth is what one node has measured of a linked hub, by what it asked of it for devices and by a look every now and then.
type HubHealth struct {
	State     HubState
	Since     time.Time     // of the state; zero if it is unknown
	LastError string        // of the last failure, in words that hold no secret and no address; kept when the hub does well again
	FailedAt  time.Time     // of that
	Latency   time.Duration // of the last look that was answered; 0: none was
	CheckedAt time.Time     // of the last look
}

// HubWatch knows how linked hubs do, and tries hubs that are about to be linked.
type HubWatch interface {
	// Health tells of a linked hub.
	Health(scope, hub string) HubHealth
	// Latency is how long the hub takes to answer, from this node, of late; false if that is not known.
	Latency(scope, hub string) (time.Duration, bool)
	// Judge says what is wrong with the settings and the secret of a hub that is about to be linked, or changed; a *HubError, or nil. It does not wait.
	Judge(scope string, hub LinkedHub, secret []byte) error
	// Try asks a hub that need not be linked whether it is there and lets us do what we will have to; a *HubError, or nil.
	Try(ctx context.Context, scope string, hub LinkedHub, secret []byte) error
}

// HubError says in words for whoever links a hub what is wrong with it.
type HubError struct {
	Message string // a sentence without its full stop; no secret in it
	Err     error
}

// Error implements error.
func (e *HubError) Error() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap implements errors.Is and errors.As.
func (e *HubError) Unwrap() error { return e.Err }

// blind looks at no hub.
type blind struct{}

func (blind) Health(string, string) HubHealth                      { return HubHealth{State: HubUnknown} }
func (blind) Latency(string, string) (time.Duration, bool)         { return 0, false }
func (blind) Judge(string, LinkedHub, []byte) error                { return nil }
func (blind) Try(context.Context, string, LinkedHub, []byte) error { return nil }

// ErrUnseen says that there is nothing to ask of a hub: whether it does well shows only when its devices do.
var ErrUnseen = errors.New("nothing can be asked of the hub")

// ErrCircuitOpen says that a hub was found down and is not asked for a while. It comes within a RetryError.
var ErrCircuitOpen = errors.New("the hub does not answer and is left alone for a while")
