// Package outbound calls the URLs that operators name: webhooks.
//
// An operator of one tenant need not be who runs this machine, so a URL of his is hostile: it is https, leads to public addresses only unless the
// configuration opens others, is followed nowhere else, and its answer is read up to a bound and within a deadline. Neither a URL's query nor
// its user part, which may be secrets, is in any error.
//
// The receiver can check that a call comes from here: it is signed as Standard Webhooks 1.0.0 says, for which libraries exist in many languages.
package outbound

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// Config of a Client. The zero value calls public addresses with the system's roots.
type Config struct {
	Private []netip.Prefix   // networks that are else closed and may be called
	Roots   *x509.CertPool   // nil: the system's
	Timeout time.Duration    // for a whole call; 0: 10 s
	Answer  int64            // most bytes of an answer; 0: 64 KiB
	Now     func() time.Time // nil: time.Now
}

// Client makes the calls. It is safe for concurrent use.
type Client struct {
	http    *http.Client
	timeout time.Duration
	answer  int64
	now     func() time.Time
}

// Call is one request.
type Call struct {
	URL         string
	ContentType string
	Body        []byte
	ID          string // of what is told, the same when it is told again; not empty
	Key         []byte // what the signature is made with; nil: none
}

// Answer is what came back, whatever its status.
type Answer struct {
	Status     int
	Body       []byte
	RetryAfter time.Duration // 0: nothing was said
}

// ErrAnswerTooLarge says that an answer has more bytes than are read.
var ErrAnswerTooLarge = errors.New("the answer is too large")

// maxHeader bounds the header of an answer.
const maxHeader = 16 << 10

// New makes a client.
func New(config Config) *Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: Control(config.Private)}
	c := &Client{timeout: config.Timeout, answer: config.Answer, now: config.Now, http: &http.Client{
		// A redirect would be a second URL that the operator did not name.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:     dialer.DialContext, // and no proxy: the proxy would do the calling, and look at nothing
			TLSClientConfig: &tls.Config{RootCAs: config.Roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			MaxResponseHeaderBytes: maxHeader, MaxIdleConnsPerHost: 4, MaxConnsPerHost: 32, IdleConnTimeout: 30 * time.Second,
			DisableCompression: true, // the bound is on what comes over the line
		},
	}}
	if c.timeout <= 0 {
		c.timeout = 10 * time.Second
	}
	if c.answer <= 0 {
		c.answer = 64 << 10
	}
	if c.now == nil {
		c.now = time.Now
	}
	return c
}

// Close ends connections that are kept for later calls.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// CheckURL says what is wrong with a URL in itself; nil if it may be called as far as can be seen without resolving its name.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is not a URL")
	case u.Scheme != "https":
		return errors.New("it must begin with https://")
	case u.Hostname() == "":
		return errors.New("it names no host")
	case u.User != nil:
		return errors.New("it must not hold a user name or password")
	case u.Fragment != "":
		return errors.New("it must not have a fragment (#)")
	case len(text) > 2048:
		return errors.New("it is longer than 2048 bytes")
	}
	return nil
}

// Post makes one call and reads its answer. An error means that there is no whole answer; the receiver may have done what was asked all the same.
func (c *Client) Post(ctx context.Context, call Call) (Answer, error) {
	if err := CheckURL(call.URL); err != nil {
		return Answer{}, fmt.Errorf("the webhook's URL cannot be called: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, call.URL, bytes.NewReader(call.Body))
	if err != nil {
		return Answer{}, errors.New("the webhook's URL cannot be called")
	}
	c.sign(request.Header, call)
	response, err := c.http.Do(request)
	if err != nil {
		return Answer{}, bare(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, c.answer+1))
	switch {
	case ctx.Err() != nil: // a body that ends at this moment may have been cut off
		return Answer{}, ctx.Err()
	case err != nil:
		return Answer{}, bare(err)
	case int64(len(body)) > c.answer:
		return Answer{}, ErrAnswerTooLarge
	}
	return Answer{Status: response.StatusCode, Body: body, RetryAfter: retryAfter(response.Header.Get("Retry-After"), c.now())}, nil
}

// sign gives a request the headers of Standard Webhooks 1.0.0 (names in lower case, as over HTTP/2; the signature is of "id.timestamp.body").
func (c *Client) sign(header http.Header, call Call) {
	at := strconv.FormatInt(c.now().Unix(), 10)
	header.Set("Content-Type", call.ContentType)
	header.Set("User-Agent", "latchkey")
	header.Set("Webhook-Id", call.ID)
	header.Set("Webhook-Timestamp", at)
	if call.Key != nil {
		header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(Signature(call.Key, call.ID, at, call.Body)))
	}
}

// Signature is HMAC-SHA256 over "id.timestamp.body".
func Signature(key []byte, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return mac.Sum(nil)
}

// bare takes the URL out of an error.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if refused, ok := errors.AsType[Refused](err); ok {
		return refused
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}

// maxRetryAfter bounds what a receiver can make its caller wait.
const maxRetryAfter = time.Hour

// retryAfter reads seconds or a date (RFC 9110, 10.2.3); 0 if it says nothing that can be understood.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
