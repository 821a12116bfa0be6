package device

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// StepClose is the step of a device that closes its registration.
const StepClose = "close registration"

// ErrCannotClose says that the service has no way for a device to close its
// registration: Azure's has none. Its operator does it: he deletes the
// enrollment, and the device at its hub, whose key is alive until then.
var ErrCannotClose = errors.New("this service lets no device close its own registration: have its operator delete the enrollment and the device at the hub")

// CloseRegistration proves to the service that this is the TPM it knows, and
// ends its registration: the enrollment is disabled, and the device is gone
// from its hub. On return without an error no hub key of the device is alive at
// any hub of the service. To close what is closed is no error.
//
// An empty registrationID means the one of the EK. The service asks to come
// again while a hub has yet to remove the device; ctx bounds how long that is
// done. Whoever gave up may begin anew at any time. Other errors are
// ErrCannotClose, *APIError (refused), *TPMError, ErrAnswer, or of the network.
func (c *Client) CloseRegistration(ctx context.Context, id *Identity, registrationID string) error {
	p := c.newProof(id, registrationID, nil)
	p.closing = true
	return errors.Join(p.closeRegistration(ctx), p.close())
}

// closeRegistration answers challenges until one has closed it, and asks until
// nothing is left to do. A token counts for some minutes; after that, as after
// another proof of the device, a new one is needed.
func (p *proof) closeRegistration(ctx context.Context) (err error) {
	refused := 0
	for refused < proofTries {
		if err = p.answerChallenge(ctx); err != nil {
			return err
		}
		accepted, closed := false, false
		if accepted, closed, err = p.awaitClosed(ctx); closed {
			return nil
		}
		if !refusedWith(err, http.StatusUnauthorized) {
			return err
		}
		if refused++; accepted {
			refused = 0
		}
	}
	return err
}

// awaitClosed shows one proof until the service says that all is done.
func (p *proof) awaitClosed(ctx context.Context) (accepted, closed bool, err error) {
	for asked := 0; ; asked++ {
		var pause time.Duration
		err = p.c.retry(ctx, func() (err error) {
			closed, pause, err = p.c.askClosed(ctx, p.registration, p.token)
			return err
		})
		if err != nil || closed {
			return asked > 0, closed, err
		}
		if asked == 0 { // once at once: mostly it is done by now
			continue
		}
		if pause == 0 {
			pause = defaultPollPause
		}
		if err := p.c.pause(ctx, max(pause, minPollPause), "as the service asks: a hub has yet to remove the device"); err != nil {
			return true, false, err
		}
	}
}

func (c *Client) askClosed(ctx context.Context, r Registration, sasToken string) (closed bool, pause time.Duration, err error) {
	done := c.progress.timed(StepClose)
	a, err := c.sendClose(ctx, r, sasToken)
	switch {
	case err != nil:
	case a.status == http.StatusNoContent:
		done("closed, its hub key is dead", nil)
		return true, 0, nil
	case a.status == http.StatusAccepted:
		done("closing, a hub has yet to remove the device", nil)
		return false, a.retryAfter, nil
	default:
		err = a.closeRefusal()
	}
	done("", err)
	return false, 0, err
}

func (c *Client) sendClose(ctx context.Context, r Registration, sasToken string) (*answer, error) {
	body, err := r.body()
	if err != nil {
		return nil, err
	}
	return c.send(ctx, StepClose, http.MethodPut, c.path(r.ID, "close"), sasToken, body)
}

// requestClosing is the first contact of a device that closes its registration.
// Its challenge is made for that and good for nothing else.
func (c *Client) requestClosing(ctx context.Context, r Registration) (*Challenge, error) {
	done := c.progress.timed(StepChallenge)
	a, err := c.sendClose(ctx, r, "")
	var challenge *Challenge
	if err == nil {
		if challenge, err = a.challenge(); err != nil && a.status != http.StatusUnauthorized {
			err = a.closeRefusal()
		}
	}
	if err != nil {
		done("", err)
		return nil, err
	}
	done(fmt.Sprintf("refused with a challenge, an activation blob of %d bytes", len(challenge.Blob)), nil)
	return challenge, nil
}

// closeRefusal tells a service that does not know the request from one that
// does not know the device: that says so by a code of its own.
func (a *answer) closeRefusal() error {
	const notEnrolled = 404201
	err := a.refusal()
	var refusal *APIError
	errors.As(err, &refusal)
	switch {
	case a.status == http.StatusMethodNotAllowed, a.status == http.StatusNotFound && refusal.Code != notEnrolled:
		return fmt.Errorf("%w (%w)", ErrCannotClose, err)
	case a.status < 400:
		return fmt.Errorf("%w: status %d", ErrAnswer, a.status)
	}
	return err
}
