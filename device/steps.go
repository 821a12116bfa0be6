package device

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
)

// Registration is what a device says of itself.
type Registration struct {
	ID      string          // registration id
	EK, SRK []byte          // TPM2B_PUBLIC, size prefix included
	Payload json.RawMessage // for the service's custom allocation; may be nil
}

type registrationBody struct {
	RegistrationID string          `json:"registrationId"`
	TPM            *tpmBody        `json:"tpm,omitempty"`
	Payload        json.RawMessage `json:"payload,omitempty"`
}

type tpmBody struct {
	EndorsementKey []byte `json:"endorsementKey"`
	StorageRootKey []byte `json:"storageRootKey"`
}

func (r Registration) body() (*registrationBody, error) {
	if r.Payload != nil && !json.Valid(r.Payload) {
		return nil, fmt.Errorf("payload is no JSON")
	}
	return &registrationBody{r.ID, &tpmBody{r.EK, r.SRK}, r.Payload}, nil
}

// RequestChallenge is the first contact: PUT register without Authorization.
// The service answers 401 with a challenge, or refuses with an *APIError.
func (c *Client) RequestChallenge(ctx context.Context, r Registration) (*Challenge, error) {
	done := c.progress.timed(StepChallenge)
	challenge, err := c.requestChallenge(ctx, r)
	if err != nil {
		done("", err)
		return nil, err
	}
	done(fmt.Sprintf("refused with a challenge, an activation blob of %d bytes", len(challenge.Blob)), nil)
	return challenge, nil
}

func (c *Client) requestChallenge(ctx context.Context, r Registration) (*Challenge, error) {
	body, err := r.body()
	if err != nil {
		return nil, err
	}
	a, err := c.send(ctx, StepChallenge, http.MethodPut, c.path(r.ID, "register"), "", body)
	if err != nil {
		return nil, err
	}
	return a.challenge()
}

// Prove repeats the request with the SAS token that the challenge's key signed
// for "{idScope}/registrations/{registrationId}". Repeating an accepted request
// whose answer was lost is safe: it gives the same operation.
func (c *Client) Prove(ctx context.Context, r Registration, sasToken string) (*Operation, error) {
	done := c.progress.timed(StepProve)
	op, err := c.prove(ctx, r, sasToken)
	if err != nil {
		done("", err)
		return nil, err
	}
	done("accepted, "+op.describe(), nil)
	return op, nil
}

func (c *Client) prove(ctx context.Context, r Registration, sasToken string) (*Operation, error) {
	body, err := r.body()
	if err != nil {
		return nil, err
	}
	a, err := c.send(ctx, StepProve, http.MethodPut, c.path(r.ID, "register"), sasToken, body)
	if err != nil {
		return nil, err
	}
	return a.operation()
}

// Poll asks how an operation stands.
func (c *Client) Poll(ctx context.Context, registrationID, operationID, sasToken string) (*Operation, error) {
	done := c.progress.timed(StepPoll)
	op, err := c.poll(ctx, registrationID, operationID, sasToken)
	if err != nil {
		done("", err)
		return nil, err
	}
	done(op.describe(), nil)
	return op, nil
}

func (c *Client) poll(ctx context.Context, registrationID, operationID, sasToken string) (*Operation, error) {
	a, err := c.send(ctx, StepPoll, http.MethodGet, c.path(registrationID, "operations", operationID), sasToken, nil)
	if err != nil {
		return nil, err
	}
	return a.operation()
}

// LookupStatus asks how a registration stands, without an operation. The answer
// never holds the hub key. Azure's own service is not known to document it.
func (c *Client) LookupStatus(ctx context.Context, r Registration, sasToken string) (*State, error) {
	done := c.progress.timed(StepLookup)
	state, err := c.lookupStatus(ctx, r, sasToken)
	if err != nil {
		done("", err)
		return nil, err
	}
	done(state.Status, nil)
	return state, nil
}

func (c *Client) lookupStatus(ctx context.Context, r Registration, sasToken string) (*State, error) {
	body := &registrationBody{RegistrationID: r.ID, TPM: &tpmBody{r.EK, r.SRK}}
	a, err := c.send(ctx, StepLookup, http.MethodPost, c.path(r.ID), sasToken, body)
	if err != nil {
		return nil, err
	}
	return a.lookup()
}

func (op *Operation) describe() string {
	switch {
	case op.State != nil && op.State.AssignedHub != "":
		return fmt.Sprintf("%s to %s as %s", op.Status, op.State.AssignedHub, op.State.DeviceID)
	case op.RetryAfter > 0:
		return fmt.Sprintf("%s, ask again in %v", op.Status, op.RetryAfter)
	}
	return op.Status
}

// Resource is what a SAS token for this registration is signed for.
func (c *Client) Resource(registrationID string) string {
	return c.scope + "/registrations/" + registrationID
}

func (c *Client) path(registrationID string, rest ...string) string {
	path := "/" + url.PathEscape(c.scope) + "/registrations/" + url.PathEscape(registrationID)
	for _, part := range rest {
		path += "/" + url.PathEscape(part)
	}
	return path + "?api-version=" + url.QueryEscape(c.apiVersion)
}

// send makes one request for a step. It does not try again. Without an answer
// the error is a *NetworkError.
func (c *Client) send(ctx context.Context, step, method, path, sasToken string, body *registrationBody) (*answer, error) {
	// The content is given whole, so that net/http can send it once more on a
	// new connection when the old one turns out to be dead.
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", userAgent)
	if body != nil {
		request.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	if sasToken != "" {
		request.Header.Set("Authorization", sasToken)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, &NetworkError{Step: step, Err: err}
	}
	defer response.Body.Close()
	return readAnswer(step, response)
}
