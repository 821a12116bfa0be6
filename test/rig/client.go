package rig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Standard ports of the protocol, which clients have built in.
const (
	httpsPort = "443"
	mqttPort  = "8883"
)

const (
	retryEvery = 10 * time.Millisecond
	maxIdle    = 64 // connections that a client keeps, for tests with that many workers
)

// Access is all that clients need to know of a service, or of several behind one
// load balancer.
type Access struct {
	Host             string         // the DNS name; nothing resolves it, see Client and Redirect
	IDScope          string         // what devices put into their paths
	ConnectionString string         // of the access policy with all rights; a secret
	CAFile           string         // PEM of the service's private CA
	CAs              *x509.CertPool // the same
	HTTPS            string         // where connections to HTTPS go, host:port
	MQTT             string         // likewise

	programs Programs
}

// At is the same service reached by other addresses, such as those of a load
// balancer.
func (s Access) At(https, mqtt string) Access {
	s.HTTPS, s.MQTT = https, mqtt
	return s
}

// Programs are those that it was made with.
func (s *Access) Programs() Programs { return s.programs }

// TLS is the configuration of a client that trusts the service's CA and
// expects its name.
func (s *Access) TLS() *tls.Config {
	return &tls.Config{RootCAs: s.CAs, ServerName: s.Host, MinVersion: tls.VersionTLS12}
}

// Client gives an HTTP client for https://HOST/…: it reaches the service's
// present address, whatever the name resolves to, and checks its certificate.
func (s *Access) Client() *http.Client {
	transport := &http.Transport{
		TLSClientConfig:     s.TLS(),
		MaxIdleConnsPerHost: maxIdle,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, s.HTTPS)
		},
	}
	return &http.Client{Transport: transport, Timeout: startLimit}
}

// URL of a path (with its query) at the service.
func (s *Access) URL(path string) string { return "https://" + s.Host + path }

// Redirect lists where connections have to go instead of to the name and the
// standard ports: "HOST:443=127.0.0.1:N,HOST:8883=127.0.0.1:N".
func (s *Access) Redirect() string {
	return net.JoinHostPort(s.Host, httpsPort) + "=" + s.HTTPS + "," + net.JoinHostPort(s.Host, mqttPort) + "=" + s.MQTT
}

// pollReady asks the HTTPS listener, or that of the metrics if only a load
// balancer may come to the other.
func (s *Service) pollReady(ctx context.Context) error {
	client, url := s.Client(), s.URL("/readyz")
	if s.config.Proxy != "" {
		client, url = &http.Client{Transport: &http.Transport{}, Timeout: startLimit}, "http://"+s.Metrics+"/readyz"
	}
	defer client.CloseIdleConnections()
	_, err := Poll(ctx, func() (struct{}, bool, error) {
		if !s.Running() {
			return struct{}{}, false, fmt.Errorf("rig: the service ended before it was ready: %w; its log ends with:\n%s", s.process.err, lastLines(s.Log(), 20))
		}
		return struct{}{}, get(ctx, client, url) == nil, nil
	})
	return err
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, answer.Status)
	}
	return nil
}

// Poll asks until the answer is there, asking fails or ctx ends: for what only
// another process can tell.
func Poll[T any](ctx context.Context, ask func() (T, bool, error)) (T, error) {
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for {
		value, there, err := ask()
		if there || err != nil {
			return value, err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return value, fmt.Errorf("rig: waited in vain: %w", ctx.Err())
		}
	}
}
