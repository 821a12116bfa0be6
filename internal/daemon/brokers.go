package daemon

import (
	"context"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"latchkey.example/latchkey/internal/hub/broker"
	"latchkey.example/latchkey/internal/registration"
)

// openBrokers makes the hub of linked MQTT brokers. Any node drives them, and any answers what they ask.
func (s *service) openBrokers() (*broker.Hub, error) {
	return broker.New(broker.Config{
		Identities: s.store, Sealer: s.ring, Logger: s.log.With("room", "brokers"), Metrics: broker.NewMetrics(s.metrics),
		Linked:       func(scope, name string) (registration.LinkedHub, bool) { return s.core.LinkedHub(scope, name) },
		All:          func() map[string][]registration.LinkedHub { return s.core.LinkedHubs() },
		Alone:        s.config.Store == "", // the embedded store is this process's alone: lockInstallation
		MaxTokenLife: s.config.Hub.MaxTokenLife,
		Dial:         s.dialHubs,
		Remember:     filepath.Join(filepath.Dir(s.config.Database), "broker-logins"),
	})
}

// keepBrokers ends connections at brokers whose SAS token has ended.
func (s *service) keepBrokers(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return s.brokers.Keep(ctx) })
}
