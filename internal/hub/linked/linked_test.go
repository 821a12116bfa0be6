package linked

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/registration"
)

// driver is a kind of hub that notes what it is asked, and fails as it is told to.
type driver struct {
	mu     sync.Mutex
	asked  []string
	fails  map[string]error // by hub
	probes map[string]error
	takes  time.Duration // of a probe
	reach  registration.Reach
	busy   int // probes under way
	most   int
}

func (d *driver) note(call, scope, hub string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, call+" "+scope+" "+hub)
	return d.fails[hub]
}

func (d *driver) EnsureDevice(_ context.Context, scope, hub string, _ registration.HubDevice) error {
	return d.note("ensure", scope, hub)
}

func (d *driver) RemoveDevice(_ context.Context, scope, hub, _ string, _ uint64) error {
	return d.note("remove", scope, hub)
}

func (d *driver) DisableDevice(_ context.Context, scope, hub, _ string, _ uint64) error {
	return d.note("disable", scope, hub)
}

func (d *driver) DeviceData(_ context.Context, scope, hub, _ string) (registration.DeviceData, error) {
	return registration.DeviceData{IoTEdge: true}, d.note("data", scope, hub)
}

func (d *driver) Drop(_ context.Context, scope, hub string) error { return d.note("drop", scope, hub) }

func (d *driver) Reach(string, string) registration.Reach { return d.reach }

func (d *driver) Judge(_ string, hub registration.LinkedHub, secret []byte) error {
	if len(secret) == 0 {
		return errors.New("the secret is missing")
	}
	return nil
}

func (d *driver) Probe(ctx context.Context, _ string, hub registration.LinkedHub, secret []byte) error {
	d.mu.Lock()
	d.busy++
	d.most = max(d.most, d.busy)
	err := d.probes[hub.Name]
	d.mu.Unlock()
	defer func() { d.mu.Lock(); d.busy--; d.mu.Unlock() }()
	if string(secret) != "secret of "+hub.Name {
		return errors.New("the secret is another's")
	}
	select {
	case <-time.After(d.takes):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *driver) calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// world is a hub over drivers, with linked hubs that a test changes.
type world struct {
	*Hub
	t               *testing.T
	embedded, azure *driver
	mu              sync.Mutex
	hubs            map[string][]registration.LinkedHub
	forgotten       []string
	forgetFails     error
}

func newWorld(t *testing.T, hubs map[string][]registration.LinkedHub) *world {
	t.Helper()
	make := func(reach registration.Reach) *driver {
		return &driver{fails: map[string]error{}, probes: map[string]error{}, reach: reach, takes: 20 * time.Millisecond}
	}
	w := &world{t: t, embedded: make(registration.Here), azure: make(registration.Remote), hubs: hubs}
	var err error
	w.Hub, err = New(Config{
		Drivers: map[registration.HubKind]Driver{registration.HubEmbedded: w.embedded, registration.HubAzure: w.azure},
		Find: func(scope, hub string) (registration.LinkedHub, bool) {
			for _, linked := range w.all()[scope] {
				if linked.Name == strings.ToLower(hub) {
					return linked, true
				}
			}
			return registration.LinkedHub{}, false
		},
		All: w.all,
		Secret: func(_ string, hub registration.LinkedHub) ([]byte, error) {
			return []byte("secret of " + hub.Name), nil
		},
		Forget: func(_ context.Context, scope, hub, deviceID string, generation uint64) error {
			w.forgotten = append(w.forgotten, fmt.Sprint(scope, " ", hub, " ", deviceID, " ", generation))
			return w.forgetFails
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) all() map[string][]registration.LinkedHub {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hubs
}

func (w *world) link(hubs map[string][]registration.LinkedHub) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hubs = hubs
}

func hub(name string, kind registration.HubKind) registration.LinkedHub {
	return registration.LinkedHub{Name: name, Kind: kind, Weight: 1, Revision: 1}
}

var two = map[string][]registration.LinkedHub{
	"s1": {hub("own.example", registration.HubEmbedded), hub("far.example", registration.HubAzure)},
	"s2": {hub("other.example", registration.HubAzure), hub("broker.example", registration.HubBroker)},
}

func TestACallReachesTheKindOfItsHubAndNoOther(t *testing.T) {
	w := newWorld(t, two)
	ctx := t.Context()
	for _, err := range []error{
		w.EnsureDevice(ctx, "s1", "own.example", registration.HubDevice{}), w.EnsureDevice(ctx, "s1", "FAR.example", registration.HubDevice{}),
		w.RemoveDevice(ctx, "s1", "far.example", "d", 1), w.DisableDevice(ctx, "s2", "other.example", "d", 1),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if data, err := w.DeviceData(ctx, "s1", "far.example", "d"); err != nil || !data.IoTEdge {
		t.Errorf("data: %+v, %v", data, err)
	}
	if got := strings.Join(w.embedded.calls(), ", "); got != "ensure s1 own.example" {
		t.Errorf("the embedded hub was asked %s", got)
	}
	if got := strings.Join(w.azure.calls(), ", "); got != "ensure s1 far.example, remove s1 far.example, disable s2 other.example, data s1 far.example" {
		t.Errorf("the azure kind was asked %s", got)
	}
}

// What is not linked is gone, whatever the hub itself still holds: another scope's hub, one that was unlinked, one of a kind that is not served.
func TestWhatIsNotLinkedIsNotReached(t *testing.T) {
	w := newWorld(t, two)
	ctx := t.Context()
	for _, at := range [][2]string{{"s1", "gone.example"}, {"s2", "far.example"}, {"nowhere", "far.example"}, {"s2", "broker.example"}, {"s1", ""}} {
		_, err := w.DeviceData(ctx, at[0], at[1], "d")
		for _, err := range []error{err, w.EnsureDevice(ctx, at[0], at[1], registration.HubDevice{}), w.RemoveDevice(ctx, at[0], at[1], "d", 1), w.DisableDevice(ctx, at[0], at[1], "d", 1)} {
			if !errors.Is(err, registration.ErrUnlinked) {
				t.Errorf("%v: %v", at, err)
			}
		}
		if _, known := w.Latency(at[0], at[1]); known {
			t.Errorf("%v has a latency", at)
		}
	}
	if asked := append(w.azure.calls(), w.embedded.calls()...); len(asked) > 0 {
		t.Errorf("asked: %v", asked)
	}
	if got := w.Reach("s1", "gone.example"); got != registration.Here {
		t.Errorf("a hub that is gone is reached %v: its answer needs nobody", got)
	}
}

// An unlinked hub that is linked again must not let in a device that has gone elsewhere: what our store holds of it goes when it leaves.
func TestADeviceIsForgottenAtAHubThatIsLinkedNoMore(t *testing.T) {
	w := newWorld(t, two)
	if err := w.RemoveDevice(t.Context(), "s1", "gone.example", "d", 7); !errors.Is(err, registration.ErrUnlinked) {
		t.Errorf("it ended with %v", err)
	}
	w.forgetFails = registration.ErrStale
	if err := w.RemoveDevice(t.Context(), "s1", "gone.example", "d", 6); !errors.Is(err, registration.ErrStale) {
		t.Errorf("it ended with %v", err)
	}
	w.forgetFails = errors.New("the disk is full") // then it is not left, and tried again
	if err := w.RemoveDevice(t.Context(), "s1", "gone.example", "d", 8); err == nil || errors.Is(err, registration.ErrUnlinked) {
		t.Errorf("it ended with %v", err)
	}
	if err := w.RemoveDevice(t.Context(), "s1", "far.example", "d", 9); err != nil {
		t.Error(err)
	}
	if want := []string{"s1 gone.example d 7", "s1 gone.example d 6", "s1 gone.example d 8"}; !slices.Equal(w.forgotten, want) {
		t.Errorf("forgotten: %q", w.forgotten)
	}
}

func TestHowFarCallsGo(t *testing.T) {
	w := newWorld(t, two)
	if here, remote := w.Reach("s1", "own.example"), w.Reach("s1", "far.example"); here != registration.Here || remote != registration.Remote {
		t.Errorf("reached %v and %v", here, remote)
	}
	w.embedded.reach = registration.Elsewhere
	if got := w.Reach("s1", "own.example"); got != registration.Elsewhere {
		t.Errorf("reached %v", got)
	}
}

func TestADropReachesEveryKind(t *testing.T) {
	w := newWorld(t, two)
	if err := w.Drop(t.Context(), "s9", "gone.example"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*driver{w.embedded, w.azure} {
		if got := strings.Join(d.calls(), ", "); got != "drop s9 gone.example" {
			t.Errorf("asked %s", got)
		}
	}
}

func TestHealthFollowsWhatCallsComeTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, two)
		state := func(want registration.HubState, words string) {
			t.Helper()
			if h := w.Health("s1", "far.example"); h.State != want || !strings.Contains(h.LastError, words) {
				t.Errorf("health %+v, want %s with %q", h, want, words)
			}
		}
		ensure := func(err error) {
			w.azure.fails["far.example"] = err
			if got := w.EnsureDevice(t.Context(), "s1", "far.example", registration.HubDevice{}); got != err {
				t.Errorf("%v became %v", err, got)
			}
		}
		state(registration.HubUnknown, "")
		ensure(nil)
		state(registration.HubOK, "")
		since := w.Health("s1", "far.example").Since
		time.Sleep(time.Second)
		ensure(registration.ErrStale) // of the device, not of the hub
		ensure(nil)
		state(registration.HubOK, "")
		if got := w.Health("s1", "far.example").Since; !got.Equal(since) {
			t.Errorf("it has been well since %v, not %v", since, got)
		}
		ensure(&registration.RefusedError{Message: "ErrorCode:IotHubUnauthorizedAccess;Unauthorized"})
		state(registration.HubFailing, "IotHubUnauthorizedAccess")
		ensure(fmt.Errorf("calling: %w", &registration.RetryError{After: time.Minute, Err: errors.New("it is asked too much")}))
		state(registration.HubCircuitOpen, "asked too much")
		ensure(&registration.RetryError{After: time.Minute, Err: registration.ErrCircuitOpen})
		state(registration.HubCircuitOpen, "asked too much")
		ensure(nil)
		state(registration.HubOK, "asked too much")
		// One that was changed is unknown until it is asked.
		changed := hub("far.example", registration.HubAzure)
		changed.Revision = 2
		w.link(map[string][]registration.LinkedHub{"s1": {changed}})
		w.azure.probes["far.example"] = syscall.ECONNREFUSED
		w.look(t.Context(), every)
		state(registration.HubFailing, "refuses connections")
	})
}

func TestEveryHubIsLookedAtAndMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := map[string][]registration.LinkedHub{"s1": {hub("own.example", registration.HubEmbedded)}}
		for i := range 40 {
			many["s2"] = append(many["s2"], hub(fmt.Sprintf("hub-%02d.example", i), registration.HubAzure))
		}
		w := newWorld(t, many)
		w.azure.takes, w.azure.probes["hub-07.example"] = 80*time.Millisecond, io.EOF
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Keep(ctx) }()
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if w.azure.most > lookWorkers {
			t.Errorf("%d were asked at a time", w.azure.most)
		}
		for _, h := range many["s2"] {
			health := w.Health("s2", h.Name)
			latency, known := w.Latency("s2", h.Name)
			if h.Name == "hub-07.example" {
				if health.State != registration.HubFailing || known {
					t.Errorf("%s: %+v, %v", h.Name, health, latency)
				}
				continue
			}
			if health.State != registration.HubOK || !known || latency != 80*time.Millisecond || health.CheckedAt.IsZero() {
				t.Errorf("%s: %+v, %v, %t", h.Name, health, latency, known)
			}
		}
		if latency, known := w.Latency("s1", "own.example"); latency != 0 || !known {
			t.Errorf("the embedded hub is %v away, %t", latency, known)
		}
		// It goes on, follows what is measured, and forgets what is linked no more.
		w.azure.mu.Lock()
		w.azure.takes, w.azure.probes["hub-07.example"] = 40*time.Millisecond, nil
		w.azure.mu.Unlock()
		w.link(map[string][]registration.LinkedHub{"s2": many["s2"][:10]})
		time.Sleep(2 * time.Minute)
		if latency, _ := w.Latency("s2", "hub-01.example"); latency >= 70*time.Millisecond || latency < 40*time.Millisecond {
			t.Errorf("after some looks it is %v away", latency)
		}
		if health := w.Health("s2", "hub-07.example"); health.State != registration.HubOK || health.LastError == "" {
			t.Errorf("it is well again, and why it was not is told: %+v", health)
		}
		if len(w.watch.hubs) != 10 {
			t.Errorf("%d hubs are remembered", len(w.watch.hubs))
		}
		cancel()
		<-done
	})
}

// A hub that never answers costs its deadline and holds up none but its own worker.
func TestAHubThatHangsIsFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, two)
		w.azure.takes = time.Hour
		began := time.Now()
		w.look(t.Context(), every)
		if took := time.Since(began); took > 2*lookTime {
			t.Errorf("a look took %v", took)
		}
		if h := w.Health("s1", "far.example"); h.State != registration.HubFailing || h.LastError != "it does not answer in time" {
			t.Errorf("health %+v", h)
		}
		if h := w.Health("s1", "own.example"); h.State != registration.HubOK {
			t.Errorf("its neighbour: %+v", h)
		}
		if _, known := w.Latency("s1", "far.example"); known {
			t.Error("it has a latency")
		}
	})
}

func every(key, uint64) bool { return true }

// A hub that was just linked, or changed, is looked at within seconds, and the others are left alone.
func TestAHubThatIsNewIsLookedAtSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, two)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Keep(ctx) }()
		time.Sleep(time.Second)
		before := w.Health("s1", "far.example").CheckedAt
		w.link(map[string][]registration.LinkedHub{"s1": {hub("far.example", registration.HubAzure), hub("new.example", registration.HubAzure)}})
		time.Sleep(freshEvery + time.Second)
		if h := w.Health("s1", "new.example"); h.State != registration.HubOK {
			t.Errorf("the new one: %+v", h)
		}
		if got := w.Health("s1", "far.example").CheckedAt; before.IsZero() || !got.Equal(before) {
			t.Errorf("the old one was looked at at %v, and at %v", before, got)
		}
		cancel()
		<-done
	})
}

func TestAMeasureIsForgottenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, two)
		w.look(t.Context(), every)
		if _, known := w.Latency("s1", "far.example"); !known {
			t.Fatal("it has no latency")
		}
		time.Sleep(freshLatency + time.Second)
		if latency, known := w.Latency("s1", "far.example"); known {
			t.Errorf("it is %v away, by what was measured long ago", latency)
		}
	})
}

func TestWhatATryFindsIsSaidInPlainWords(t *testing.T) {
	w := newWorld(t, two)
	candidate := hub("new.example", registration.HubAzure)
	for _, row := range []struct {
		err  error
		says string
	}{
		{nil, ""},
		{&registration.HubError{Message: "the access policy lacks RegistryWrite", Err: errors.New("401 Y2FuYXJ5")}, "the access policy lacks RegistryWrite"},
		{fmt.Errorf("calling: %w", &net.DNSError{Err: "no such host", Name: "new.example", IsNotFound: true}), "its name does not resolve"},
		{&net.DNSError{Err: "server misbehaving", Name: "new.example"}, "its name cannot be resolved now"},
		{&url.Error{Op: "Get", URL: "https://10.0.0.1/Y2FuYXJ5", Err: x509.UnknownAuthorityError{}}, "not trusted: it comes from an authority"},
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "new.example"}, "not trusted: it is for another name"},
		{x509.CertificateInvalidError{Reason: x509.Expired}, "not trusted: it has ended"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}, "it refuses connections"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: syscall.EHOSTUNREACH}, "no way leads to it"},
		{io.ErrUnexpectedEOF, "it closes the connection"},
		{context.DeadlineExceeded, "it does not answer in time"},
		{&registration.RefusedError{Message: "for the device", Err: errors.New("for the operator.")}, "for the operator"},
		{fmt.Errorf("the tag administrator is missing\x1b[31m\n"), "the tag administrator is missing [31m"},
		{errors.New(strings.Repeat("ä", 500)), strings.Repeat("ä", 150) + "…"},
		{registration.ErrUnseen, ""},
	} {
		w.azure.probes[candidate.Name] = row.err
		err := w.Try(t.Context(), "s1", candidate, []byte("secret of "+candidate.Name))
		var said *registration.HubError
		switch {
		case row.says == "" && err == nil:
		case !errors.As(err, &said) || !strings.Contains(said.Message, row.says) || strings.Contains(said.Message, "Y2FuYXJ5"):
			t.Errorf("%v is told as %v", row.err, err)
		}
	}
	var said *registration.HubError
	if err := w.Judge("s1", hub("b.example", registration.HubBroker), []byte("s")); !errors.As(err, &said) || !strings.Contains(said.Message, "no hubs of the kind broker") {
		t.Errorf("a kind that is not served: %v", err)
	}
	if err := w.Judge("s1", candidate, nil); !errors.As(err, &said) || said.Message != "the secret is missing" {
		t.Errorf("without a secret: %v", err)
	}
}

func TestMetricsTellHowHubsDo(t *testing.T) {
	w := newWorld(t, two)
	w.azure.probes["other.example"] = io.EOF
	w.look(t.Context(), every)
	w.azure.fails["far.example"] = &registration.RetryError{Err: errors.New("throttled")}
	_ = w.EnsureDevice(t.Context(), "s1", "far.example", registration.HubDevice{})
	_ = w.RemoveDevice(t.Context(), "s1", "own.example", "d", 1)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w.Hub)
	want := strings.Join([]string{
		"latchkey_linked_hub_calls_total call=ensure kind=azure outcome=later 1", "latchkey_linked_hub_calls_total call=remove kind=embedded outcome=ok 1",
		"latchkey_linked_hub_up hub=far.example kind=azure 0", "latchkey_linked_hub_up hub=other.example kind=azure 0", "latchkey_linked_hub_up hub=own.example kind=embedded 1",
		"latchkey_linked_hubs kind=azure state=circuit open 1", "latchkey_linked_hubs kind=azure state=failing 1",
		"latchkey_linked_hubs kind=broker state=unknown 1", "latchkey_linked_hubs kind=embedded state=ok 1",
	}, "\n")
	if got := strings.Join(series(t, registry, "latchkey_linked_hub_latency_seconds"), "\n"); got != want {
		t.Errorf("gathered\n%s\nwant\n%s", got, want)
	}
	// With very many hubs no hub has a series of its own.
	many := map[string][]registration.LinkedHub{}
	for i := range maxShown + 1 {
		many["s"] = append(many["s"], hub(fmt.Sprintf("h%d.example", i), registration.HubAzure))
	}
	w.link(many)
	for _, line := range series(t, registry) {
		if strings.Contains(line, "hub=") {
			t.Error(line)
		}
	}
}

// series renders what a registry gathers, but for some names.
func series(t *testing.T, registry *prometheus.Registry, without ...string) (lines []string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if slices.Contains(without, family.GetName()) {
			continue
		}
		for _, metric := range family.GetMetric() {
			line := family.GetName()
			for _, label := range metric.GetLabel() {
				line += " " + label.GetName() + "=" + label.GetValue()
			}
			lines = append(lines, fmt.Sprint(line, " ", metric.GetGauge().GetValue()+metric.GetCounter().GetValue()))
		}
	}
	return lines
}
