package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// manager is what this package does through a broker's management API.
type manager interface {
	// cut ends all connections of a device and removes what the broker keeps for it, and is idempotent. It reports how many it has ended.
	cut(ctx context.Context, deviceID string) (closed int, err error)
	// list shows all connections, page by page, in no order. One that comes or goes meanwhile may be missed or be shown twice.
	list(ctx context.Context, page func([]connection)) error
	// end ends one connection; what the broker keeps for the device stays.
	end(ctx context.Context, c connection) error
	// probe asks whether the others will be allowed.
	probe(ctx context.Context) error
}

// connection is one that the broker has.
type connection struct {
	name     string // how the management API calls it
	user     string // as it logged in
	clientID string
	since    time.Time // by the clock of this process; zero if the API does not say
}

const (
	managementTime = 4 * time.Second // for one request to a management API
	maxAnswer      = 8 << 20         // bytes of one answer
	maxPages       = 2048            // of one list; with pages of 500 that is a million connections
)

// api speaks with one management API.
type api struct {
	root           string
	user, password string
	client         *http.Client
}

// newManager makes the product's manager, nil if it has none, and what frees it.
func newManager(l *link, dial func(ctx context.Context, network, address string) (net.Conn, error)) (manager, func()) {
	s := l.settings
	if !s.Product.managed() {
		return nil, func() {}
	}
	transport := &http.Transport{DialContext: dial, TLSHandshakeTimeout: managementTime, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if s.CACertificates != "" {
		roots, err := x509.SystemCertPool()
		if err != nil { // a machine without authorities of its own
			roots = x509.NewCertPool()
		}
		roots.AppendCertsFromPEM([]byte(s.CACertificates))
		transport.TLSClientConfig.RootCAs = roots
	}
	a := &api{root: strings.TrimSuffix(s.ManagementURL, "/"), user: s.ManagementUser, password: l.secret.ManagementPassword, client: &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}} // the password goes to nobody else
	switch s.Product {
	case RabbitMQ:
		return &rabbit{a, s.VirtualHost, l}, transport.CloseIdleConnections
	case EMQX:
		return &emqx{a}, transport.CloseIdleConnections
	default:
		a.user, a.password = l.secret.ManagementPassword, ""
		return &verne{a, s.VirtualHost}, transport.CloseIdleConnections
	}
}

// errGone says that what was to be ended or removed is not there.
var errGone = errors.New("not there")

// call makes one request. Path begins with a slash and is escaped. The answer is decoded into a value if one is given.
func (a *api) call(ctx context.Context, method, path string, into any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, managementTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, a.root+path, nil)
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(a.user, a.password)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("X-Reason", "Latchkey: the device may not be here any more") // RabbitMQ writes it into its log
	response, err := a.client.Do(request)
	if err != nil {
		var failed *url.Error // its text has the whole URL in it
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return nil, fmt.Errorf("the management API does not answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the management API broke off its answer: %w", err)
	case response.StatusCode == http.StatusNotFound:
		return nil, errGone
	case response.StatusCode == http.StatusUnauthorized, response.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("the management API refuses the user or password that the hub is linked with: status %d", response.StatusCode)
	case response.StatusCode/100 != 2:
		return nil, fmt.Errorf("the management API answers with status %d", response.StatusCode)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the management API answers with more than %d bytes", maxAnswer)
	case into == nil:
		return response.Header, nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return nil, errors.New("the management API answers what cannot be read: is managementUrl its root?")
	}
	return response.Header, nil
}

// remove is a call that finds nothing to do if it was done before.
func (a *api) remove(ctx context.Context, path string) (gone bool, err error) {
	_, err = a.call(ctx, http.MethodDelete, path, nil)
	if errors.Is(err, errGone) {
		return true, nil
	}
	return false, err
}

// clockOf is how far the broker's clock is ahead of this one, as its answer says; it is good to a second.
func clockOf(header http.Header) time.Duration {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0
	}
	return time.Until(date).Round(time.Second)
}
