package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/hub/linked"
	"latchkey.example/latchkey/internal/outbound"
	"latchkey.example/latchkey/internal/registration"
)

// openHubs makes the hub that the core is given: the linked hubs of all scopes, each behind the driver of its kind.
func (s *service) openHubs() (err error) {
	if s.private, err = s.config.PrivateWebhooks(); err != nil {
		return err
	}
	find := func(scope, name string) (registration.LinkedHub, bool) { return s.core.LinkedHub(scope, name) }
	secret := func(scope string, hub registration.LinkedHub) ([]byte, error) { return s.core.HubSecret(scope, hub) }
	if s.azure, err = azure.NewHubs(azure.HubsConfig{Find: find, Secret: secret, Logger: s.log.With("room", "azure"), Dial: s.dialHubs, Proxy: s.proxyHubs}); err != nil {
		return err
	}
	s.hubs, err = linked.New(linked.Config{
		Drivers: map[registration.HubKind]linked.Driver{
			registration.HubEmbedded: linked.Local{Embedded: s.hub}, registration.HubAzure: s.azure, registration.HubBroker: s.brokers,
		},
		Find: find, Secret: secret, Forget: s.hub.Forget,
		All:    func() map[string][]registration.LinkedHub { return s.core.LinkedHubs() },
		Logger: s.log.With("room", "hubs"),
	})
	if err == nil {
		s.metrics.MustRegister(s.hubs)
	}
	return err
}

// hubDialTime bounds the making of a connection to a hub.
const hubDialTime = 3 * time.Second

// dialHubs is how the hubs of a scope are reached: those of the home scope, whose operator has the machines, wherever they are; those of
// tenants at public addresses and where the configuration lets webhooks be called. Else a tenant could search the networks of the installation.
func (s *service) dialHubs(scope string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := &net.Dialer{Timeout: hubDialTime, KeepAlive: 30 * time.Second}
		if !s.core.IsHome(scope) {
			dialer.Control = outbound.Control(s.private)
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if refused, ok := errors.AsType[outbound.Refused](err); ok {
			err = &registration.HubError{Message: "its name leads to a private or reserved network, where hubs of this scope may not be unless the setting webhooks.private opens it", Err: refused}
		}
		return conn, err
	}
}

// proxyHubs is the proxy through which the hubs of a scope are reached: that of the environment, for the home scope alone. It would take a tenant
// wherever he names.
func (s *service) proxyHubs(scope string) func(*http.Request) (*url.URL, error) {
	if s.core.IsHome(scope) {
		return http.ProxyFromEnvironment
	}
	return nil
}

// keepHubs looks at the linked hubs until ctx ends.
func (s *service) keepHubs(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { s.hubs.Keep(ctx); return nil })
}
