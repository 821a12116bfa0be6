package linked

import (
	"context"
	"errors"

	"latchkey.example/latchkey/internal/registration"
)

var errNoHub = errors.New("no node serves the hub")

// Embedded is what the hub that is built in can do.
type Embedded interface {
	registration.Hub
	registration.Mover
}

// Local is the driver of the embedded hub, whose devices are in our own store.
type Local struct{ Embedded }

// Judge implements Driver: there is nothing to set.
func (Local) Judge(_ string, hub registration.LinkedHub, secret []byte) error {
	if len(hub.Settings) > 0 || len(secret) > 0 {
		return errors.New("a hub of the embedded kind has neither settings nor a secret")
	}
	return nil
}

// Probe implements Driver: it does well where it is served.
func (l Local) Probe(_ context.Context, scope string, hub registration.LinkedHub, _ []byte) error {
	switch l.Reach(scope, hub.Name) {
	case registration.Elsewhere:
		return registration.ErrElsewhere
	case registration.Unserved:
		return errNoHub
	}
	return nil
}
