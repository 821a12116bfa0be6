package registration_test

import (
	"encoding/base64"
	"encoding/pem"
	"maps"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// keyedLife has the secrets of the other kinds made, used and refused: symmetric keys of an enrollment, given and made, of a group and of a device of
// it, and a scope with a certificate of its own.
func (w *world) keyedLife(hear func(error)) (canaries, []registered) {
	w.Helper()
	c := canaries{}
	for _, name := range []string{"enrollment", "group"} {
		c["primary key of the "+name], c["secondary key of the "+name] = secret("primary of "+name), secret("secondary of "+name)
	}
	own := keysBody(c["primary key of the enrollment"], c["secondary key of the enrollment"], "")
	group := keysBody(c["primary key of the group"], c["secondary key of the group"], "")
	w.must(second(w.put("valve", own, "")))
	w.must(second(w.putGroup("vents", group, "")))
	made, err := w.put("made", `{"attestation":{"type":"symmetricKey"}}`, "")
	w.must(err)
	c["primary key that was made"], c["secondary key that was made"] = made.Attestation.SymmetricKey.Primary, made.Attestation.SymmetricKey.Secondary
	for _, slot := range []string{"primary", "secondary"} {
		c[slot+" key of the group's device"] = dps.DeriveKey(c[slot+" key of the group"], "vent-1")
	}
	var operations []registered
	for name, k := range map[string]*keyed{"enrollment": w.keyed("valve", c["primary key of the enrollment"]), "group's device": w.keyed("vent-1", c["secondary key of the group's device"]),
		"made": w.keyed("made", made.Attestation.SymmetricKey.Secondary)} {
		got := k.misbehave(hear)
		operations = append(operations, got)
		c["signature of the "+name] = signatureOf(got.token)
	}
	itself := w.keyed("vent-1", c["primary key of the group"]) // which signs for no device
	hear(second(itself.register(itself.token(time.Hour))))
	w.refusedKeys(own, group, hear)
	maps.Copy(c, w.tenant(hear))
	return c, operations
}

// misbehave registers a device, and is refused in every way that has its key near it.
func (k *keyed) misbehave(hear func(error)) registered {
	k.Helper()
	token := k.token(time.Hour)
	answer, err := k.register(token)
	k.must(err)
	operation := answer.Status.OperationID
	k.finished(k.core.Poll(k.ctx, k.request(token), operation))
	hear(second(k.register("SharedAccessSignature " + base64.StdEncoding.EncodeToString(k.key))))
	hear(second(k.register("SharedAccessSignature sr=x&sig=" + base64.StdEncoding.EncodeToString(k.key) + "&se=1")))
	hear(second(k.register(k.token(-time.Hour))))
	hear(second(k.core.Poll(k.ctx, k.request(token), "5.none")))
	k.clock.advance(time.Second)
	for _, call := range []string{"Device", "Redeem"} {
		k.store.failNext(call, 1, before)
		hear(second(k.register(k.token(time.Hour))))
	}
	return registered{operation: operation, token: token}
}

// refusedKeys writes entries that are refused with their keys in them, and imports such.
func (w *world) refusedKeys(own, group string, hear func(error)) {
	w.Helper()
	const stale = `"AAAAAAAA/w=="`
	hear(second(w.put("valve", own, stale)))
	hear(second(w.putGroup("vents", group, stale)))
	w.store.failNext("PutEnrollment", 1, before)
	hear(second(w.put("valve", own, "*")))
	wire, err := dps.DecodeEnrollment("valve", []byte(own))
	w.must(err)
	_, err = w.core.Import(w.ctx, operator, registration.RefuseExisting, []registration.ImportLine{{Enrollment: wire}})
	w.must(err)
	hear(second(w.core.EnrollmentAttestation(w.ctx, operator, "absent")))
	for _, show := range []func() (dps.Attestation, error){
		func() (dps.Attestation, error) { return w.core.EnrollmentAttestation(w.ctx, operator, "valve") },
		func() (dps.Attestation, error) { return w.core.GroupAttestation(w.ctx, operator, "vents") },
	} {
		shown, err := show()
		w.must(err)
		if shown.SymmetricKey == nil {
			w.Errorf("no keys are shown")
		}
	}
}

// tenant makes a scope, and gives the secrets that it has: the key of its owner, and the private number of its certificate's key.
func (w *world) tenant(hear func(error)) canaries {
	w.Helper()
	w.issuer.fails = true
	hear(second(w.core.CreateScope(w.ctx, operator, []string{"plant2.example"})))
	w.issuer.fails = false
	made := w.newScope("plant2.example")
	hear(second(w.core.Authorize(w.ctx, hubOne, "/", w.serviceToken(made.PrimaryKey, hubOne, made.Policy, time.Hour), "", registration.AllRights, w.clock.Now())))
	c := canaries{"key of the new scope's owner": made.PrimaryKey}
	scopes, err := w.inner.Scopes(w.ctx)
	w.must(err)
	for _, s := range scopes {
		if s.ID != made.ID {
			continue
		}
		plain, err := w.ring.Open(registration.ContextScopeCertificate(s.ID), s.SealedCertificateKey)
		w.must(err)
		block, _ := pem.Decode(plain)
		c["key of the new scope's certificate"] = block.Bytes[36:68] // the private number in a P-256 PKCS #8
		c["key of the new scope's certificate, a line"] = block.Bytes[48:66]
		c["root of the new scope"], err = w.ring.Open(registration.ContextScopeRoot(s.ID), s.SealedRoot)
		w.must(err)
	}
	if len(c) != 4 {
		w.Fatalf("the new scope has %d secrets", len(c))
	}
	return c
}

// signatureOf is the signature of a token, as it stands in it.
func signatureOf(token string) []byte {
	_, signature, _ := strings.Cut(token, "sig=")
	signature, _, _ = strings.Cut(signature, "&")
	return []byte(signature)
}
