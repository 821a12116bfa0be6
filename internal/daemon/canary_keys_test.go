package daemon

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

func (s secrets) have(secret []byte) bool {
	for _, one := range s {
		if bytes.Equal(one, secret) {
			return true
		}
	}
	return false
}

// parts are the secrets in what was sealed, by how they are told apart.
func parts(t *testing.T, kind registration.SealedKind, plain []byte) secrets {
	t.Helper()
	switch kind {
	case registration.SealedScopeCertificate:
		block, _ := pem.Decode(plain)
		return number(block.Bytes)
	case registration.SealedRegistrationKey, registration.SealedOperationHubKey, registration.SealedHubIdentity:
		credential, err := registration.DecodeCredential(plain)
		must(t, err)
		both := secrets{"": credential.Primary}
		if credential.Secondary != nil {
			both[", secondary"] = credential.Secondary
		}
		return both
	case registration.SealedHubSecret:
		var kept struct{ ConnectionString string }
		must(t, json.Unmarshal(plain, &kept))
		connection, err := dps.ParseConnectionString(kept.ConnectionString)
		must(t, err)
		return secrets{"": connection.SharedAccessKey}
	}
	return secrets{"": plain}
}

// number is the private number in a P-256 PKCS #8, and what of it is on one line in PEM.
func number(der []byte) secrets { return secrets{"": der[36:68], ", second line": der[48:68]} }

// known wants secrets of every kind that there is.
func known(t *testing.T, found secrets) {
	t.Helper()
	for kind, want := range map[registration.SealedKind]struct{ n, size int }{
		registration.SealedScopeRoot: {2, 32}, registration.SealedScopeCertificate: {1, 32}, registration.SealedPolicyPrimary: {2, 32}, registration.SealedPolicySecondary: {2, 32},
		registration.SealedRegistrationKey: {1 + 2, 32}, registration.SealedHubIdentity: {1 + 2, 32}, registration.SealedOperationHubKey: {1, 32}, registration.SealedOperationKey: {1, 32},
		registration.SealedEnrollmentFirst: {1, 64}, registration.SealedEnrollmentSecond: {1, 64}, registration.SealedGroupFirst: {1, 64}, registration.SealedGroupSecond: {1, 64},
		registration.SealedHubSecret: {1, 32}, registration.SealedWebhookKey: {1, 32},
	} {
		n := 0
		for name, secret := range found {
			if strings.HasPrefix(name, string(kind)+" ") && len(secret) == want.size {
				n++
			}
		}
		if n < want.n {
			t.Errorf("of %s only %d secrets are known: the search would prove little", kind, n)
		}
	}
}

// operator calls the management API and wants a status.
type operator struct {
	t      *testing.T
	r      *running
	client *http.Client
}

func (o operator) ask(status int, method, path, contentType, body string) []byte {
	o.t.Helper()
	token, err := o.r.adminToken()
	must(o.t, err)
	request, err := http.NewRequestWithContext(o.t.Context(), method, "https://"+host+path, strings.NewReader(body))
	must(o.t, err)
	request.Header.Set("Authorization", token)
	request.Header.Set("Content-Type", contentType)
	answer, err := o.client.Do(request)
	must(o.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(o.t, err)
	if answer.StatusCode != status {
		o.t.Fatalf("%s %s: %d, want %d: %s", method, path, answer.StatusCode, status, text)
	}
	return text
}

const (
	asJSON  = "application/json"
	asLines = "application/x-ndjson"
)

// keyed has secrets of the other kinds made and used: symmetric keys of an enrollment, of a group and of a device of it, and a scope with a
// certificate of its own. Answers that show keys on purpose go to the tape of shown; what they may show is given. All others go to p.
func keyed(t *testing.T, c *chip, p, shown *tape) (given, used secrets) {
	t.Helper()
	c.client.Transport = p
	open, closed := operator{t, c.r, c.r.client()}, operator{t, c.r, c.client}
	shown.under, open.client.Transport = open.client.Transport, shown
	const generated = `{"attestation":{"type":"symmetricKey"}}`
	pump, err := dps.DecodeEnrollment("pump", open.ask(http.StatusOK, http.MethodPut, "/enrollments/pump"+apiVersion, asJSON, generated))
	must(t, err)
	valves, err := dps.DecodeGroup("valves", open.ask(http.StatusOK, http.MethodPut, "/enrollmentGroups/valves"+apiVersion, asJSON, generated))
	must(t, err)
	own, group := pump.Attestation.SymmetricKey, valves.Attestation.SymmetricKey
	given = secrets{"primary key of the enrollment": own.Primary, "secondary key of the enrollment": own.Secondary,
		"primary key of the group": group.Primary, "secondary key of the group": group.Secondary}
	used = secrets{"primary key of the group's device": dps.DeriveKey(group.Primary, "valve-1"), "secondary key of the group's device": dps.DeriveKey(group.Secondary, "valve-1")}
	used["signature of the enrollment's device"] = signature(t, c.symmetric(t, "pump", own.Primary, own.Secondary))
	used["signature of the group's device"] = signature(t, c.symmetric(t, "valve-1", used["primary key of the group's device"], used["secondary key of the group's device"]))

	// What is given is on its way in other hands than what is made.
	open.ask(http.StatusOK, http.MethodPut, "/enrollmentGroups/vents"+apiVersion, asJSON, "{"+keys(group, "symmetricKey", "")+"}")
	open.ask(http.StatusOK, http.MethodPut, "/enrollments/vent"+apiVersion, asJSON, "{"+keys(own, "symmetricKey", "")+"}")
	given["owner key of the new scope"] = tenant(t, open, closed)
	given["key for webhooks"] = hubLinked(t, open, closed)
	for _, path := range []string{"/enrollments/pump", "/enrollmentGroups/valves"} {
		open.ask(http.StatusOK, http.MethodPost, path+"/attestationmechanism"+apiVersion, asJSON, "")
	}
	open.ask(http.StatusOK, http.MethodGet, "/latchkey/v1/export?secrets=true", asJSON, "")
	for name, secret := range given {
		if !holds(shown.text.String(), secret) {
			t.Errorf("the %s is shown nowhere, also where it is meant to be", name)
		}
	}
	withheld(t, closed, c, own, group)
	return given, used
}

// symmetric is the life of a device with two keys: it registers with the first and sends with the second. It gives its proof.
func (c *chip) symmetric(t *testing.T, id string, first, second []byte) string {
	t.Helper()
	d := *c
	d.id = id
	var err error
	d.token, err = dps.NewToken(dps.KeySigner(first), c.r.made.IDScope+"/registrations/"+id, time.Now().Add(time.Hour), dps.KeyNameRegistration)
	must(t, err)
	body := dps.RegisterRequest{RegistrationID: id}.Encode()
	status, answer, err := ask(d.client, http.MethodPut, d.path("/register"), d.token, body)
	if err != nil || status != http.StatusAccepted {
		t.Fatalf("register %s: %d %s %v", id, status, answer, err)
	}
	must(t, d.accepted(answer))
	status, answer, err = ask(d.client, http.MethodGet, d.path("/operations/"+d.operation), d.token, nil)
	must(t, err)
	done, err := dps.DecodeOperationStatus(answer)
	if err != nil || done.Status != dps.StatusAssigned {
		t.Fatalf("poll %s: %d %s %v", id, status, answer, err)
	}
	d.assigned, d.hubKey = done.RegistrationState, second
	must(t, d.send("pressed"))
	for name, wrong := range map[string]string{"key as token": "SharedAccessSignature " + base64.StdEncoding.EncodeToString(first), "token of another": c.token} {
		if status, answer, err := ask(d.client, http.MethodPut, d.path("/register"), wrong, body); err != nil || status < 400 {
			t.Errorf("%s: %d %s %v", name, status, answer, err)
		}
	}
	return d.token
}

// tenant makes a scope, which has a certificate of its own, and asks it something. It gives the key of its owner.
func tenant(t *testing.T, open, closed operator) []byte {
	t.Helper()
	name := "plant2." + host
	var made struct{ ConnectionString string }
	must(t, json.Unmarshal(open.ask(http.StatusOK, http.MethodPost, "/latchkey/v1/scopes", asJSON, `{"hosts":["`+name+`"]}`), &made))
	connection, err := dps.ParseConnectionString(made.ConnectionString)
	must(t, err)
	if own, err := open.r.named(open.r.https, name); err != nil || own.VerifyHostname(name) != nil {
		t.Errorf("the scope has no certificate of its own: %v", err)
	}
	token, err := dps.NewToken(connection.Signer(), name, time.Now().Add(time.Hour), registration.OwnerPolicy)
	must(t, err)
	for at, want := range map[string]int{name: http.StatusNotFound, host: http.StatusUnauthorized} {
		if status, body, err := ask(closed.client, http.MethodGet, "https://"+at+"/enrollments/none"+apiVersion, token, nil); err != nil || status != want {
			t.Errorf("the tenant at %s: %d %s %v", at, status, body, err)
		}
	}
	closed.ask(http.StatusBadRequest, http.MethodPost, "/latchkey/v1/scopes", asJSON, `{"hosts":["plant2.example.com"]}`)
	closed.ask(http.StatusOK, http.MethodGet, "/latchkey/v1/scopes", asJSON, "")
	return connection.SharedAccessKey
}

// hubLinked links a hub with a secret, which is on its way once, and makes a key for webhooks, which is shown once. What is answered otherwise, and what
// comes of asking a hub that is not there, holds neither.
func hubLinked(t *testing.T, open, closed operator) (webhook []byte) {
	t.Helper()
	hub := make([]byte, 32)
	rand.Read(hub)
	const path, name = "/latchkey/v1/hubs/", "far.invalid"
	secret := `"secret":{"connectionString":"HostName=` + name + `;SharedAccessKeyName=p;SharedAccessKey=` + base64.StdEncoding.EncodeToString(hub) + `"}`
	open.ask(http.StatusOK, http.MethodPut, path+name+"?check=false", asJSON, `{"kind":"azure",`+secret+`}`)
	closed.ask(http.StatusOK, http.MethodGet, path+name, asJSON, "")
	closed.ask(http.StatusOK, http.MethodGet, "/latchkey/v1/hubs", asJSON, "")
	closed.ask(http.StatusOK, http.MethodPatch, path+name, asJSON, `{"weight":2}`)
	closed.ask(http.StatusBadRequest, http.MethodPatch, path+name, asJSON, `{"settings":{"address":"127.0.0.1:1"}}`)
	open.ask(http.StatusConflict, http.MethodPut, path+name, asJSON, `{"kind":"azure",`+secret+`}`)
	var made struct{ WebhookKey string }
	must(t, json.Unmarshal(open.ask(http.StatusOK, http.MethodPost, "/latchkey/v1/allocation/webhookKey", asJSON, ""), &made))
	webhook, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(made.WebhookKey, "whsec_"))
	must(t, err)
	closed.ask(http.StatusOK, http.MethodGet, "/latchkey/v1/allocation", asJSON, "")
	return webhook
}

// keys is the attestation of an entry whose keys are given, with something behind the second.
func keys(k *dps.SymmetricKeys, kind, rest string) string {
	return `"attestation":{"type":"` + kind + `","symmetricKey":{"primaryKey":"` + base64.StdEncoding.EncodeToString(k.Primary) + `","secondaryKey":"` + base64.StdEncoding.EncodeToString(k.Secondary) + rest + `"}}`
}

// withheld asks for everything that has keys near it and shows none, rightly and wrongly.
func withheld(t *testing.T, o operator, c *chip, own, group *dps.SymmetricKeys) {
	t.Helper()
	for _, path := range []string{"/enrollments/pump" + apiVersion, "/enrollmentGroups/valves" + apiVersion, "/registrations/pump" + apiVersion, "/registrations/valve-1" + apiVersion,
		"/latchkey/v1/enrollments/export", "/latchkey/v1/enrollments/export?format=csv", "/latchkey/v1/export", "/latchkey/v1/audit"} {
		o.ask(http.StatusOK, http.MethodGet, path, asJSON, "")
	}
	o.ask(http.StatusOK, http.MethodPost, "/enrollments/query"+apiVersion, asJSON, `{"query":"SELECT * FROM enrollments"}`)
	for _, wrong := range []string{keys(own, "tpm", ""), keys(own, "symmetricKey", "!"), keys(own, "symmetricKey", "") + `,"deviceId":"not ok"`} {
		o.ask(http.StatusBadRequest, http.MethodPut, "/enrollments/pump"+apiVersion, asJSON, "{"+wrong+"}")
	}
	o.ask(http.StatusBadRequest, http.MethodPut, "/enrollmentGroups/valves"+apiVersion, asJSON, "{"+keys(group, "symmetricKey", "!")+"}")
	lines := `{"registrationId":"pump",` + keys(own, "symmetricKey", "") + "}\n" + `{"registrationId":"pump-2",` + keys(own, "symmetricKey", "!") + "}\n" +
		`{"registrationId":"pump-3",` + keys(own, "symmetricKey", "") + "}\n"
	answer := o.ask(http.StatusOK, http.MethodPost, "/latchkey/v1/enrollments/import", asLines, lines)
	if !bytes.Contains(answer, []byte(`"created":1,`)) || !bytes.Contains(answer, []byte(`"failed":2,`)) {
		t.Errorf("import: %s", answer)
	}
	d := *c
	d.id = "valve-1"
	for _, key := range [][]byte{group.Primary, group.Secondary} { // which signs for no device itself
		token, err := dps.NewToken(dps.KeySigner(key), c.r.made.IDScope+"/registrations/"+d.id, time.Now().Add(time.Hour), dps.KeyNameRegistration)
		must(t, err)
		if status, body, err := ask(d.client, http.MethodPut, d.path("/register"), token, dps.RegisterRequest{RegistrationID: d.id}.Encode()); err != nil || status < 400 {
			t.Errorf("the group's key as a device's: %d %s %v", status, body, err)
		}
	}
}
