package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"latchkey.example/latchkey/internal/registration"
)

// Judge says in one sentence what is wrong with the settings and the secret of a hub that is to be linked. It does not wait.
func (h *Hub) Judge(_ string, hub registration.LinkedHub, secret []byte) error {
	s, err := ParseSettings(hub.Settings)
	if err != nil {
		return err
	}
	_, err = ParseSecret(secret, s.Product)
	return err
}

// Probe asks the management API of a broker whether it is there and will let connections be listed and ended. It changes nothing. A product without one cannot be
// asked anything (registration.ErrUnseen): that the broker asks us shows only when the first device comes.
func (h *Hub) Probe(ctx context.Context, scope string, hub registration.LinkedHub, secret []byte) error {
	l := &link{Scope: scope, Name: hub.Name}
	var err error
	if l.settings, err = ParseSettings(hub.Settings); err != nil {
		return err
	}
	if l.secret, err = ParseSecret(secret, l.settings.Product); err != nil {
		return err
	}
	m, free := newManager(l, h.config.Dial(l.Scope))
	defer free()
	if m == nil {
		return registration.ErrUnseen
	}
	return m.probe(ctx)
}

// probe: who may close the connections of others is an administrator, and to remove queues needs rights in the virtual host.
func (r *rabbit) probe(ctx context.Context) error {
	var me struct {
		Name string `json:"name"`
		Tags tags   `json:"tags"`
	}
	if _, err := r.call(ctx, http.MethodGet, "/api/whoami", &me); err != nil {
		return err
	}
	if !slices.Contains(me.Tags, "administrator") {
		return fmt.Errorf("the RabbitMQ user %q has not the tag administrator, without which it cannot close the connections of others", clip(me.Name))
	}
	var permission struct {
		Configure string `json:"configure"`
	}
	_, err := r.call(ctx, http.MethodGet, "/api/permissions/"+url.PathEscape(r.host)+"/"+url.PathEscape(me.Name), &permission)
	if errors.Is(err, errGone) {
		return fmt.Errorf("the RabbitMQ user %q has no permissions in the virtual host %q: to remove the sessions of devices it needs to configure queues there", clip(me.Name), clip(r.host))
	}
	return err
}

func (e *emqx) probe(ctx context.Context) error {
	_, err := e.call(ctx, http.MethodGet, "/api/v5/clients?page=1&limit=1", new(emqxClients))
	return err
}

func (v *verne) probe(ctx context.Context) error {
	_, err := v.call(ctx, http.MethodGet, "/api/v1/session/show?--client_id&--limit=1", new(verneSessions))
	return err
}
