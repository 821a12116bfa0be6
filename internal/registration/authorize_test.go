package registration_test

import (
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// serviceToken signs a SAS token as a service client does.
func (w *world) serviceToken(key []byte, resource, policy string, life time.Duration) string {
	w.Helper()
	text, err := dps.NewToken(dps.KeySigner(key), resource, w.clock.Now().Add(life), policy)
	w.must(err)
	return text
}

func TestAuthorizeLetsInWhoMayAndNobodyElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const path = "/enrollments/pump"
	primary := func(policy string) []byte { return secret("primary " + scopeOne + policy) }
	secondary := func(policy string) []byte { return secret("secondary " + scopeOne + policy) }
	for _, c := range []struct {
		name, host, token string
		reason            registration.Reason // 0: let in
	}{
		{"primary key", hubOne, w.serviceToken(primary("owner"), hubOne, "owner", time.Hour), 0},
		{"secondary key", hubOne, w.serviceToken(secondary("owner"), hubOne, "owner", time.Hour), 0},
		{"host in capitals", hubOne, w.serviceToken(primary("owner"), strings.ToUpper(hubOne), "owner", time.Hour), 0},
		{"another host name of the scope", "alias.one.example", w.serviceToken(primary("owner"), "alias.one.example", "owner", time.Hour), 0},
		{"path prefix", hubOne, w.serviceToken(primary("owner"), hubOne+"/enrollments", "owner", time.Hour), 0},
		{"whole path", hubOne, w.serviceToken(primary("owner"), hubOne+path, "owner", time.Hour), 0},
		{"within the leeway", hubOne, w.serviceToken(primary("owner"), hubOne, "owner", -registration.TokenLeeway), 0},
		{"years ahead, as operators' tools sign", hubOne, w.serviceToken(primary("owner"), hubOne, "owner", 365*24*time.Hour), 0},

		{"expired", hubOne, w.serviceToken(primary("owner"), hubOne, "owner", -registration.TokenLeeway-time.Second), registration.ReasonAdminToken},
		{"token of another host name", hubOne, w.serviceToken(primary("owner"), "alias.one.example", "owner", time.Hour), registration.ReasonAdminToken},
		{"another path", hubOne, w.serviceToken(primary("owner"), hubOne+"/registrations", "owner", time.Hour), registration.ReasonAdminToken},
		{"half a segment", hubOne, w.serviceToken(primary("owner"), hubOne+"/enroll", "owner", time.Hour), registration.ReasonAdminToken},
		{"longer path", hubOne, w.serviceToken(primary("owner"), hubOne+path+"/more", "owner", time.Hour), registration.ReasonAdminToken},
		{"unknown policy", hubOne, w.serviceToken(primary("owner"), hubOne, "nobody", time.Hour), registration.ReasonAdminToken},
		{"no policy", hubOne, w.serviceToken(primary("owner"), hubOne, "", time.Hour), registration.ReasonAdminToken},
		{"unknown policy, signed with the challenge root", hubOne, w.serviceToken(secret("root "+scopeOne), hubOne, "nobody", time.Hour), registration.ReasonAdminToken},
		{"known policy, signed with the challenge root", hubOne, w.serviceToken(secret("root "+scopeOne), hubOne, "owner", time.Hour), registration.ReasonAdminToken},
		{"another policy's key", hubOne, w.serviceToken(primary("config"), hubOne, "owner", time.Hour), registration.ReasonAdminToken},
		{"another scope's key", hubOne, w.serviceToken(secret("primary "+scopeTwo+"owner"), hubOne, "owner", time.Hour), registration.ReasonAdminToken},
		{"another scope's host", hubTwo, w.serviceToken(primary("owner"), hubTwo, "owner", time.Hour), registration.ReasonAdminToken},
		{"unknown host", "no.such.host", w.serviceToken(primary("owner"), "no.such.host", "owner", time.Hour), registration.ReasonAdminToken},
		{"no token", hubOne, "", registration.ReasonAdminToken},
		{"no SAS token", hubOne, "Bearer x", registration.ReasonAdminToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			caller, err := w.core.Authorize(w.ctx, c.host, path, c.token, "198.51.100.9:1", registration.EnrollmentWrite, w.clock.Now())
			if c.reason == 0 {
				w.must(err)
				if caller.Scope != scopeOne || caller.Policy != "owner" || caller.Address != "198.51.100.9:1" || len(caller.TrackingID) != 36 {
					t.Errorf("caller %+v", caller)
				}
				return
			}
			fault := w.wantFault(err, dps.CodeUnauthorized, c.reason)
			if caller != (registration.Caller{}) || fault.Detail != "" {
				t.Errorf("refused with %+v and %q", caller, fault.Detail)
			}
		})
	}
}

func TestEachRightIsNeededAndEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for policy, has := range rights {
		token := w.serviceToken(secret("primary "+scopeOne+policy), hubOne, policy, time.Hour)
		for _, needed := range []registration.Right{
			registration.ServiceConfig, registration.EnrollmentRead, registration.EnrollmentWrite, registration.RegistrationStatusRead,
			registration.RegistrationStatusWrite, registration.RegistryRead, registration.RegistryWrite, registration.ServiceConnect, registration.HubRights, registration.EnrollmentRead | registration.RegistrationStatusRead, registration.AllRights,
		} {
			_, err := w.core.Authorize(w.ctx, hubOne, "/enrollments/pump", token, "", needed, w.clock.Now())
			if has&needed == needed {
				w.must(err)
				continue
			}
			w.wantFault(err, dps.CodeUnauthorized, registration.ReasonAdminRight)
		}
	}
}

func TestHostsNameScopesAndHubs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for host, want := range map[string]string{hubOne: scopeOne, "alias.one.example": scopeOne, hubTwo: scopeTwo, "no.such.host": "", "": ""} {
		if got := w.core.HostScope(host); got != want {
			t.Errorf("host %q is of scope %q", host, got)
		}
	}
	for hub, want := range map[string]string{hubOne: scopeOne, strings.ToUpper(hubTwo): scopeTwo, "alias.one.example": "", "": ""} {
		if got, ok := w.core.HubScope(hub); got != want || ok != (want != "") {
			t.Errorf("hub %q is of scope %q, %t", hub, got, ok)
		}
	}
}

func TestScopesStayWhenTheyCannotBeReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	w.store.failNext("Scopes", 1, before)
	if err := w.core.ReloadScopes(w.ctx); err == nil {
		t.Error("no error")
	}
	d.register()
	w.createScope("0ne000000C3", "three.hub.example")
	w.must(w.core.ReloadScopes(w.ctx))
	if got := w.core.HostScope("three.hub.example"); got != "0ne000000C3" {
		t.Errorf("the new scope is %q", got)
	}
	d.register()
}
