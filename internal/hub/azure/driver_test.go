package azure_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// linkedTo is the fake as a linked hub, with its secret.
func (f *fakeHub) linkedTo(revision uint64) (registration.LinkedHub, []byte) {
	settings, err := json.Marshal(f.config().Settings)
	if err != nil {
		f.t.Fatal(err)
	}
	return registration.LinkedHub{Name: name, Kind: registration.HubAzure, Revision: revision, Settings: settings}, secretOf(f.key)
}

func secretOf(key []byte) []byte {
	return []byte(`{"connectionString":"HostName=Example.com;SharedAccessKeyName=latchkey;SharedAccessKey=` + base64.StdEncoding.EncodeToString(key) + `"}`)
}

// links is what the core knows of linked hubs.
type links struct {
	hub    registration.LinkedHub
	linked bool
	secret []byte
	opened int
}

func (l *links) kind(f *fakeHub) *azure.Hubs {
	h, err := azure.NewHubs(azure.HubsConfig{
		Find: func(s, hub string) (registration.LinkedHub, bool) {
			return l.hub, l.linked && s == scope && hub == name
		},
		Secret: func(string, registration.LinkedHub) ([]byte, error) {
			l.opened++
			if l.secret == nil {
				return nil, errors.New("the key ring lacks the key")
			}
			return l.secret, nil
		},
		Dial: func(string) func(context.Context, string, string) (net.Conn, error) { return f.pipes.dial },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(h.Close)
	return h
}

func TestLinkedHubsAreMadeReadyOnceAndAnewWhenTheyChange(t *testing.T) {
	f := newFake(t)
	var l links
	l.hub, l.secret = f.linkedTo(1)
	h := l.kind(f)
	ensure := func(generation uint64) error {
		return h.EnsureDevice(t.Context(), scope, name, wanted(oldKey, generation, nil))
	}
	if err := ensure(1); !errors.Is(err, registration.ErrUnlinked) || l.opened != 0 {
		t.Errorf("a hub that is not linked: %v", err)
	}
	l.linked = true
	for generation := range uint64(3) {
		if err := ensure(generation + 1); err != nil {
			t.Fatal(err)
		}
	}
	if s, ok := h.State(scope, name); l.opened != 1 || !ok || s.Circuit != azure.Closed || s.AnsweredAt.IsZero() {
		t.Errorf("its secret was opened %d times; %+v", l.opened, s)
	}
	l.hub.Revision, l.secret = 2, secretOf([]byte("not-the-key-of-the-hub"))
	if err := ensure(4); outcomeOf(err) != refused {
		t.Errorf("with another key: %v", err)
	}
	l.hub.Revision, l.secret = 3, nil
	if err := ensure(4); err == nil || !strings.Contains(err.Error(), "opening its secret") {
		t.Errorf("with a secret that cannot be opened: %v", err)
	}
	l.hub, l.secret = f.linkedTo(4)
	if err := errors.Join(ensure(4), h.DisableDevice(t.Context(), scope, name, device, 4), h.RemoveDevice(t.Context(), scope, name, device, 4)); err != nil {
		t.Error(err)
	}
	if _, err := h.DeviceData(t.Context(), scope, name, device); !errors.Is(err, registration.ErrNotFound) {
		t.Errorf("data of what was removed: %v", err)
	}
	l.hub.Kind = registration.HubBroker
	if err := ensure(5); !errors.Is(err, registration.ErrUnlinked) {
		t.Errorf("a hub of another kind: %v", err)
	}
	if err := h.Drop(t.Context(), scope, name); err != nil {
		t.Error(err)
	}
	if _, ok := h.State(scope, name); ok || h.Reach(scope, name) != registration.Remote {
		t.Error("it is kept though it was dropped")
	}
}

func TestAHubIsTriedBeforeItIsLinkedAndLookedAtAfterwards(t *testing.T) {
	f := newFake(t)
	var l links
	l.hub, l.secret = f.linkedTo(0)
	h := l.kind(f)
	probe := func(want ...string) {
		t.Helper()
		f.requests()
		if err := h.Probe(t.Context(), scope, l.hub, l.secret); err != nil {
			t.Error(err)
		}
		if got := f.requests(); strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("it was asked %q", got)
		}
	}
	all := []string{"GET /devices/latchkey.probe", "DELETE /devices/latchkey.probe", "PATCH /twins/latchkey.probe"}
	probe(all...)
	l.linked, l.hub.Revision = true, 1
	if err := h.EnsureDevice(t.Context(), scope, name, wanted(oldKey, 1, nil)); err != nil {
		t.Fatal(err)
	}
	probe(all[0])
	l.secret, l.hub.Revision = append(l.secret, ' '), 0 // the operator gives a new one
	probe(all...)
	f.mu.Lock()
	f.devices["latchkey.probe"] = &fakeDevice{Device: iothub.Device{DeviceID: "latchkey.probe", ETag: "x", Status: iothub.Enabled, Authentication: iothub.Authentication{Type: iothub.SAS}}} // somebody's sense of humour
	f.mu.Unlock()
	probe(all...)
	if f.device("latchkey.probe") == nil {
		t.Error("a look has removed a device")
	}
}

func TestWhatIsLackingIsSaidBeforeAHubIsLinked(t *testing.T) {
	for at, says := range map[string][2]string{
		"GET /devices/latchkey.probe": {"reading the device", "RegistryRead"}, "DELETE /devices/latchkey.probe": {"asking for RegistryWrite", "lacks RegistryWrite"},
		"PATCH /twins/latchkey.probe": {"asking for ServiceConnect", "lacks ServiceConnect"},
	} {
		f := newFake(t)
		var l links
		l.hub, l.secret = f.linkedTo(0)
		h := l.kind(f)
		tr := answers(iothub.IotHubUnauthorizedAccess)
		f.trouble = func(n int) *trouble {
			if f.asked[n-1] == at {
				return &tr
			}
			return nil
		}
		err := h.Probe(t.Context(), scope, l.hub, l.secret)
		var said *registration.HubError
		if !errors.As(err, &said) || !strings.Contains(err.Error(), says[0]) || !strings.Contains(said.Message, says[1]) || strings.Contains(said.Message, "as the fake says") {
			t.Errorf("%s: %v", at, err)
		}
	}
}

func TestSettingsThatAreRefusedBeforeAHubIsLinked(t *testing.T) {
	f := newFake(t)
	good, secret := f.linkedTo(0)
	var l links
	h := l.kind(f)
	if err := h.Judge(scope, good, secret); err != nil {
		t.Fatal(err)
	}
	for says, c := range map[string]struct{ settings, secret string }{
		"settings: this kind of hub":         {`{"host":"x"}`, string(secret)},
		"settings: this kind":                {`{} {}`, string(secret)},
		"settings.ca must be PEM":            {`{"ca":"hunter2"}`, string(secret)},
		"settings.address must be host:port": {`{"address":"hunter2"}`, string(secret)},
		"the secret must hold":               {``, ``},
		"the secret must hold connection":    {``, `{"connectionString":"","password":"hunter2"}`},
		"is not base64":                      {``, `{"connectionString":"HostName=example.com;SharedAccessKeyName=x;SharedAccessKey=hunter2!"}`},
		"this is a device's":                 {``, `{"connectionString":"HostName=example.com;DeviceId=x;SharedAccessKey=hunter2"}`},
		"the connection string is of other":  {``, strings.Replace(string(secret), "Example.com", "other.example.com:8443", 1)},
	} {
		hub := good
		hub.Settings = []byte(c.settings)
		err := h.Judge(scope, hub, []byte(c.secret))
		var said *registration.HubError
		if !errors.As(err, &said) || !strings.Contains(said.Message, says) || strings.Contains(err.Error(), "hunter2") || strings.HasSuffix(said.Message, ".") {
			t.Errorf("%s: %v", says, err)
		}
		if err := h.Probe(t.Context(), scope, hub, []byte(c.secret)); !errors.As(err, &said) {
			t.Errorf("%s: and tried: %v", says, err)
		}
	}
	if len(f.requests()) != 0 {
		t.Error("somebody was asked")
	}
	withPort := strings.Replace(string(secret), "Example.com", "EXAMPLE.com:8443", 1)
	if err := h.Judge(scope, good, []byte(withPort)); err != nil {
		t.Errorf("a port is no other name: %v", err)
	}
}

// A proxy goes wherever it is told, past what a scope's hubs may be reached at: so it is given to those that may go anywhere, by name.
func TestHubsAreReachedThroughAProxyWhereOneIsGivenAlone(t *testing.T) {
	f := newFake(t)
	var l links
	l.hub, l.secret = f.linkedTo(1)
	l.linked = true
	var dialled []string
	kind := func(proxied string) *azure.Hubs {
		h, err := azure.NewHubs(azure.HubsConfig{
			Find:   func(string, string) (registration.LinkedHub, bool) { return l.hub, true },
			Secret: func(string, registration.LinkedHub) ([]byte, error) { return l.secret, nil },
			Dial: func(string) func(context.Context, string, string) (net.Conn, error) {
				return func(_ context.Context, _, address string) (net.Conn, error) {
					dialled = append(dialled, address)
					return nil, errors.New("nobody is there")
				}
			},
			Proxy: func(scope string) func(*http.Request) (*url.URL, error) {
				if scope != proxied {
					return nil
				}
				return http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy.example.com:3128"})
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		return h
	}
	for proxied, want := range map[string]string{scope: "proxy.example.com:3128", "another": "Example.com:443"} {
		dialled = nil
		if err := kind(proxied).DisableDevice(t.Context(), scope, name, device, 1); err == nil || len(dialled) == 0 || dialled[0] != want {
			t.Errorf("a proxy for %s: %q was dialled, %v", proxied, dialled, err)
		}
	}
}
