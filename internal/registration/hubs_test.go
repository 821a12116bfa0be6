package registration_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

func (s *tapStore) PutHub(ctx context.Context, scope string, hub registration.LinkedHub, expect *uint64, a registration.Audit) (registration.LinkedHub, registration.Verdict, error) {
	var verdict registration.Verdict
	stored, err := through(s.tap, "PutHub", func() (stored registration.LinkedHub, err error) {
		stored, verdict, err = s.Store.PutHub(ctx, scope, hub, expect, a)
		return stored, err
	})
	return stored, verdict, err
}

func (s *tapStore) DeleteHub(ctx context.Context, scope, name string, expect *uint64, a registration.Audit) (registration.Verdict, error) {
	return through(s.tap, "DeleteHub", func() (registration.Verdict, error) { return s.Store.DeleteHub(ctx, scope, name, expect, a) })
}

func (s *tapStore) PutWebhookKey(ctx context.Context, scope string, sealed []byte, expect *uint64, a registration.Audit) (registration.AllocationSettings, registration.Verdict, error) {
	var verdict registration.Verdict
	stored, err := through(s.tap, "PutWebhookKey", func() (stored registration.AllocationSettings, err error) {
		stored, verdict, err = s.Store.PutWebhookKey(ctx, scope, sealed, expect, a)
		return stored, err
	})
	return stored, verdict, err
}

// watch is a HubWatch that refuses what it is told to, and notes what it was asked.
type watch struct {
	judged, tried []string
	refuses       error
}

func (x *watch) Health(string, string) registration.HubHealth {
	return registration.HubHealth{State: registration.HubFailing, LastError: "it does not answer in time"}
}
func (x *watch) Latency(string, string) (time.Duration, bool) { return 0, false }

func (x *watch) Judge(_ string, hub registration.LinkedHub, secret []byte) error {
	x.judged = append(x.judged, fmt.Sprintf("%s %s %s", hub.Name, hub.Settings, secret))
	return nil
}

func (x *watch) Try(_ context.Context, _ string, hub registration.LinkedHub, secret []byte) error {
	if hub.Revision != 0 {
		return errors.New("it is not told that the hub is about to be changed")
	}
	x.tried = append(x.tried, fmt.Sprintf("%s %s %s", hub.Name, hub.Settings, secret))
	return x.refuses
}

// watched is a world whose core has a watch.
func watched(t *testing.T) (*world, *watch) {
	w, x := newWorld(t), new(watch)
	var err error
	w.core, err = registration.New(w.ctx, registration.Config{Store: w.store, Hub: w.hub, Sealer: w.ring, Issuer: w.issuer, Watch: x, Now: w.clock.Now, Rand: w.rand,
		Logger: slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	w.must(err)
	return w, x
}

const far, farSecret = "far.hub.example", `{"connectionString":"planted canary"}`

// wish is what an operator writes about a hub.
func wish(body string) registration.HubWish {
	decoded, err := dps.DecodeLinkedHub([]byte(body))
	if err != nil {
		panic(err)
	}
	return registration.HubWish{LinkedHub: decoded}
}

func (w *world) linkAs(name, body string) registration.HubShown {
	w.Helper()
	wished := wish(body)
	wished.Replace = true
	shown, err := w.core.PutHub(w.ctx, operator, name, wished, "")
	w.must(err)
	return shown
}

func TestAHubIsTriedBeforeAnythingOfItIsWritten(t *testing.T) {
	t.Parallel()
	w, x := watched(t)
	x.refuses = &registration.HubError{Message: "the access policy lacks RegistryWrite", Err: errors.New("401 planted canary")}
	wished := wish(`{"kind":"azure","settings":{"a":1},"secret":` + farSecret + `}`)
	wished.Replace = true
	_, err := w.core.PutHub(w.ctx, operator, far, wished, "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonHubUnfit)
	var fault *registration.Fault
	if !errors.As(err, &fault) || fault.Detail != "The hub was tried and nothing was changed: the access policy lacks RegistryWrite." {
		t.Errorf("told %+v", fault)
	}
	if _, linked := w.core.LinkedHub(scopeOne, far); linked || w.store.take()["PutHub"] != 0 {
		t.Error("it is linked")
	}
	// Without the check it is linked.
	wished.Untried = true
	shown, err := w.core.PutHub(w.ctx, operator, far, wished, "")
	w.must(err)
	if !shown.HasSecret || shown.SealedSecret != nil || shown.Health.State != registration.HubFailing || len(x.tried) != 1 {
		t.Errorf("shown %+v, tried %q", shown, x.tried)
	}
	// What cannot break anything is not tried; new settings are, with the secret that is there.
	_, err = w.core.PutHub(w.ctx, operator, far, wish(`{"weight":9,"draining":true}`), "")
	w.must(err)
	if len(x.tried) != 1 {
		t.Errorf("a new weight is tried: %q", x.tried)
	}
	_, err = w.core.PutHub(w.ctx, operator, far, wish(`{"settings":{"a":2}}`), "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonHubUnfit)
	if hub, _ := w.core.LinkedHub(scopeOne, far); string(hub.Settings) != `{"a":1}` || hub.Weight != 9 || len(x.tried) != 2 || x.tried[1] != far+` {"a":2} `+farSecret {
		t.Errorf("linked %+v, tried %q", hub, x.tried)
	}
	secret, err := w.core.HubSecret(scopeOne, mustHub(w, far))
	if err != nil || string(secret) != farSecret {
		t.Errorf("its secret is %q: %v", secret, err)
	}
	if strings.Contains(string(w.logs.Bytes()), "planted canary") {
		t.Error("the log holds the secret")
	}
}

func mustHub(w *world, name string) registration.LinkedHub {
	w.Helper()
	hub, linked := w.core.LinkedHub(scopeOne, name)
	if !linked {
		w.Fatalf("%s is not linked", name)
	}
	return hub
}

// Whoever writes at the same time: a change of some members keeps those of the other; one that rests on what was read is refused.
func TestTwoOperatorsChangeAHubAtOnce(t *testing.T) {
	t.Parallel()
	w, _ := watched(t)
	shown := w.linkAs(far, `{"kind":"azure","secret":`+farSecret+`}`)
	other := func(body string) {
		_, err := w.newCore().PutHub(w.ctx, operator, far, wish(body), "")
		w.must(err)
	}
	w.store.beforeNext("PutHub", func() { other(`{"weight":7}`) })
	merged, err := w.core.PutHub(w.ctx, operator, far, wish(`{"draining":true}`), "")
	w.must(err)
	if merged.Weight != 7 || !merged.Draining {
		t.Errorf("merged to %+v", merged)
	}
	w.store.beforeNext("PutHub", func() { other(`{"weight":8}`) })
	_, err = w.core.PutHub(w.ctx, operator, far, wish(`{"draining":false}`), merged.ETag)
	w.wantFault(err, dps.CodePreconditionFailed, registration.ReasonEtag)
	_, err = w.core.PutHub(w.ctx, operator, far, wish(`{"draining":false}`), shown.ETag)
	w.wantFault(err, dps.CodePreconditionFailed, registration.ReasonEtag)
	w.store.beforeNext("DeleteHub", func() { other(`{"weight":9}`) })
	w.must(w.core.UnlinkHub(w.ctx, operator, far, "", false))
	if _, linked := w.core.LinkedHub(scopeOne, far); linked {
		t.Error("it is still linked")
	}
}

// A key that was regenerated while its request waited changes nothing.
func TestADeadKeyLinksNoHub(t *testing.T) {
	t.Parallel()
	w, _ := watched(t)
	p := w.putPolicy("line", registration.ServiceConfig)
	by, err := w.core.Authorize(w.ctx, hubOne, "/latchkey/v1/hubs/x", w.serviceToken(p.Primary, hubOne, "line", time.Hour), "", registration.ServiceConfig, w.clock.Now())
	w.must(err)
	_, err = w.core.RegeneratePolicy(w.ctx, operator, "line", registration.PrimaryKey)
	w.must(err)
	wished := wish(`{"kind":"azure"}`)
	wished.Replace = true
	_, err = w.core.PutHub(w.ctx, by, far, wished, "")
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonAdminToken)
	w.wantFault(w.core.UnlinkHub(w.ctx, by, far, "", true), dps.CodeUnauthorized, registration.ReasonAdminToken)
	_, err = w.core.PutAllocation(w.ctx, by, dps.Allocation{}, "")
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonAdminToken)
	_, err = w.core.NewWebhookKey(w.ctx, by)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonAdminToken)
}

func TestFailuresOfTheStoreClaimNothing(t *testing.T) {
	t.Parallel()
	for _, when := range []moment{before, after} {
		w, _ := watched(t)
		wished := wish(`{"kind":"azure"}`)
		wished.Replace = true
		w.store.failNext("PutHub", 1, when)
		_, err := w.core.PutHub(w.ctx, operator, far, wished, "")
		w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
		if _, linked := w.core.LinkedHub(scopeOne, far); linked != (when == after) {
			t.Errorf("%s: linked %t", when, linked)
		}
		w.store.failNext("PutWebhookKey", 1, when)
		_, err = w.core.NewWebhookKey(w.ctx, operator)
		w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
		if when == before {
			w.linkAs(far, `{"kind":"azure"}`)
		}
		w.store.failNext("DeleteHub", 1, when)
		w.wantFault(w.core.UnlinkHub(w.ctx, operator, far, "", false), dps.CodeUnavailable, registration.ReasonStoreDown)
		if _, linked := w.core.LinkedHub(scopeOne, far); linked != (when == before) {
			t.Errorf("%s: linked %t after it was unlinked", when, linked)
		}
	}
	w, _ := watched(t)
	w.store.failNext("Scopes", 1, before)
	wished := wish(`{"kind":"azure"}`)
	wished.Replace = true
	_, err := w.core.PutHub(w.ctx, operator, far, wished, "")
	w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
}

// Another node serves by the linked hubs as they are now, as soon as it looks.
func TestOtherNodesFollowWhatIsLinked(t *testing.T) {
	t.Parallel()
	w, _ := watched(t)
	other := w.newCore()
	w.linkAs(far, `{"kind":"azure","weight":3}`)
	w.must(other.FollowScopes(w.ctx))
	if hub, linked := other.LinkedHub(scopeOne, strings.ToUpper(far)); !linked || hub.Weight != 3 {
		t.Errorf("the other node has %+v, %t", hub, linked)
	}
	if _, linked := other.LinkedHub(scopeTwo, far); linked {
		t.Error("another scope has it")
	}
	w.must(w.core.UnlinkHub(w.ctx, operator, far, "", false))
	w.must(other.FollowScopes(w.ctx))
	if _, linked := other.LinkedHub(scopeOne, far); linked {
		t.Error("the other node still has it")
	}
}

// A further embedded hub of a scope has a certificate, devices that are given to it, and sessions that end when it is unlinked.
func TestAFurtherEmbeddedHubIsServedAndDropped(t *testing.T) {
	t.Parallel()
	w, _ := watched(t)
	const line = "line.one.hub.example"
	w.linkAs(line, `{"kind":"embedded"}`)
	certificate := w.core.Certificate(strings.ToUpper(line))
	if certificate == nil || certificate.Leaf.VerifyHostname(line) != nil {
		t.Fatal("there is no certificate for its name")
	}
	if scope, ok := w.core.HubScope(line); !ok || scope != scopeOne || w.core.HostScope(line) != "" {
		t.Errorf("its devices are of scope %q; the management API answers there as %q", scope, w.core.HostScope(line))
	}
	_, err := w.core.PutHub(w.ctx, operator, hubOne, wish(`{"allocate":false}`), "")
	w.must(err)
	wire, err := dps.DecodeEnrollment("valve", []byte(keysBody(firstKey, secondKey, "")))
	w.must(err)
	_, err = w.core.PutEnrollment(w.ctx, operator, wire, "")
	w.must(err)
	if state := w.keyed("valve", firstKey).assigned(); state.AssignedHub != line {
		t.Errorf("assigned to %s", state.AssignedHub)
	}
	hubs, err := w.core.Hubs(w.ctx, operator)
	if err != nil || len(hubs) != 2 || hubs[0].Name != line || hubs[0].Count != (registration.HubCount{Devices: 1}) || hubs[0].Own || !hubs[1].Own {
		t.Errorf("listed %+v, %v", hubs, err)
	}
	w.wantFault(w.core.UnlinkHub(w.ctx, operator, line, "", false), dps.CodeConflict, registration.ReasonHubInUse)
	w.must(w.core.UnlinkHub(w.ctx, operator, line, "", true))
	if len(w.hub.dropped) != 1 || w.hub.dropped[0] != scopeOne+" "+line {
		t.Errorf("dropped %q", w.hub.dropped)
	}
	if _, ok := w.core.HubScope(line); ok {
		t.Error("its devices are still let in")
	}
	w.issuer.fails = true
	wished := wish(`{"kind":"embedded"}`)
	wished.Replace = true
	_, err = w.core.PutHub(w.ctx, operator, "line2.one.hub.example", wished, "")
	w.wantFault(err, dps.CodeInternal, registration.ReasonInternal)
	_, err = w.core.PutHub(w.ctx, operator, "line.elsewhere.org", wished, "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadHub)
}

// The configured certificate goes on serving the hosts that it is for, when a further hub needs one that it is not for.
func TestTheConfiguredCertificateStaysWhereItServes(t *testing.T) {
	t.Parallel()
	w, _ := watched(t)
	made := w.newScope("covered.example")
	by := registration.Caller{Scope: made.ID, Policy: made.Policy}
	wished := wish(`{"kind":"embedded"}`)
	wished.Replace = true
	_, err := w.core.PutHub(w.ctx, by, "line.example", wished, "")
	w.must(err)
	if w.core.Certificate("covered.example") != nil || w.core.Certificate("line.example") == nil {
		t.Error("the certificates are others than they must be")
	}
	w.clock.advance(70 * 24 * time.Hour)
	w.must(w.core.Maintain(w.ctx))
	if renewed := w.core.Certificate("line.example"); renewed == nil || renewed.Leaf.NotAfter.Sub(w.clock.Now()) < 80*24*time.Hour || w.core.Certificate("covered.example") != nil {
		t.Error("it was not renewed as it was made")
	}
}

// A name of another scope gets no certificate, not even one that nobody is shown.
func TestNoCertificateIsIssuedForAnothersName(t *testing.T) {
	t.Parallel()
	w, _ := watched(t)
	theirs := w.newScope("plant2.example")
	w.linkAs("line.one.hub.example", `{"kind":"embedded"}`)
	issued := w.issuer.issued
	wished := wish(`{"kind":"embedded"}`)
	wished.Replace = true
	for _, name := range []string{hubOne, "alias.one.example", "line.one.hub.example", hubTwo} {
		_, err := w.core.PutHub(w.ctx, registration.Caller{Scope: theirs.ID, Policy: theirs.Policy}, name, wished, "")
		w.wantFault(err, dps.CodeConflict, registration.ReasonHubTaken)
	}
	if w.issuer.issued != issued {
		t.Errorf("%d certificates were issued for names of others", w.issuer.issued-issued)
	}
}

func TestAScopeHasABoundedNumberOfHubs(t *testing.T) {
	t.Parallel()
	w, _ := watched(t)
	for i := range registration.MaxHubs {
		hub := registration.LinkedHub{Name: fmt.Sprintf("h%03d.example", i), Kind: registration.HubAzure, Weight: 1, Allocate: true, Created: epoch, Updated: epoch}
		if _, verdict, err := w.inner.PutHub(w.ctx, scopeOne, hub, nil, registration.Audit{At: epoch}); err != nil || verdict != registration.Applied {
			t.Fatal(verdict, err)
		}
	}
	wished := wish(`{"kind":"azure"}`)
	wished.Replace = true
	_, err := w.core.PutHub(w.ctx, operator, far, wished, "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonTooManyHubs)
	_, err = w.core.PutHub(w.ctx, operator, "h000.example", wish(`{"weight":2}`), "")
	w.must(err)
}
