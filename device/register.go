package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

const (
	proofLife  = time.Hour       // of the SAS token that is the proof
	proofSpare = 5 * time.Minute // sign a new one when less is left
	proofTries = 3               // challenges to answer before giving up

	defaultPollPause = 2 * time.Second // if the service names none
	minPollPause     = time.Second
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

	// Key is the hub key, loaded in the TPM. The caller closes it, and may keep
	// it with Key.Marshal.
	Key *Key
}

// Register proves to the service that this is the TPM it knows, waits for the
// assignment and opens the hub key.
//
// It polls once at once after the service accepted the proof, and after that as
// seldom as the service asks. Failures that may pass (network, 429, 5xx) are
// tried again for about a minute and a half per step, and longer if the service
// asks for it: ctx bounds the whole. Errors are *APIError (refused),
// *RegistrationError (the operation failed), *TPMError, ErrAnswer, or of the
// network.
func (c *Client) Register(ctx context.Context, id *Identity, o RegisterOptions) (*Assignment, error) {
	p := c.newProof(id, o.RegistrationID, o.Payload)
	op, err := p.finish(ctx)
	if err = errors.Join(err, p.close()); err != nil {
		return nil, err
	}
	return openAssignment(id, p.registration.ID, op)
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
	ahead   time.Duration // of the service's clock before ours
	token   string        // signed by key
	expiry  time.Time     // of token, by our clock
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

// finish gets an operation accepted and follows it to its end.
func (p *proof) finish(ctx context.Context) (*Operation, error) {
	op, err := p.begin(ctx)
	if err != nil {
		return nil, err
	}
	operationID := op.ID
	for first := true; pending(op); first = false {
		if !first {
			pause := max(op.RetryAfter, minPollPause)
			if op.RetryAfter == 0 {
				pause = defaultPollPause
			}
			if err := p.c.pause(ctx, pause, "as the service asks"); err != nil {
				return nil, err
			}
		}
		if op, err = p.poll(ctx, operationID); err != nil {
			return nil, err
		}
	}
	op.ID = operationID
	return op, nil
}

// begin answers challenges until one is accepted. A challenge can go stale
// between the two requests: its time ran out, or a rival request of the same
// device was accepted first. Then there is a new one to be had.
func (p *proof) begin(ctx context.Context) (op *Operation, err error) {
	for range proofTries {
		if err = p.answerChallenge(ctx); err != nil {
			return nil, err
		}
		err = p.c.retry(ctx, func() error {
			op, err = p.c.Prove(ctx, p.registration, p.token)
			return err
		})
		if !refusedWith(err, http.StatusUnauthorized) {
			return op, err
		}
	}
	return nil, err
}

func refusedWith(err error, status int) bool {
	var refusal *APIError
	return errors.As(err, &refusal) && refusal.Status == status
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
	if p.key, err = p.id.activateToSign(challenge.Blob); err != nil {
		return err
	}
	p.keyName, p.ahead = challenge.KeyName, 0
	if !challenge.ServerTime.IsZero() {
		p.ahead = challenge.ServerTime.Sub(p.c.now())
	}
	return p.sign()
}

// sign reckons by the service's clock: many devices start with a wrong one.
func (p *proof) sign() (err error) {
	p.expiry = p.c.now().Add(proofLife)
	p.token, err = dps.NewToken(p.key, p.c.Resource(p.registration.ID), p.expiry.Add(p.ahead), p.keyName)
	return err
}

func (p *proof) poll(ctx context.Context, operationID string) (op *Operation, err error) {
	if p.expiry.Sub(p.c.now()) < proofSpare {
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
		return nil, fmt.Errorf("%w: status %.40q", ErrAnswer, op.Status)
	case state == nil || !validHub(state.AssignedHub) || !dps.ValidDeviceID(state.DeviceID):
		return nil, fmt.Errorf("%w: assigned, but to no hub or under no device id", ErrAnswer)
	case len(state.HubKey) == 0:
		return nil, fmt.Errorf("%w: assigned, but without a hub key", ErrAnswer)
	}
	key, err := id.Activate(state.HubKey)
	if err != nil {
		return nil, fmt.Errorf("open the hub key: %w", err)
	}
	return &Assignment{Hub: state.AssignedHub, DeviceID: state.DeviceID, RegistrationID: registrationID,
		OperationID: op.ID, Status: op.Status, Substatus: state.Substatus, Payload: state.Payload, Key: key}, nil
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
