package azure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// request is one exchange with the hub.
type request struct {
	method, path string
	ifMatch      string   // etag without quotes, or "*"; empty: no condition
	body         []byte   // JSON; nil: none
	secrets      []string // that are in body; a hub that writes them into an error gets them into no log
	extension    string   // of the hub's that the request uses
	without      string   // what a hub that knows no such request is refused with; empty: what has none is no IoT hub

	// expect is the status of an answer without a body; 0: any success, and then
	// most is how many bytes the answer may have, which read judges.
	expect, most int
	read         func(body []byte) error
}

// answer is what came back.
type answer struct {
	status int
	body   []byte
	header http.Header
}

// Outcomes of a call that its caller goes on from. Of all other errors, RetryError and RefusedError apart, the outcome is unknown.
var (
	errAbsent = errors.New("the hub has no such device")
	errRaced  = errors.New("somebody else has written it since it was read")
)

// troubleError is a call that may be made again at once, from the beginning.
type troubleError struct{ err error }

func (e *troubleError) Error() string { return e.err.Error() }
func (e *troubleError) Unwrap() error { return e.err }

// call makes one exchange, within the bounds of the hub, and says what became of it.
func (h *Hub) call(ctx context.Context, r request) error {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for one of the %d calls that this hub is given at a time: %w", maxCalls, ctx.Err())
	}
	if err := h.health.enter(); err != nil {
		return err
	}
	token, err := h.serviceToken()
	if err != nil {
		h.health.abandoned()
		return err
	}
	begun := time.Now() // how long it takes is no matter of the clock that tests move
	a, err := h.exchange(ctx, r, token)
	took := time.Since(begun)
	switch {
	case err != nil && ctx.Err() != nil && (errors.Is(ctx.Err(), context.Canceled) || took < h.config.CallTime/2): // not the hub's doing
		h.health.abandoned()
		return err
	case err != nil:
		h.health.failed(err)
		return &troubleError{err}
	case a.status/100 == 2:
		h.met(a, took)
		return nil
	}
	return h.judge(r, a, took, append(r.secrets, token))
}

// met notes an answer that tells what the hub is.
func (h *Hub) met(a answer, took time.Duration) {
	h.takes.Store(iothub.HasExtension(a.header.Get(iothub.ExtensionHeader), iothub.ReportedByService))
	h.health.answered(took)
}

// exchange sends and reads. An error is one of the connection, or of an answer that no hub gives.
func (h *Hub) exchange(ctx context.Context, r request, token string) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.config.CallTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, "https://"+h.config.Connection.HostName+r.path+"?api-version="+iothub.APIVersion, bytes.NewReader(r.body))
	if err != nil {
		return answer{}, fmt.Errorf("making a request: %w", err)
	}
	r.head(req.Header)
	req.Header.Set("Authorization", token)
	resp, err := h.client.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("calling the hub: %w", withoutURL(err))
	}
	defer resp.Body.Close()
	a = answer{status: resp.StatusCode, header: resp.Header}
	if resp.StatusCode/100 == 2 {
		return a, r.readAnswer(resp)
	}
	a.body, _ = io.ReadAll(io.LimitReader(resp.Body, iothub.MaxErrorBody+1)) // whatever of it comes; the status says enough
	return a, nil
}

func (r request) head(to http.Header) {
	to.Set("Accept", "application/json")
	to.Set("User-Agent", "latchkey")
	if r.body != nil {
		to.Set("Content-Type", "application/json; charset=utf-8")
	}
	switch r.ifMatch {
	case "":
	case "*":
		to.Set("If-Match", "*")
	default:
		to.Set("If-Match", `"`+r.ifMatch+`"`)
	}
	if r.extension != "" {
		to.Set(iothub.ExtensionHeader, r.extension)
	}
}

// readAnswer reads a good answer's body whole, if it is JSON of a size that hubs give, and has it judged.
func (r request) readAnswer(resp *http.Response) error {
	if r.expect == resp.StatusCode {
		return nil
	}
	if r.expect != 0 {
		return fmt.Errorf("the hub answered %d where an IoT hub says %d", resp.StatusCode, r.expect)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &registration.HubError{Message: "what answers there is not an IoT hub: its answer is not JSON"}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(r.most)+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading the hub's answer: %w", err)
	case len(body) > r.most:
		return fmt.Errorf("the hub's answer is longer than %d bytes", r.most)
	}
	return r.read(body)
}

// withoutURL drops the method and URL that net/http puts before each error.
func withoutURL(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		return outer.Err
	}
	return err
}

// judge makes of an error answer what the caller goes on from, and a sentence for the operator.
func (h *Hub) judge(r request, a answer, took time.Duration, secrets []string) error {
	status := a.status
	e := iothub.DecodeError(status, a.header.Get(iothub.ErrorHeader), a.body)
	e.Message = scrub(e.Message, secrets)
	e.TrackingID = scrub(e.TrackingID, secrets)
	advised := retryAfter(a.header.Get("Retry-After"), h.config.Now())
	said := func(format string, args ...any) error {
		return &registration.HubError{Message: fmt.Sprintf(format, args...) + " (it answered " + e.Words() + ")", Err: e}
	}
	refuse := func(message string, err error) error {
		h.health.answered(took)
		h.health.refused(err)
		return &registration.RefusedError{Message: message, Err: err}
	}
	switch {
	case status == http.StatusNotFound && e.Code == iothub.DeviceNotFound:
		h.met(a, took)
		return errAbsent
	case status == http.StatusPreconditionFailed, status == http.StatusConflict:
		h.health.answered(took)
		return &troubleError{fmt.Errorf("%w: %w", errRaced, e)}
	case status == http.StatusTooManyRequests:
		h.health.answered(took)
		return h.health.throttled(max(advised, e.RetryAfter), said("it is asked more than it allows"))
	case status == http.StatusServiceUnavailable && advised > 0:
		h.health.answered(took)
		return h.health.throttled(advised, said("it does not serve at the moment"))
	case refusals[status] != "":
		return refuse(shown(e), said("%s", refusals[status]))
	case r.without != "" && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented):
		return refuse(r.without, said("it does not know how to remove the messages that wait for a device"))
	case status/100 == 3:
		e.Message = "a redirect, which is not followed"
	}
	err := said("it does not answer as an IoT hub should")
	h.health.failed(err)
	return &troubleError{err}
}

// refusals are statuses that a repeated call would meet again, and what they mean to the operator.
var refusals = map[int]string{
	http.StatusBadRequest: "it does not accept what it is to write: characters of a device id, or a twin beyond its limits",
	http.StatusUnauthorized: "it does not accept the connection string: the key was changed, the policy lacks RegistryRead, RegistryWrite or ServiceConnect, the hub's IP filter keeps this " +
		"machine out, or the clocks differ by more than an hour",
	http.StatusForbidden:             "it does not allow what is asked: its quota is used up, or its tier has no such operation",
	http.StatusRequestEntityTooLarge: "it does not accept what it is to write: it is too large",
}

// shown is what the device and the operator see of a refusal: the hub's own words, as the imitated service passes them on.
func shown(e *iothub.Error) string {
	switch {
	case e.Name == "" && e.Message == "":
		return fmt.Sprintf("The hub answered %d.", e.Status)
	case e.Name == "":
		return e.Message
	}
	return "ErrorCode:" + e.Name + ";" + e.Message
}

// scrub takes our secrets out of a text that the hub has made.
func scrub(text string, secrets []string) string {
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		text = strings.ReplaceAll(text, secret, "[redacted]")
		if _, signed, found := strings.Cut(secret, "sig="); found { // a SAS token: its signature alone is as good
			signed, _, _ = strings.Cut(signed, "&")
			text = strings.ReplaceAll(text, signed, "[redacted]")
		}
	}
	return text
}

// retryAfter reads the header, seconds or a date; 0 if there is no advice in it.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if header == "" {
		return 0
	}
	if seconds, err := time.ParseDuration(header + "s"); err == nil && !strings.ContainsAny(header, "hmsuµn") {
		return min(max(seconds, 0), maxAdvised)
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(at.Sub(now), 0), maxAdvised)
	}
	return 0
}
