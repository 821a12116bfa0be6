package device

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// DefaultAPIVersion is the newest api-version that SDKs of Azure DPS send.
	// Older ones of theirs send 2019-03-31.
	DefaultAPIVersion = "2021-06-01"

	// AzureEndpoint is Azure's Device Provisioning Service, the same for all of
	// its instances: the ID scope tells them apart.
	AzureEndpoint = "global.azure-devices-provisioning.net"

	requestTimeout = 60 * time.Second // of one request, with its answer to the last byte
	idleTimeout    = 30 * time.Second // routers forget a connection without a word
	userAgent      = "latchkey-device (Go)"
)

// ClientConfig says which service to talk to, and how.
type ClientConfig struct {
	// Endpoint is the service: HOST, HOST:PORT or https://HOST[:PORT]. Azure's
	// is AzureEndpoint. HTTPS is the only transport: a TPM cannot register over
	// MQTT at any service, and AMQP is not there yet.
	Endpoint string

	// IDScope names the tenant at the service.
	IDScope string

	// RootCAs vouch for the service's certificate; nil: those of the system.
	RootCAs *x509.CertPool

	// ConnectAddress is a HOST:PORT to connect to instead of the endpoint's. The
	// certificate must still be for the endpoint's host.
	ConnectAddress string

	// HTTPClient is used instead of one made from RootCAs and ConnectAddress.
	// Redirects are never followed: they would carry the proof elsewhere. A
	// request takes a minute at most, with this client too.
	HTTPClient *http.Client

	// APIVersion is sent as api-version; empty: DefaultAPIVersion.
	APIVersion string

	// Progress receives the steps; may be nil.
	Progress Progress

	// Wait replaces the timer of pauses between requests: for a program that
	// feeds a watchdog meanwhile, or lets the machine sleep. It returns ctx's
	// error if ctx ends first, and may return early. nil: a timer.
	Wait func(ctx context.Context, d time.Duration) error
}

// Client speaks the device API of a provisioning service. Its methods may be
// called from several goroutines.
type Client struct {
	base       string // https://host[:port]
	scope      string
	apiVersion string
	http       *http.Client
	progress   Progress

	own, steady func() time.Time // the clocks; tests replace them
	wait        func(context.Context, time.Duration) error
}

// NewClient checks the configuration. It does not connect.
func NewClient(config ClientConfig) (*Client, error) {
	base, err := parseEndpoint(config.Endpoint)
	if err != nil {
		return nil, err
	}
	if config.IDScope == "" {
		return nil, errors.New("no ID scope")
	}
	c := &Client{base: base, scope: config.IDScope, apiVersion: config.APIVersion,
		progress: config.Progress, own: time.Now, steady: steadyNow, wait: config.Wait}
	if c.apiVersion == "" {
		c.apiVersion = DefaultAPIVersion
	}
	if c.wait == nil {
		c.wait = sleep
	}
	c.http = config.httpClient()
	return c, nil
}

func parseEndpoint(endpoint string) (string, error) {
	if endpoint == "" {
		return "", errors.New("no endpoint")
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", fmt.Errorf("endpoint: %w", err)
	}
	if u.Scheme != "https" && u.Scheme != "" {
		return "", fmt.Errorf("endpoint %q: HTTPS is the only transport; give https://HOST[:PORT] or HOST[:PORT]", endpoint)
	}
	if u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "", fmt.Errorf("endpoint %q: want HOST, HOST:PORT or https://HOST[:PORT]", endpoint)
	}
	return "https://" + u.Host, nil
}

func (config ClientConfig) httpClient() *http.Client {
	var client http.Client
	if config.HTTPClient != nil {
		client = *config.HTTPClient
	} else {
		client = http.Client{Transport: config.transport()}
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

func (config ClientConfig) transport() *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: config.RootCAs}
	transport.IdleConnTimeout = idleTimeout
	transport.MaxResponseHeaderBytes = 64 << 10
	if config.ConnectAddress != "" {
		dialer := &net.Dialer{Timeout: dialTimeout}
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, config.ConnectAddress)
		}
	}
	return transport
}

// Clock asks the service what time it is: a request without any content, whose
// answer does not matter, since each has a date. It is for devices that start
// with a saved hub key and a wrong clock: TokenOptions.Clock.
//
// TLS needs a clock too. A certificate that is "not yet valid" on a device that
// starts in 1970 is an error here as everywhere.
func (c *Client) Clock(ctx context.Context) (Clock, error) {
	done := c.progress.timed(StepClock)
	a, err := c.send(ctx, StepClock, http.MethodGet, "/", "", nil)
	if err == nil && a.date.IsZero() {
		err = &AnswerError{Step: StepClock, Status: a.status, Reason: "no date in it"}
	}
	if err != nil {
		done("", err)
		return Clock{}, err
	}
	clock := c.clockOf(a.date)
	done(fmt.Sprintf("the service is %v ahead of this device", clock.reckon(c.own(), c.steady()).Sub(c.own()).Round(time.Second)), nil)
	return clock, nil
}

// clockOf is the clock of a service that has just shown this time.
func (c *Client) clockOf(shown time.Time) Clock {
	if shown.IsZero() {
		return Clock{}
	}
	return Clock{shown: shown, seen: c.steady()}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
