package storetest

import (
	"fmt"
	"slices"
	"strings"

	"latchkey.example/latchkey/internal/registration"
)

// sealedPlace names one sealed column of one row.
type sealedPlace struct {
	kind       registration.SealedKind
	scope, key string
}

func place(v registration.SealedValue) sealedPlace { return sealedPlace{v.Kind, v.Scope, v.Key} }

// listing reads all sealed values, limit at a time; between pages it calls change.
func (w *world) listing(limit int, change func(page int)) []registration.SealedValue {
	w.Helper()
	var all []registration.SealedValue
	cursor := ""
	for page := 0; ; page++ {
		values, next, err := w.store.SealedValues(w.ctx, cursor, limit)
		w.ok(err)
		if len(values) > limit {
			w.Fatalf("%d values for limit %d", len(values), limit)
		}
		all = append(all, values...)
		if next == "" {
			return all
		}
		if page > 10_000 {
			w.Fatal("the listing does not end")
		}
		cursor = next
		change(page)
	}
}

// sealedWorld has two of each kind of sealed value, and rows without one.
func sealedWorld(w *world) (want []registration.SealedValue) {
	add := func(kind registration.SealedKind, scope, key, sealed string) {
		want = append(want, registration.SealedValue{Kind: kind, Scope: scope, Key: key, Sealed: []byte(sealed)})
	}
	for _, id := range []string{scope, otherScope} {
		made := testScope(id)
		made.SealedCertificateKey = []byte("certificate key " + id)
		w.applied(w.store.CreateScope(w.ctx, made, audit("s", epoch)))
		add(registration.SealedScopeCertificate, id, "", "certificate key "+id)
		add(registration.SealedScopeRoot, id, "", "root of "+id)
		add(registration.SealedPolicyPrimary, id, "owner", "p1 "+id)
		add(registration.SealedPolicySecondary, id, "owner", "s1 "+id)
		add(registration.SealedPolicyPrimary, id, "Reader", "p2 "+id)
		add(registration.SealedPolicySecondary, id, "Reader", "s2 "+id)

		hub := linkedHub("linked-"+id+".example", id)
		w.putHub(id, hub, nil, "h")
		add(registration.SealedHubSecret, id, hub.Name, "secret "+id)
		plain := linkedHub("plain-"+id+".example", id)
		plain.SealedSecret = nil
		w.putHub(id, plain, nil, "h")
		_, verdict, err := w.store.PutWebhookKey(w.ctx, id, []byte("webhook key "+id), nil, audit("k", epoch))
		w.applied(verdict, err)
		add(registration.SealedWebhookKey, id, "", "webhook key "+id)

		w.enroll(id, "Dev-1")
		add(registration.SealedEnrollmentFirst, id, "dev-1", "primary Dev-1")
		add(registration.SealedEnrollmentSecond, id, "dev-1", "secondary Dev-1")
		w.group(id, "Line-4")
		add(registration.SealedGroupFirst, id, "line-4", "primary Line-4")
		add(registration.SealedGroupSecond, id, "line-4", "secondary Line-4")
		w.redeem(id, "Dev-1", "Op-"+id, epoch)
		add(registration.SealedRegistrationKey, id, "dev-1", "hub key Op-"+id)
		add(registration.SealedOperationHubKey, id, "Op-"+id+"\x00dev-1", "hub key Op-"+id)
		add(registration.SealedOperationKey, id, "Op-"+id, "challenge key Op-"+id)

		w.putIdentity(id, identity("Hub.example", "Dev-1", "identity "+id, 1), "i")
		add(registration.SealedHubIdentity, id, "Hub.example\x00Dev-1", "identity "+id)
	}
	keyless := enrollment("bare", "bare")
	keyless.Keys = registration.SealedKeys{}
	stored, verdict, err := w.store.PutEnrollment(w.ctx, scope, keyless, nil, audit("bare", epoch), "")
	w.applied(verdict, err)
	bare := redemption("bare", registration.Device{Enrollment: &stored}, "bare-op", epoch)
	bare.Operation.SealedHubKey, bare.Operation.SealedKey, bare.Registration.SealedHubKey = nil, nil, nil
	w.redeemed(w.store.Redeem(w.ctx, scope, bare))
	return want
}

func sortSealed(values []registration.SealedValue) []registration.SealedValue {
	return slices.SortedFunc(slices.Values(values), func(a, b registration.SealedValue) int {
		return strings.Compare(fmt.Sprint(place(a)), fmt.Sprint(place(b)))
	})
}

func sealedListed(w *world) {
	none, next, err := w.store.SealedValues(w.ctx, "", 10)
	w.ok(err)
	if len(none) > 0 || next != "" {
		w.Fatalf("an empty store lists %v, %q", none, next)
	}
	want := sortSealed(sealedWorld(w))
	for _, limit := range []int{1, 2, 3, 5, len(want), 1000} {
		w.same(fmt.Sprintf("sealed values, %d at a time", limit), sortSealed(w.listing(limit, func(int) {})), want)
	}
	contexts := map[string]bool{}
	for _, v := range want {
		contexts[v.Context()] = true
	}
	for _, context := range []string{
		registration.ContextScopeRoot(scope),
		registration.ContextPolicyKey(scope, "owner", "primary"),
		registration.ContextPolicyKey(scope, "Reader", "secondary"),
		registration.ContextHubKey(scope, "dev-1"),
		registration.ContextHubSecret(scope, "linked-"+scope+".example"),
		registration.ContextWebhookKey(scope),
		registration.ContextChallengeKey(scope, "Op-"+scope),
		registration.ContextIdentityKey(scope, "Hub.example", "Dev-1"),
	} {
		if !contexts[context] {
			w.Errorf("no sealed value has the context %q", context)
		}
	}
}

// sealedListedWhileChanging rewrites, deletes and adds rows between the pages. Each row that lives through the listing is in it exactly once.
func sealedListedWhileChanging(w *world) {
	const devices = 12
	survivors := map[sealedPlace]int{}
	for i := range devices {
		id := numbered("dev", i)
		w.enroll(scope, id)
		w.redeem(scope, id, "op-"+id, epoch)
		w.putIdentity(scope, identity("hub", id, "key", 1), "i")
		if i%3 != 2 { // every third will be deleted
			survivors[sealedPlace{registration.SealedRegistrationKey, scope, id}] = 0
			survivors[sealedPlace{registration.SealedOperationKey, scope, "op-" + id}] = 0
			survivors[sealedPlace{registration.SealedOperationHubKey, scope, "op-" + id + "\x00" + id}] = 0
			survivors[sealedPlace{registration.SealedHubIdentity, scope, "hub\x00" + id}] = 0
		}
	}
	all := w.listing(2, func(page int) {
		id := numbered("dev", page%devices)
		d := w.device(scope, id)
		switch {
		case d.Enrollment != nil && page%devices%3 == 2:
			w.applied(w.store.DeleteEnrollment(w.ctx, scope, id, nil, audit("d", epoch), ""))
		case d.Enrollment != nil:
			w.redeem(scope, id, numbered("page", page), epoch)
			w.putIdentity(scope, identity("hub", id, numbered("key", page), uint64(page)+2), "i")
		}
		if page < 20 { // the listing must be able to end
			w.enroll(scope, numbered("new", page))
		}
	})
	seen := map[sealedPlace]bool{}
	for _, v := range all {
		if seen[place(v)] {
			w.Fatalf("%q is listed twice", place(v))
		}
		seen[place(v)] = true
	}
	for p := range survivors {
		if !seen[p] {
			w.Errorf("%q is not listed", p)
		}
	}
}

func sealedReplaced(w *world) {
	values := sealedWorld(w)
	var all []registration.SealedReplacement
	for _, v := range values {
		all = append(all, registration.SealedReplacement{SealedValue: v, New: append([]byte("new "), v.Sealed...)})
	}
	stale := all[0]
	stale.Sealed = []byte("something else")
	n, err := w.store.ReplaceSealed(w.ctx, []registration.SealedReplacement{stale})
	w.ok(err)
	w.same("replaced where the value had changed", n, 0)
	w.same("unchanged", sortSealed(w.listing(100, func(int) {})), sortSealed(values))

	// One at a time, so that a replacement that hits another row or column as well shows.
	for i, r := range all {
		n, err := w.store.ReplaceSealed(w.ctx, []registration.SealedReplacement{r})
		w.ok(err)
		w.same(fmt.Sprintf("replaced for %q", place(r.SealedValue)), n, 1)
		values[i].Sealed = r.New
		w.same("after one replacement", sortSealed(w.listing(100, func(int) {})), sortSealed(values))
	}
	n, err = w.store.ReplaceSealed(w.ctx, all) // what was read is there no more
	w.ok(err)
	w.same("replaced again", n, 0)

	var back []registration.SealedReplacement
	for _, r := range all {
		back = append(back, registration.SealedReplacement{
			SealedValue: registration.SealedValue{Kind: r.Kind, Scope: r.Scope, Key: r.Key, Sealed: r.New}, New: r.Sealed,
		})
	}
	n, err = w.store.ReplaceSealed(w.ctx, append(back, stale))
	w.ok(err)
	w.same("replaced in one call", n, len(back))
	if d := w.device(scope, "dev-1"); string(d.Registration.SealedHubKey) != "hub key Op-"+scope {
		w.Fatalf("the registration's hub key reads %q", d.Registration.SealedHubKey)
	}
}
