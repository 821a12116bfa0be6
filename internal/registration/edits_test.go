package registration_test

import (
	"crypto/x509"
	"fmt"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// A hub is down, and meanwhile the operator edits the entry of a device that waits. Its poll says to register again: it can, with what it has.
func TestWhatItsEntryNoLongerCarriesIsRegisteredAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "CA", nil)
	_, err := w.putGroup("plant", signingBody(ca, ""), "")
	w.must(err)
	_, err = w.putGroup("line", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	grouped, moved := w.certified("press", ca.issue(t, "press")), w.certified("drill", ca.issue(t, "drill"))
	derived := dps.DeriveKey(firstKey, "pump")
	keyed := w.keyed("pump", derived)
	token := keyed.token(time.Hour)

	for name, device := range map[string]struct {
		request func() registration.Request
		edit    func() error
	}{
		"a tag of the group": {grouped.request, func() error {
			_, err := w.putGroup("plant", signingBody(ca, `,"initialTwin":{"tags":{"line":4}}`), "*")
			return err
		}},
		"an enrollment of its own with the certificate": {moved.request, func() error {
			_, err := w.put("drill", clientBody(moved.chain[0], nil, ""), "")
			return err
		}},
		"an enrollment of its own with the key": {func() registration.Request { return keyed.request(token) }, func() error {
			_, err := w.put("pump", keysBody(derived, thirdKey, ""), "")
			return err
		}},
	} {
		w.hub.failNext("EnsureDevice", 2, before)
		first, err := w.core.Register(w.ctx, device.request())
		w.must(err)
		again, err := w.core.Register(w.ctx, device.request())
		w.must(err)
		if again.Status.OperationID != first.Status.OperationID {
			t.Errorf("%s: a lost answer made another operation", name)
		}
		w.hub.heal()
		w.clock.advance(time.Second)
		w.must(device.edit())
		dead, err := w.core.Poll(w.ctx, device.request(), first.Status.OperationID)
		w.must(err)
		if dead.Status.Status != dps.StatusFailed {
			t.Fatalf("%s: the poll says %s", name, dead.Status.Status)
		}
		_, err = w.core.Lookup(w.ctx, device.request())
		w.must(err)
		next, err := w.core.Register(w.ctx, device.request())
		w.must(err)
		if next.Status.OperationID == first.Status.OperationID {
			t.Fatalf("%s: the dead operation was given again", name)
		}
		w.finished(w.core.Poll(w.ctx, device.request(), next.Status.OperationID))
	}
}

func TestAnOperationPastItsWindowIsNotGivenToItsCertificateAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "CA", nil)
	_, err := w.putGroup("plant", signingBody(ca, ""), "")
	w.must(err)
	d := w.certified("press", ca.issue(t, "press"))
	w.hub.failNext("EnsureDevice", 1, before)
	first, err := d.register()
	w.must(err)
	w.clock.advance(registration.OperationWindow + time.Second)
	later, err := d.register()
	w.must(err)
	if later.Status.OperationID == first.Status.OperationID {
		t.Error("an operation that no poll reaches was given again")
	}
}

func TestACertificateThatEndsPollsNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := newCA(t, "CA", nil)
	_, err := w.putGroup("plant", signingBody(ca, ""), "")
	w.must(err)
	d := w.certified("press", ca.issue(t, "press", func(c *x509.Certificate) { c.NotAfter = epoch.Add(time.Minute) }))
	answer, err := d.register()
	w.must(err)
	w.clock.advance(2 * time.Minute)
	_, err = w.core.Poll(w.ctx, d.request(), answer.Status.OperationID)
	w.wantFault(err, dps.CodeUnauthorized, registration.ReasonCertificateTime)
}

func TestALookupWithATokenThatWasUsedSeesThatTheEntryIsDisabled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.put("valve", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	k := w.keyed("valve", firstKey)
	token := k.token(time.Hour)
	_, err = k.register(token)
	w.must(err)
	_, err = w.core.Lookup(w.ctx, k.request(token))
	w.must(err)
	_, err = w.put("valve", keysBody(firstKey, secondKey, `,"provisioningStatus":"disabled"`), "*")
	w.must(err)
	_, err = w.core.Lookup(w.ctx, k.request(token))
	w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
	_, err = k.register(token)
	w.wantFault(err, dps.CodeDisabled, registration.ReasonDisabled)
}

func TestAGroupThatCannotBeReadShutsOutNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.putGroup("line", keysBody(firstKey, secondKey, ""), "")
	w.must(err)
	garbage := registration.SealedKeys{Primary: []byte("no seal"), Secondary: []byte("no seal")}
	w.fill(registration.Group{ID: "broken", Mechanism: registration.SymmetricKey, Keys: garbage, Document: []byte(`{}`)})
	w.keyed("pump", dps.DeriveKey(firstKey, "pump")).assigned()
}

// fill stores groups beside the core, many at a time.
func (w *world) fill(groups ...registration.Group) {
	w.Helper()
	var writers sync.WaitGroup
	for _, part := range split(groups, 32) {
		writers.Go(func() {
			for _, g := range part {
				if _, verdict, err := w.inner.PutGroup(w.ctx, scopeOne, g, nil, registration.Audit{At: epoch}, ""); err != nil || verdict != registration.Applied {
					w.Errorf("group %s: %v, %v", g.ID, verdict, err)
				}
			}
		})
	}
	writers.Wait()
}

func split(groups []registration.Group, parts int) [][]registration.Group {
	all := make([][]registration.Group, parts)
	for i, g := range groups {
		all[i%parts] = append(all[i%parts], g)
	}
	return all
}

func TestThereAreAsManyGroupsAsMayBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	groups := make([]registration.Group, 0, registration.MaxGroups)
	for i := range registration.MaxDerivingGroups {
		id := fmt.Sprintf("key-%d", i)
		groups = append(groups, registration.Group{ID: id, Mechanism: registration.SymmetricKey, Document: []byte(`{"attestation":{"type":"symmetricKey"}}`), Keys: registration.SealedKeys{
			Primary: w.seal(registration.ContextGroupKey(scopeOne, id, "primary"), firstKey), Secondary: w.seal(registration.ContextGroupKey(scopeOne, id, "secondary"), secondKey),
		}})
	}
	w.fill(groups...)
	_, err := w.putGroup("one", keysBody(firstKey, secondKey, ""), "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonTooManyGroups)
	_, err = w.putGroup("key-0", keysBody(thirdKey, secondKey, ""), "*")
	w.must(err)
	_, err = w.putGroup("plant", signingBody(newCA(t, "CA", nil), ""), "")
	w.must(err)
	_, err = w.putGroup("plant", keysBody(firstKey, secondKey, ""), "*")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonTooManyGroups)

	groups = groups[:0]
	for i := registration.MaxDerivingGroups + 1; i < registration.MaxGroups; i++ {
		groups = append(groups, registration.Group{ID: fmt.Sprintf("ca-%d", i), Mechanism: registration.X509, Document: []byte(`{"attestation":{"type":"x509","x509":{"caReferences":{"primary":"gone"}}}}`)})
	}
	w.fill(groups...)
	_, err = w.putGroup("another", signingBody(newCA(t, "Another CA", nil), ""), "")
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonTooManyGroups)
	_, err = w.putGroup("plant", signingBody(newCA(t, "Another CA", nil), ""), "*")
	w.must(err)
}

func TestACertificateThatMayNotSignIsNoCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := newCA(t, "Root", nil)
	marked := func(usage x509.KeyUsage) *x509.Certificate {
		return root.issue(t, "CA", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, usage })
	}
	_, err := w.core.PutCA(w.ctx, operator, "plant", marked(x509.KeyUsageCRLSign).Raw)
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadCA)
	_, err = w.core.PutCA(w.ctx, operator, "plant", marked(x509.KeyUsageCRLSign|x509.KeyUsageCertSign).Raw)
	w.must(err)
}

func TestThereAreAsManyScopesAsMayBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var writers sync.WaitGroup
	for part := range 32 {
		writers.Go(func() {
			for i := 2 + part; i < registration.MaxScopes; i += 32 {
				id := fmt.Sprintf("0lk%d", i)
				scope := registration.Scope{ID: id, Hosts: []string{fmt.Sprintf("plant-%d.example", i)}, SealedRoot: w.seal(registration.ContextScopeRoot(id), secret("root "+id)), Created: epoch}
				if verdict, err := w.inner.CreateScope(w.ctx, scope, registration.Audit{At: epoch}); err != nil || verdict != registration.Applied {
					w.Errorf("scope %s: %v, %v", id, verdict, err)
				}
			}
		})
	}
	writers.Wait()
	w.must(w.core.ReloadScopes(w.ctx))
	_, err := w.core.CreateScope(w.ctx, operator, []string{"another.example"})
	w.wantFault(err, dps.CodeBadRequest, registration.ReasonBadScope)
	w.must(w.core.DeleteScope(w.ctx, operator, "0lk2"))
	w.newScope("another.example")
}
