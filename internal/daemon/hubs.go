package daemon

import (
	"context"

	"golang.org/x/sync/errgroup"

	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/hub/linked"
	"latchkey.example/latchkey/internal/registration"
)

// openHubs makes the hub that the core is given: the linked hubs of all scopes, each behind the driver of its kind.
func (s *service) openHubs() (err error) {
	find := func(scope, name string) (registration.LinkedHub, bool) { return s.core.LinkedHub(scope, name) }
	secret := func(scope string, hub registration.LinkedHub) ([]byte, error) { return s.core.HubSecret(scope, hub) }
	if s.azure, err = azure.NewHubs(azure.HubsConfig{Find: find, Secret: secret, Logger: s.log.With("room", "azure")}); err != nil {
		return err
	}
	s.hubs, err = linked.New(linked.Config{
		Drivers: map[registration.HubKind]linked.Driver{
			registration.HubEmbedded: linked.Local{Embedded: s.hub}, registration.HubAzure: s.azure, registration.HubBroker: s.brokers,
		},
		Find: find, Secret: secret,
		All:    func() map[string][]registration.LinkedHub { return s.core.LinkedHubs() },
		Logger: s.log.With("room", "hubs"),
	})
	if err == nil {
		s.metrics.MustRegister(s.hubs)
	}
	return err
}

// keepHubs looks at the linked hubs until ctx ends.
func (s *service) keepHubs(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { s.hubs.Keep(ctx); return nil })
}
