package registration_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// Requests of a device that is enrolled and could prove itself, with one thing wrong.
func TestBadRequestsAreRefusedAndChangeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	token := d.token(d.challenge(), time.Hour)
	signing := softtpm.New(softtpm.ECC, 0)
	signing.EK.Public.ObjectAttributes.SignEncrypt = true
	signing.SRK.Public.ObjectAttributes.FixedTPM = false
	ek, srk := d.chip.EK.Bytes(), d.chip.SRK.Bytes()
	for _, c := range []struct {
		name   string
		change func(r *registration.Request)
		reason registration.Reason
		says   string
	}{
		{"empty id", func(r *registration.Request) { r.ID = "" }, registration.ReasonBadID, "registration id"},
		{"id with a slash", func(r *registration.Request) { r.ID = "pump/7" }, registration.ReasonBadID, "registration id"},
		{"id of 129 characters", func(r *registration.Request) { r.ID = strings.Repeat("a", 129) }, registration.ReasonBadID, "registration id"},
		{"id that ends with a dot", func(r *registration.Request) { r.ID = "pump." }, registration.ReasonBadID, "registration id"},
		{"another id in the body", func(r *registration.Request) { r.Body.RegistrationID = "valve" }, registration.ReasonIDMismatch, "registrationId"},
		{"a certificate request", func(r *registration.Request) { r.Body.CSR = "MII" }, registration.ReasonCSR, "csr"},
		{"EK cut short", func(r *registration.Request) { r.Body.TPM.EndorsementKey = ek[:len(ek)-1] }, registration.ReasonBadEK, "tpm.endorsementKey"},
		{"EK with a byte more", func(r *registration.Request) { r.Body.TPM.EndorsementKey = append(bytes.Clone(ek), 0) }, registration.ReasonBadEK, "tpm.endorsementKey"},
		{"EK of 64 KB", func(r *registration.Request) { r.Body.TPM.EndorsementKey = make([]byte, 64<<10) }, registration.ReasonBadEK, "tpm.endorsementKey"},
		{"EK that can sign", func(r *registration.Request) { r.Body.TPM.EndorsementKey = signing.EK.Bytes() }, registration.ReasonBadEK, "sign"},
		{"EK off the curve", func(r *registration.Request) { r.Body.TPM.EndorsementKey = flipLast(ek) }, registration.ReasonBadEK, "tpm.endorsementKey"},
		{"SRK cut short", func(r *registration.Request) { r.Body.TPM.StorageRootKey = srk[:len(srk)-1] }, registration.ReasonBadSRK, "tpm.storageRootKey"},
		{"SRK that can leave its TPM", func(r *registration.Request) { r.Body.TPM.StorageRootKey = signing.SRK.Bytes() }, registration.ReasonBadSRK, "fixedTPM"},
		{"SRK off the curve", func(r *registration.Request) { r.Body.TPM.StorageRootKey = flipLast(srk) }, registration.ReasonBadSRK, "tpm.storageRootKey"},
		{"EK and SRK are one key", func(r *registration.Request) { r.Body.TPM.StorageRootKey = ek }, registration.ReasonBadSRK, "tpm"},
	} {
		for _, authorization := range []string{"", token} {
			for path, send := range map[string]func(registration.Request) (registration.Answer, error){
				"register": func(r registration.Request) (registration.Answer, error) { return w.core.Register(w.ctx, r) },
				"lookup":   func(r registration.Request) (registration.Answer, error) { return w.core.Lookup(w.ctx, r) },
			} {
				t.Run(c.name+", "+path+map[bool]string{true: " with token", false: ""}[authorization != ""], func(t *testing.T) {
					w := w.in(t)
					r := d.request(authorization)
					c.change(&r)
					answer, err := send(r)
					if authorization != "" && c.reason != registration.ReasonBadID && r.ID != d.id {
						t.Fatal("the token is for another id")
					}
					fault := w.wantFault(err, dps.CodeBadRequest, c.reason)
					if !strings.Contains(fault.Detail, c.says) || answer.Challenge != nil || answer.Status != nil {
						t.Errorf("says %q, answers %+v", fault.Detail, answer)
					}
				})
			}
		}
	}
	if w.snapshot("pump").Registration != nil || w.store.redeemed("pump") != 0 {
		t.Error("a bad request changed something")
	}
	w.must(second(d.prove(token)))
}

func flipLast(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

func TestAFirstContactWithoutKeysIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range []string{"pump", "unknown"} {
		d := w.device(id, softtpm.ECC, 0)
		if id == "pump" {
			d.enroll("", nil)
		}
		r := d.request("")
		r.Body = dps.RegisterRequest{}
		_, err := w.core.Register(w.ctx, r)
		w.wantFault(err, dps.CodeBadRequest, registration.ReasonMissingTPM)
		_, err = w.core.Lookup(w.ctx, r)
		w.wantFault(err, dps.CodeBadRequest, registration.ReasonMissingTPM)
	}
}

func TestTokensThatAreRefusedBeforeAnyKeyIsTried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	key := d.challenge()
	elsewhere := func(resource string) string {
		text, err := dps.NewToken(dps.KeySigner(key), resource, w.clock.Now().Add(time.Hour), dps.KeyNameRegistration)
		w.must(err)
		return text
	}
	for _, c := range []struct {
		name, token string
		reason      registration.Reason
	}{
		{"no SAS token", "Bearer abc", registration.ReasonBadToken},
		{"half a SAS token", d.token(key, time.Hour)[:60], registration.ReasonBadToken},
		{"another id", elsewhere(scopeOne + "/registrations/valve"), registration.ReasonTokenOtherResource},
		{"another scope", elsewhere(scopeTwo + "/registrations/pump"), registration.ReasonTokenOtherResource},
		{"a prefix of the path", elsewhere(scopeOne + "/registrations"), registration.ReasonTokenOtherResource},
		{"a longer path", elsewhere(scopeOne + "/registrations/pump/x"), registration.ReasonTokenOtherResource},
		{"expired", d.token(key, -registration.TokenLeeway-time.Second), registration.ReasonTokenExpired},
		{"too far ahead", d.token(key, registration.TokenAhead+time.Second), registration.ReasonTokenFuture},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			for _, send := range []func() (registration.Answer, error){
				func() (registration.Answer, error) { return w.core.Register(w.ctx, d.request(c.token)) },
				func() (registration.Answer, error) { return w.core.Lookup(w.ctx, d.request(c.token)) },
			} {
				answer, err := send()
				fault := w.wantFault(err, dps.CodeUnauthorized, c.reason)
				if answer.Challenge != nil || answer.Status != nil || fault.Detail != "" {
					t.Errorf("the refusal came with %+v and %q", answer, fault.Detail)
				}
			}
		})
	}
	w.must(second(d.prove(d.token(key, registration.TokenAhead))))
}

// Expiry is judged as of the arrival, before any queueing.
func TestATokenIsAsFreshAsItWasOnArrival(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.enrolled("pump")
	r := d.request(d.token(d.challenge(), -registration.TokenLeeway))
	w.clock.advance(time.Minute) // in a queue
	if _, err := w.core.Register(w.ctx, r); err != nil {
		t.Error(err)
	}
}
