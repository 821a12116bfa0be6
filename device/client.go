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
	DefaultAPIVersion = "2021-06-01"

	requestTimeout = 60 * time.Second
	userAgent      = "latchkey-device (Go)"
)

// ClientConfig says which service to talk to, and how.
type ClientConfig struct {
	// Endpoint is the service: HOST, HOST:PORT or https://HOST[:PORT]. Azure's
	// is global.azure-devices-provisioning.net.
	Endpoint string

	// IDScope names the tenant at the service.
	IDScope string

	// RootCAs vouch for the service's certificate; nil: those of the system.
	RootCAs *x509.CertPool

	// ConnectAddress is a HOST:PORT to connect to instead of the endpoint's. The
	// certificate must still be for the endpoint's host.
	ConnectAddress string

	// HTTPClient is used instead of one made from RootCAs and ConnectAddress.
	// Redirects are never followed: they would carry the proof elsewhere.
	HTTPClient *http.Client

	// APIVersion is sent as api-version; empty: DefaultAPIVersion.
	APIVersion string

	// Progress receives the steps; may be nil.
	Progress Progress
}

// Client speaks the device API of a provisioning service. Its methods may be
// called from several goroutines.
type Client struct {
	base       string // https://host[:port]
	scope      string
	apiVersion string
	http       *http.Client
	progress   Progress

	// The clock; tests replace it.
	now  func() time.Time
	wait func(context.Context, time.Duration) error
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
		progress: config.Progress, now: time.Now, wait: sleep}
	if c.apiVersion == "" {
		c.apiVersion = DefaultAPIVersion
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
	if u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "", fmt.Errorf("endpoint %q: want HOST, HOST:PORT or https://HOST[:PORT]", endpoint)
	}
	return "https://" + u.Host, nil
}

func (config ClientConfig) httpClient() *http.Client {
	var client http.Client
	if config.HTTPClient != nil {
		client = *config.HTTPClient
	} else {
		client = http.Client{Transport: config.transport(), Timeout: requestTimeout}
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

func (config ClientConfig) transport() *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: config.RootCAs}
	if config.ConnectAddress != "" {
		dialer := &net.Dialer{Timeout: dialTimeout}
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, config.ConnectAddress)
		}
	}
	return transport
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
