// Package azure is a linked hub that is driven over the device identity and twin REST interface of Azure IoT Hub: such a hub itself, or
// anything that has PUT, GET and DELETE /devices/{id} and PUT, GET and PATCH /twins/{id}, a second Latchkey among them.
//
// It guarantees what registration.Hub and Mover ask, as far as the other side has it. The fence of generations is kept in the identity's statusReason (iothub.Mark)
// and every write of an identity is made on the condition that it is still the one that was read (If-Match), so of two writers one begins anew.
// What takes several calls leaves a stage in the mark: whoever comes next, this process or another, goes on from there. Nothing is
// held in memory that a restart would miss.
//
// It trusts that the hub's etags change with every write, and its TLS certificate as far as the system's roots or the hub's own CA vouch for it. The
// hub's answers are bounded in size and time and judged before they are believed; a 404 counts only if it says that the device is not there.
//
// What such a hub cannot do is said in docs/hubs/azure.md: nobody but the device writes reported properties there, and a removed identity
// leaves no generation behind.
package azure

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// Settings are what is kept of such a hub beside its secret (registration.LinkedHub.Settings, JSON).
type Settings struct {
	// CA is PEM of certificates that vouch for the hub's besides the system's roots. Empty: the system's roots alone.
	CA string `json:"ca,omitempty"`
	// Address is host:port where the hub's service side is reached if its name does not lead there. The certificate is still that of the name.
	Address string `json:"address,omitempty"`
}

// Secret is what is sealed (registration.LinkedHub.SealedSecret, JSON).
type Secret struct {
	ConnectionString string `json:"connectionString"` // of an access policy with RegistryRead, RegistryWrite and ServiceConnect
}

// maxCA bounds Settings.CA, in bytes.
const maxCA = 64 << 10

// Config is a hub and the world around it.
type Config struct {
	Name       string // of the linked hub: host name, lower case
	Connection iothub.Connection
	Settings   Settings
	Log        *slog.Logger // nil: nothing is logged

	Now      func() time.Time // nil: time.Now
	Random   func() float64   // 0 to 1, for jitter; nil: math/rand
	CallTime time.Duration    // for one request, its answer read; 0: 4 seconds
	// Wait pauses between tries; nil: a timer. It returns early with ctx's error.
	Wait func(ctx context.Context, d time.Duration) error
	Dial func(ctx context.Context, network, address string) (net.Conn, error) // nil: the network
	// Proxy is the one through which the hub is reached, unless its settings have an address; nil: none.
	Proxy func(*http.Request) (*url.URL, error)
}

// How a hub is treated.
const (
	callTime   = 4 * time.Second
	dialTime   = 3 * time.Second
	tokenLife  = time.Hour
	tokenRest  = tokenLife / 4 // a SAS token with less left is not used any more
	maxCalls   = 8             // at a time
	tries      = 3             // of one call of the interface
	firstPause = 50 * time.Millisecond
)

// Hub is one linked hub. It is safe for concurrent use.
type Hub struct {
	config Config
	client *http.Client
	slots  chan struct{} // holds one element for each request under way
	takes  atomic.Bool   // the hub has said that it takes reported properties
	health health

	mu     sync.Mutex
	token  string
	expiry time.Time
}

var (
	_ registration.Hub   = (*Hub)(nil)
	_ registration.Mover = (*Hub)(nil)
)

// Parse reads settings and secret as they are kept, and judges them. Errors are *registration.HubError.
func Parse(name string, settings, secret []byte) (s Settings, c iothub.Connection, err error) {
	if err := strict(settings, &s); err != nil {
		return s, c, bad("settings: this kind of hub knows ca and address, both texts")
	}
	var kept Secret
	if err := strict(secret, &kept); err != nil || kept.ConnectionString == "" {
		return s, c, bad("the secret must hold connectionString, the connection string of an access policy of the hub with RegistryRead, RegistryWrite and ServiceConnect")
	}
	if c, err = iothub.ParseConnection(kept.ConnectionString); err != nil {
		return s, c, bad("%v", err)
	}
	if host := hostOf(c.HostName); host != name {
		return s, c, bad("the connection string is of %s, not of this hub", host)
	}
	if _, err := roots(s.CA); err != nil {
		return s, c, bad("%v", err)
	}
	if host, port, err := net.SplitHostPort(s.Address); s.Address != "" && (err != nil || host == "" || port == "") {
		return s, c, bad("settings.address must be host:port")
	}
	return s, c, nil
}

func bad(format string, args ...any) error {
	return &registration.HubError{Message: fmt.Sprintf(format, args...)}
}

// strict decodes JSON that holds nothing unknown; nothing is an empty object.
func strict(data []byte, into any) error {
	if len(data) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("something follows")
	}
	return nil
}

// hostOf is the host of host or host:port, lower case.
func hostOf(hostName string) string {
	if host, _, err := net.SplitHostPort(hostName); err == nil {
		hostName = host
	}
	return strings.ToLower(hostName)
}

// roots are the system's and those of the PEM; nil for the system's alone.
func roots(ca string) (*x509.CertPool, error) {
	if ca == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if len(ca) > maxCA || !pool.AppendCertsFromPEM([]byte(ca)) {
		return nil, fmt.Errorf("settings.ca must be PEM certificates, at most %d bytes", maxCA)
	}
	return pool, nil
}

// New makes the client of a hub. It calls nobody yet.
func New(config Config) (*Hub, error) {
	if host := hostOf(config.Connection.HostName); host != config.Name {
		return nil, fmt.Errorf("hub %s: the connection string is of %s", config.Name, host)
	}
	pool, err := roots(config.Settings.CA)
	if err != nil {
		return nil, fmt.Errorf("hub %s: %w", config.Name, err)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Random == nil {
		config.Random = rand.Float64
	}
	if config.CallTime == 0 {
		config.CallTime = callTime
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Wait == nil {
		config.Wait = pause
	}
	h := &Hub{config: config, slots: make(chan struct{}, maxCalls)}
	h.health = health{now: config.Now, random: config.Random, log: config.Log.With("hub", config.Name)}
	h.client = &http.Client{Transport: transport(config, pool), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return h, nil
}

// transport reaches the hub wherever it is, private networks included: the operator has linked it. HTTP/1.1 keeps the bounds of one answer from
// those of another.
func transport(config Config, pool *x509.CertPool) *http.Transport {
	t := &http.Transport{
		Proxy:                  config.Proxy,
		DialContext:            (&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTime,
		MaxConnsPerHost:        maxCalls,
		MaxIdleConnsPerHost:    maxCalls,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if config.Dial != nil {
		t.DialContext = config.Dial
	}
	if address := config.Settings.Address; address != "" {
		dial := t.DialContext
		t.Proxy = nil // the operator has said where it is
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dial(ctx, network, address)
		}
	}
	return t
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Close lets go of idle connections. Calls under way go on.
func (h *Hub) Close() { h.client.CloseIdleConnections() }

// Reach implements registration.Hub: any process can do it, over the network.
func (h *Hub) Reach(string, string) registration.Reach { return registration.Remote }

// Drop implements registration.Hub. Sessions and identities at a hub that is not ours outlive the scope: who owns that hub removes them.
func (h *Hub) Drop(context.Context, string, string) error {
	h.Close()
	return nil
}

// serviceToken gives a SAS token with some time left.
func (h *Hub) serviceToken() (string, error) {
	now := h.config.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if left := h.expiry.Sub(now); h.token != "" && left > tokenRest && left <= tokenLife { // more: the clock was set back
		return h.token, nil
	}
	expiry := now.Add(tokenLife)
	token, err := iothub.ServiceToken(h.config.Connection, expiry)
	if err != nil {
		return "", fmt.Errorf("signing for the hub: %w", err)
	}
	h.token, h.expiry = token, expiry
	return token, nil
}
