package registration

import (
	"fmt"
	"time"

	"latchkey.example/latchkey/dps"
)

// Fault is the one error that crosses from the core to transports. What is outside: Code, its fixed sentence or
// Detail, TrackingID and RetryAfter. What is inside: Reason and the wrapped error, which never leave.
type Fault struct {
	Code       dps.Code
	Detail     string        // public; only for mistakes in what the caller itself sent
	RetryAfter time.Duration // 0: no advice
	TrackingID string
	Reason     Reason
	inside     error
}

func (f *Fault) Error() string {
	if f.inside != nil {
		return fmt.Sprintf("%d (%s): %v", f.Code, f.Reason, f.inside)
	}
	return fmt.Sprintf("%d (%s)", f.Code, f.Reason)
}

// Unwrap gives the inside error, for logs and tests.
func (f *Fault) Unwrap() error { return f.inside }

// Decision is why a request was answered as it was. Transports hand it to Core.Record after the answer was written.
type Decision struct {
	At         time.Time
	Scope      string
	ID         string
	Address    string
	Reason     Reason
	TrackingID string
	Note       string // for the operator, bounded, never a secret
}

// retryStore is the advice when the store or hub is down: long enough to not add to the trouble.
const retryStore = 10 * time.Second
