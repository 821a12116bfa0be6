package registration_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

func (s *tapStore) PutPolicy(ctx context.Context, scope string, was *registration.AccessPolicy, p registration.AccessPolicy, a registration.Audit) (registration.Verdict, error) {
	return through(s.tap, "PutPolicy", func() (registration.Verdict, error) { return s.Store.PutPolicy(ctx, scope, was, p, a) })
}

func (s *tapStore) DeletePolicy(ctx context.Context, scope, name string, a registration.Audit) (registration.Verdict, error) {
	return through(s.tap, "DeletePolicy", func() (registration.Verdict, error) { return s.Store.DeletePolicy(ctx, scope, name, a) })
}

var eachRight = []registration.Right{
	registration.ServiceConfig, registration.EnrollmentRead, registration.EnrollmentWrite, registration.RegistrationStatusRead, registration.RegistrationStatusWrite,
	registration.RegistryRead, registration.RegistryWrite, registration.ServiceConnect,
}

// opens reports whether a key of an access policy lets a request with a right in.
func (w *world) opens(core *registration.Core, key []byte, policy string, right registration.Right) bool {
	w.Helper()
	_, err := core.Authorize(w.ctx, hubOne, "/enrollments/pump", w.serviceToken(key, hubOne, policy, time.Hour), "", right, w.clock.Now())
	return err == nil
}

func (w *world) wantKey(what string, key []byte, policy string, want bool) {
	w.Helper()
	if got := w.opens(w.core, key, policy, 0); got != want {
		w.Errorf("%s: let in %t, want %t", what, got, want)
	}
}

func (w *world) putPolicy(name string, rights registration.Right) registration.Policy {
	w.Helper()
	p, err := w.core.PutPolicy(w.ctx, operator, name, rights, registration.PresentOrAbsent)
	w.must(err)
	if p.Name != name || p.Rights != rights || len(p.Primary) != 32 || len(p.Secondary) != 32 || bytes.Equal(p.Primary, p.Secondary) {
		w.Fatalf("put %s: name %q, rights %v, keys of %d and %d bytes", name, p.Name, p.Rights.Names(), len(p.Primary), len(p.Secondary))
	}
	return p
}

func TestAnAccessPolicyMayDoWhatItsRightsSayAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n := 1; n <= int(registration.AllRights); n++ {
		set := registration.Right(n)
		p := w.putPolicy("made", set) // the first is created, each other changes its rights
		for _, right := range eachRight {
			for slot, key := range map[string][]byte{"primary": p.Primary, "secondary": p.Secondary} {
				if got, want := w.opens(w.core, key, "made", right), set&right != 0; got != want {
					t.Errorf("%v, %s key: %v let in %t", set.Names(), slot, right.Names(), got)
				}
			}
		}
	}
}

func TestRightsChangeAndKeysStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.putPolicy("line", registration.EnrollmentRead), w.putPolicy("line", registration.EnrollmentWrite)
	if !bytes.Equal(first.Primary, second.Primary) || !bytes.Equal(first.Secondary, second.Secondary) {
		t.Error("a change of rights changed a key")
	}
	other := w.putPolicy("other", registration.EnrollmentRead)
	if bytes.Equal(other.Primary, first.Primary) || bytes.Equal(other.Secondary, first.Secondary) {
		t.Error("two access policies share a key")
	}
	shown, err := w.core.Policy(w.ctx, operator, "line")
	w.must(err)
	if shown.Rights != registration.EnrollmentWrite || !bytes.Equal(shown.Primary, first.Primary) || !bytes.Equal(shown.Secondary, first.Secondary) {
		t.Error("what is shown is not what was put")
	}
	again, err := w.newCore().Policy(w.ctx, operator, "line") // after a restart
	w.must(err)
	if !bytes.Equal(again.Primary, first.Primary) || !bytes.Equal(again.Secondary, first.Secondary) {
		t.Error("a restart changed a key")
	}
}

func TestListsShowNamesAndRightsAndNeverKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.putPolicy("a-new-one", registration.EnrollmentRead|registration.ServiceConfig)
	list, err := w.core.Policies(w.ctx, operator)
	w.must(err)
	var names []string
	for _, p := range list {
		names = append(names, p.Name+" "+strings.Join(p.Rights.Names(), "+"))
		if p.Primary != nil || p.Secondary != nil {
			t.Errorf("the list holds keys of %s", p.Name)
		}
	}
	want := []string{"a-new-one ServiceConfig+EnrollmentRead", "application ServiceConnect", "config ServiceConfig", "enrollment-reader EnrollmentRead", "enrollment-writer EnrollmentRead+EnrollmentWrite",
		"hub-reader RegistryRead", "hub-writer RegistryRead+RegistryWrite",
		"owner ServiceConfig+EnrollmentRead+EnrollmentWrite+RegistrationStatusRead+RegistrationStatusWrite+RegistryRead+RegistryWrite+ServiceConnect", "status-reader RegistrationStatusRead",
		"status-writer RegistrationStatusRead+RegistrationStatusWrite"}
	if !slices.Equal(names, want) {
		t.Errorf("listed\n%q\nwant\n%q", names, want)
	}
}

func TestARegeneratedKeyIsDeadWhenItIsAcknowledged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.putPolicy("line", registration.EnrollmentRead)
	primary, err := w.core.RegeneratePolicy(w.ctx, operator, "line", registration.PrimaryKey)
	w.must(err)
	w.wantKey("old primary", old.Primary, "line", false)
	w.wantKey("new primary", primary.Primary, "line", true)
	w.wantKey("secondary, not regenerated", old.Secondary, "line", true)
	both, err := w.core.RegeneratePolicy(w.ctx, operator, "line", registration.SecondaryKey)
	w.must(err)
	w.wantKey("old secondary", old.Secondary, "line", false)
	w.wantKey("new secondary", both.Secondary, "line", true)
	w.wantKey("primary, not regenerated", primary.Primary, "line", true)
	if both.Rights != registration.EnrollmentRead || !bytes.Equal(both.Primary, primary.Primary) {
		t.Error("regenerating the secondary key changed something else")
	}
}

func TestADeletedAccessPolicyLetsNobodyIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.putPolicy("line", registration.EnrollmentRead)
	w.must(w.core.DeletePolicy(w.ctx, operator, "line"))
	w.wantKey("primary", old.Primary, "line", false)
	w.wantKey("secondary", old.Secondary, "line", false)
	w.wantFault(w.core.DeletePolicy(w.ctx, operator, "line"), dps.CodeNotFound, registration.ReasonPolicyMissing)
	w.putPolicy("line", registration.EnrollmentRead)
	w.wantKey("primary, after another took the name", old.Primary, "line", false)
}

// Each change is written and read again. Whichever of these fails on whichever side, there is no yes while the old key lives.
func TestNoChangeIsAcknowledgedThatIsNotInForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	changes := map[string]func() error{
		"regenerate": func() error {
			_, err := w.core.RegeneratePolicy(w.ctx, operator, "line", registration.PrimaryKey)
			return err
		},
		"strip": func() error {
			_, err := w.core.PutPolicy(w.ctx, operator, "line", registration.ServiceConfig, registration.Present)
			return err
		},
		"delete": func() error { return w.core.DeletePolicy(w.ctx, operator, "line") },
	}
	for name, change := range changes {
		for _, failure := range []struct {
			call string
			skip int
			when moment
		}{{"Scopes", 0, before}, {"PutPolicy", 0, before}, {"PutPolicy", 0, after}, {"DeletePolicy", 0, before}, {"DeletePolicy", 0, after}, {"Scopes", 1, before}, {"Scopes", 1, after}} {
			w.heal()
			old := w.putPolicy("line", registration.EnrollmentRead)
			w.store.plan(failure.call, failure.skip, 1, failure.when)
			if err := change(); err != nil {
				w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
				if failure.when == after && failure.call != "Scopes" && w.opens(w.core, old.Primary, "line", registration.EnrollmentRead) {
					t.Errorf("%s, %s failed after its effect: it is done, and the old key still opens", name, failure.call)
				}
				w.heal()
				if err := change(); err != nil && name != "delete" { // a second deletion finds none
					t.Errorf("%s, again after %s failed: %v", name, failure.call, err)
				}
			}
			if w.opens(w.core, old.Primary, "line", registration.EnrollmentRead) {
				t.Errorf("%s was acknowledged, %s having failed %s: what it took still opens", name, failure.call, failure.when)
			}
		}
	}
}

func (w *world) heal() { w.store.heal() }

// The client is gone while the new key is being written: what is stored must be in force all the same.
func TestACallerWhoGivesUpLeavesNoDeadKeyAlive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.putPolicy("line", registration.EnrollmentRead)
	ctx, cancel := context.WithCancel(w.ctx)
	w.store.beforeNext("PutPolicy", cancel)
	fresh, err := w.core.RegeneratePolicy(ctx, operator, "line", registration.PrimaryKey)
	w.must(err)
	w.wantKey("old primary", old.Primary, "line", false)
	w.wantKey("new primary", fresh.Primary, "line", true)
}

// Between one's reading and writing another core regenerates: the first one's write must not bring the dead key back.
func TestAChangeOfRightsBesideARegenerationBringsNoKeyBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.putPolicy("line", registration.EnrollmentRead)
	elsewhere := w.newCore()
	var fresh registration.Policy
	w.store.beforeNext("PutPolicy", func() {
		var err error
		fresh, err = elsewhere.RegeneratePolicy(w.ctx, operator, "line", registration.PrimaryKey)
		w.must(err)
	})
	put := w.putPolicy("line", registration.EnrollmentWrite)
	if !bytes.Equal(put.Primary, fresh.Primary) || !bytes.Equal(put.Secondary, old.Secondary) {
		t.Error("the change of rights answers with other keys than are stored")
	}
	for name, core := range map[string]*registration.Core{"here": w.core, "after a restart": w.newCore()} {
		if w.opens(core, old.Primary, "line", 0) || !w.opens(core, fresh.Primary, "line", registration.EnrollmentWrite) {
			t.Errorf("%s the regenerated key is not the one that counts", name)
		}
	}
}

// noting tells in which order the scopes are read and their secrets opened.
type noting struct {
	registration.Store
	registration.Sealer
	mu     sync.Mutex
	events []byte
}

func (n *noting) note(event byte) {
	n.mu.Lock()
	n.events = append(n.events, event)
	n.mu.Unlock()
	runtime.Gosched() // whoever may come between does
}

func (n *noting) Scopes(ctx context.Context) ([]registration.Scope, error) {
	n.note('R')
	return n.Store.Scopes(ctx)
}

func (n *noting) Open(context string, sealed []byte) ([]byte, error) {
	n.note('o')
	return n.Sealer.Open(context, sealed)
}

// If two readings of the scopes ran side by side, the older could take the newer one's place, and a dead key would live again.
func TestReadingsOfTheScopesTakeTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := &noting{Store: w.inner, Sealer: w.ring}
	core, err := registration.New(w.ctx, registration.Config{Store: n, Hub: w.hub, Sealer: n, Now: w.clock.Now, Rand: w.rand, Logger: slog.New(slog.DiscardHandler)})
	w.must(err)
	one := string(n.events)
	if len(one) < 10 || strings.Count(one, "R") != 1 {
		t.Fatalf("one reading is %s", one)
	}
	const readings = 16
	var readers sync.WaitGroup
	for range readings {
		readers.Go(func() {
			if err := core.ReloadScopes(w.ctx); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
	if want := strings.Repeat(one, 1+readings); string(n.events) != want {
		t.Errorf("read (R) and opened (o)\n%s\nwant\n%s", n.events, want)
	}
}

func TestTheLastAccessPolicyWithServiceConfigStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.core.DeletePolicy(w.ctx, operator, "config"))
	last := func(err error) {
		t.Helper()
		if f := w.wantFault(err, dps.CodeConflict, registration.ReasonLastPolicy); !strings.Contains(f.Detail, "ServiceConfig") {
			t.Errorf("the refusal says %q", f.Detail)
		}
	}
	last(w.core.DeletePolicy(w.ctx, operator, "owner"))
	_, err := w.core.PutPolicy(w.ctx, operator, "owner", registration.AllRights&^registration.ServiceConfig, registration.PresentOrAbsent)
	last(err)
	w.wantKey("the last one's key", secret("primary "+scopeOne+"owner"), "owner", true)
	_, err = w.core.RegeneratePolicy(w.ctx, operator, "owner", registration.PrimaryKey)
	w.must(err)
	w.putPolicy("new-owner", registration.ServiceConfig)
	w.must(w.core.DeletePolicy(w.ctx, operator, "owner"))
	last(w.core.DeletePolicy(w.ctx, operator, "new-owner"))
}

func TestAccessPoliciesOfAnotherScopeAreNotTouched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := operator
	other.Scope = scopeTwo
	_, err := w.core.RegeneratePolicy(w.ctx, operator, "owner", registration.PrimaryKey)
	w.must(err)
	shown, err := w.core.Policy(w.ctx, other, "owner")
	w.must(err)
	if !bytes.Equal(shown.Primary, secret("primary "+scopeTwo+"owner")) {
		t.Error("the other scope's key changed")
	}
	w.putPolicy("line", registration.EnrollmentRead)
	_, err = w.core.Policy(w.ctx, other, "line")
	w.wantFault(err, dps.CodeNotFound, registration.ReasonPolicyMissing)
}

func TestAPutFindsWhatItWants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	put := func(name string, want registration.Presence) error {
		_, err := w.core.PutPolicy(w.ctx, operator, name, registration.EnrollmentRead, want)
		return err
	}
	w.wantFault(put("line", registration.Present), dps.CodeNotFound, registration.ReasonPolicyMissing)
	w.must(put("line", registration.Absent))
	w.wantFault(put("line", registration.Absent), dps.CodePreconditionFailed, registration.ReasonPolicyExists)
	w.must(put("line", registration.Present))
	_, err := w.core.RegeneratePolicy(w.ctx, operator, "nobody", registration.PrimaryKey)
	w.wantFault(err, dps.CodeNotFound, registration.ReasonPolicyMissing)
	// Somebody else creates it between the reading and the writing.
	w.store.beforeNext("PutPolicy", func() {
		_, err := w.newCore().PutPolicy(w.ctx, operator, "raced", registration.AllRights, registration.Absent)
		w.must(err)
	})
	w.wantFault(put("raced", registration.Absent), dps.CodePreconditionFailed, registration.ReasonPolicyExists)
}

func TestNamesOfAccessPoliciesAreOnesThatConnectionStringsTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"", ".", "..", "a b", "a/b", "a;b", "ä", "a\x00", strings.Repeat("a", 129), "a=b", "' OR 1=1"} {
		_, err := w.core.PutPolicy(w.ctx, operator, name, registration.EnrollmentRead, registration.PresentOrAbsent)
		w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadRequest)
		w.wantFault(second(w.core.Policy(w.ctx, operator, name)), dps.CodeBadRequest, registration.ReasonBadRequest)
		w.wantFault(w.core.DeletePolicy(w.ctx, operator, name), dps.CodeBadRequest, registration.ReasonBadRequest)
	}
	for _, name := range []string{"a", "A", "a@b.c_d-e", "...", strings.Repeat("a", 128)} {
		p := w.putPolicy(name, registration.EnrollmentRead)
		w.wantKey("the key of "+name, p.Primary, name, true)
	}
}

func TestAScopeHasAtMostAHundredAccessPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := len(rights); i < 100; i++ {
		w.putPolicy(fmt.Sprint("p", i), registration.EnrollmentRead)
	}
	_, err := w.core.PutPolicy(w.ctx, operator, "one-more", registration.EnrollmentRead, registration.PresentOrAbsent)
	w.wantFault(err, dps.CodeConflict, registration.ReasonTooManyPolicies)
	w.putPolicy("p50", registration.EnrollmentWrite) // what is there may change
}

func TestEachChangeOfAnAccessPolicyIsAuditedAndNoKeyIsWrittenOrSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	by := operator
	by.TrackingID = "11111111-2222-3333-4444-555555555555"
	put := w.putPolicy("line", registration.EnrollmentRead)
	_, err := w.core.PutPolicy(w.ctx, by, "line", registration.EnrollmentWrite, registration.PresentOrAbsent)
	w.must(err)
	fresh, err := w.core.RegeneratePolicy(w.ctx, by, "line", registration.SecondaryKey)
	w.must(err)
	w.must(second(w.core.Policy(w.ctx, by, "line")))
	w.must(w.core.DeletePolicy(w.ctx, by, "line"))
	rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, by.TrackingID)
	w.must(err)
	var got []string
	for _, row := range rows {
		got = append(got, strings.Join([]string{row.Actor, row.Action, row.Object, row.Outcome, row.Detail}, " "))
	}
	actor := "policy:" + operator.Policy
	want := []string{
		actor + ` access-policy.put line ok {"before":{"rights":["EnrollmentRead"]},"after":{"rights":["EnrollmentWrite"]}}`,
		actor + ` access-policy.regenerate line ok {"before":{"rights":["EnrollmentWrite"]},"after":{"rights":["EnrollmentWrite"],"newKeys":["secondary"]}}`,
		actor + ` access-policy.reveal line ok `,
		actor + ` access-policy.delete line ok {"before":{"rights":["EnrollmentWrite"]},"after":null}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("audit\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	secrets := canaries{"primary": put.Primary, "secondary": put.Secondary, "new secondary": fresh.Secondary}
	secrets.wantNone(t, "a printed policy", fmt.Appendf(nil, "%v %+v %#v", fresh, fresh, fresh))
	secrets.wantNone(t, "the log", w.logs.Bytes())
	secrets.wantNone(t, "the audit", fmt.Appendf(nil, "%+v", rows))
	w.wantNoneInFiles(t, secrets)
	// Nothing is shown whose showing could not be written down.
	w.putPolicy("line", registration.EnrollmentRead)
	w.store.failNext("AppendAudit", 1, before)
	shown, err := w.core.Policy(w.ctx, operator, "line")
	w.wantFault(err, dps.CodeUnavailable, registration.ReasonStoreDown)
	if shown.Primary != nil {
		t.Error("keys were shown without audit")
	}
}
