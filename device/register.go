package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

const (
	proofLife  = time.Hour       // of the SAS token that is the proof
	proofSpare = 5 * time.Minute // sign a new one when less is left
	proofTries = 5               // challenges to answer before giving up
	rounds     = 3               // operations that may be gone before giving up

	defaultPollPause = 2 * time.Second // if the service names none
	minPollPause     = time.Second
	maxPollPause     = time.Minute // that we add by ourselves
	slowDown         = 16          // polls are apart by that part of the time since the proof
	strangePolls     = 10          // answers with a status that is not known
)

// RegisterOptions are what a device may add to its registration.
type RegisterOptions struct {
	// RegistrationID under which the device is enrolled; empty: the one that
	// follows from the EK.
	RegistrationID string

	// Payload is handed to the service's custom allocation; nil: none.
	Payload json.RawMessage
}

// Assignment is where the device goes to work.
type Assignment struct {
	Hub            string // host or host:port of the hub
	DeviceID       string // the device's name there
	RegistrationID string
	OperationID    string
	Status         string          // "assigned"
	Substatus      string          // "initialAssignment" and so on; may be empty
	Payload        json.RawMessage // of the service's custom allocation; may be nil

	// Clock is the service's clock, for the SAS tokens (TokenOptions): the zero
	// Clock if it did not show one.
	Clock Clock

	// Key is the hub key, loaded in the TPM. The caller closes it, and may keep
	// it with Key.Marshal.
	Key *Key
}

// Register proves to the service that this is the TPM it knows, waits for the
// assignment and opens the hub key.
//
// It polls once at once after the service accepted the proof, and after that as
// seldom as the service asks, or more seldom the longer it takes, down to once a
// minute: ctx bounds the whole. Failures that may pass (network, 429, 5xx) are
// tried again for about a minute and a half per step, and longer if the service
// asks for it, up to 15 minutes a time. A challenge that went stale and an
// operation that is gone are begun anew a few times.
//
// Errors are *APIError (refused), *RegistrationError (the operation failed),
// *AnswerError (no answer of this protocol), *NetworkError (none at all) and
// *TPMError. RemedyFor says what may help; after one that is Temporary another
// Register may do.
func (c *Client) Register(ctx context.Context, id *Identity, o RegisterOptions) (*Assignment, error) {
	p := c.newProof(id, o.RegistrationID, o.Payload)
	op, err := p.finish(ctx)
	if err = errors.Join(err, p.close()); err != nil {
		return nil, err
	}
	assigned, err := openAssignment(id, p.registration.ID, op)
	if err != nil {
		return nil, err
	}
	assigned.Clock = p.clock
	return assigned, nil
}

// Status proves the same and asks how the registration stands. It changes
// nothing at the service. An empty registrationID means the one of the EK.
func (c *Client) Status(ctx context.Context, id *Identity, registrationID string) (*State, error) {
	p := c.newProof(id, registrationID, nil)
	state, err := p.lookup(ctx)
	if err = errors.Join(err, p.close()); err != nil {
		return nil, err
	}
	return state, nil
}

// proof is one device's dialogue with the service.
type proof struct {
	c            *Client
	id           *Identity
	registration Registration
	closing      bool // it is to close the registration

	key     *Key // the challenge's; nil before one was opened
	keyName string
	clock   Clock     // the service's
	token   string    // signed by key
	ends    time.Time // of token, in steady time
}

func (c *Client) newProof(id *Identity, registrationID string, payload json.RawMessage) *proof {
	if registrationID == "" {
		registrationID = id.RegistrationID()
	}
	return &proof{c: c, id: id, registration: Registration{
		ID: registrationID, EK: id.EK(), SRK: id.SRK(), Payload: payload}}
}

func (p *proof) close() error {
	if p.key == nil {
		return nil
	}
	err := p.key.Close()
	p.key = nil
	return err
}

// finish gets an operation accepted and follows it to its end. An operation can
// be gone before its end was seen: the service keeps it for some minutes, which
// a bad network can outlast. Registering again is safe: the device has one
// assignment, whichever operation it comes from.
func (p *proof) finish(ctx context.Context) (op *Operation, err error) {
	for round := 1; ; round++ {
		if op, err = p.begin(ctx); err != nil {
			return nil, err
		}
		op, err = p.follow(ctx, op)
		if round == rounds || !refusedWith(err, http.StatusUnauthorized, http.StatusNotFound, http.StatusGone) {
			return op, err
		}
		if err := p.c.pause(ctx, pauseAfter(err, firstPause<<round), "the operation is gone, beginning anew"); err != nil {
			return nil, err
		}
	}
}

// follow polls until the operation has ended. A status that is not known may be
// one that comes before the end, so it is not one for a while.
func (p *proof) follow(ctx context.Context, op *Operation) (*Operation, error) {
	id, begun, strange := op.ID, p.c.steady(), 0
	for first := true; !op.ended(); first = false {
		if !pending(op) {
			if strange++; strange > strangePolls {
				return nil, wrongEnd(fmt.Sprintf("status %.40q", op.Status))
			}
		}
		if !first {
			if err := p.c.pause(ctx, pollPause(op.RetryAfter, p.c.steady().Sub(begun)), "as the service asks"); err != nil {
				return nil, err
			}
		}
		var err error
		if op, err = p.poll(ctx, id); err != nil {
			return nil, err
		}
	}
	op.ID = id
	return op, nil
}

// pollPause is what the service asks for, more seldom the longer it takes.
func pollPause(asked, since time.Duration) time.Duration {
	if asked == 0 {
		asked = defaultPollPause
	}
	return max(asked, minPollPause, min(since/slowDown, maxPollPause))
}

// begin answers challenges until one is accepted. A challenge can go stale
// between the two requests: its time ran out, or a rival request of the same
// device was accepted first. Then there is a new one to be had: at once the
// first time.
func (p *proof) begin(ctx context.Context) (op *Operation, err error) {
	for try := 1; ; try++ {
		if err = p.answerChallenge(ctx); err != nil {
			return nil, err
		}
		err = p.c.retry(ctx, func() error {
			op, err = p.c.Prove(ctx, p.registration, p.token)
			return err
		})
		if try == proofTries || !refusedWith(err, http.StatusUnauthorized) {
			return op, err
		}
		if try > 1 {
			if err := p.c.pause(ctx, pauseAfter(err, firstPause<<(try-2)), "the proof was refused, asking for another challenge"); err != nil {
				return nil, err
			}
		}
	}
}

func refusedWith(err error, statuses ...int) bool {
	var refusal *APIError
	return errors.As(err, &refusal) && slices.Contains(statuses, refusal.Status)
}

// answerChallenge gets a challenge, opens it and signs a SAS token.
func (p *proof) answerChallenge(ctx context.Context) error {
	var challenge *Challenge
	request := p.c.RequestChallenge
	if p.closing {
		request = p.c.requestClosing
	}
	err := p.c.retry(ctx, func() (err error) {
		challenge, err = request(ctx, p.registration)
		return err
	})
	if err != nil {
		return err
	}
	if err := p.close(); err != nil { // the stale challenge's
		return err
	}
	// Before the TPM's work, which takes seconds on some.
	p.keyName, p.clock = challenge.KeyName, p.c.clockOf(challenge.ServerTime)
	if p.key, err = p.id.activateToSign(challenge.Blob); err != nil {
		return unopenable(StepChallenge, http.StatusUnauthorized, err)
	}
	return p.sign()
}

// sign reckons by the service's clock: many devices start with a wrong one.
func (p *proof) sign() (err error) {
	p.ends = p.c.steady().Add(proofLife)
	expiry := p.clock.at(p.c.own(), p.c.steady()).Add(proofLife)
	p.token, err = dps.NewToken(p.key, p.c.Resource(p.registration.ID), expiry, p.keyName)
	return err
}

func (p *proof) poll(ctx context.Context, operationID string) (op *Operation, err error) {
	if p.ends.Sub(p.c.steady()) < proofSpare {
		if err := p.sign(); err != nil {
			return nil, err
		}
	}
	err = p.c.retry(ctx, func() error {
		op, err = p.c.Poll(ctx, p.registration.ID, operationID, p.token)
		return err
	})
	return op, err
}

func (p *proof) lookup(ctx context.Context) (state *State, err error) {
	if err := p.answerChallenge(ctx); err != nil {
		return nil, err
	}
	err = p.c.retry(ctx, func() error {
		state, err = p.c.LookupStatus(ctx, p.registration, p.token)
		return err
	})
	return state, err
}

func pending(op *Operation) bool {
	return op.Status == dps.StatusAssigning || op.Status == dps.StatusUnassigned
}

// openAssignment reads a finished operation and loads the hub key.
func openAssignment(id *Identity, registrationID string, op *Operation) (*Assignment, error) {
	state := op.State
	switch {
	case op.Status == dps.StatusFailed || op.Status == dps.StatusDisabled:
		failure := &RegistrationError{Status: op.Status, OperationID: op.ID}
		if state != nil {
			failure.Code, failure.Message = state.ErrorCode, state.ErrorMessage
		}
		return nil, failure
	case op.Status != dps.StatusAssigned:
		return nil, wrongEnd(fmt.Sprintf("status %.40q", op.Status))
	case state == nil || !validHub(state.AssignedHub) || !dps.ValidDeviceID(state.DeviceID):
		return nil, wrongEnd("assigned, but to no hub or under no device id")
	case len(state.HubKey) == 0:
		return nil, wrongEnd("assigned, but without a hub key")
	}
	key, err := id.Activate(state.HubKey)
	if err != nil {
		return nil, unopenable(StepPoll, http.StatusOK, err)
	}
	return &Assignment{Hub: state.AssignedHub, DeviceID: state.DeviceID, RegistrationID: registrationID,
		OperationID: op.ID, Status: op.Status, Substatus: state.Substatus, Payload: state.Payload, Key: key}, nil
}

// wrongEnd is about an operation that has ended in no way that is known.
func wrongEnd(reason string) error {
	return &AnswerError{Step: StepPoll, Status: http.StatusOK, Reason: reason}
}

// unopenable is about an activation blob: what the TPM said, or that it never
// was one.
func unopenable(step string, status int, err error) error {
	var failure *TPMError
	switch {
	case errors.As(err, &failure), errors.Is(err, ErrClosed):
		return fmt.Errorf("open the key of step %s: %w", step, err)
	}
	return &AnswerError{Step: step, Status: status, Reason: "its key does not open", Err: err}
}

// validHub takes what can be a host name or an address, with or without a port:
// it becomes part of user names and SAS tokens.
func validHub(s string) bool {
	const longest = 255 + len(":65535")
	if s == "" || len(s) > longest {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]", r)
	})
}
