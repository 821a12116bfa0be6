package registration_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// canaries are secrets that a world holds, by what they are.
type canaries map[string][]byte

// wantNone looks for each secret in each form in which bytes get into text.
func (c canaries) wantNone(t *testing.T, place string, text []byte) {
	t.Helper()
	for name, secret := range c {
		for form, needle := range map[string]string{
			"raw": string(secret), "hex": hex.EncodeToString(secret), "base64": base64.StdEncoding.EncodeToString(secret), "unpadded base64": base64.RawStdEncoding.EncodeToString(secret),
			"URL base64": base64.RawURLEncoding.EncodeToString(secret), "decimal": strings.Trim(fmt.Sprint(secret), "[]"),
		} {
			if bytes.Contains(text, []byte(needle)) || form == "hex" && bytes.Contains(text, []byte(strings.ToUpper(needle))) {
				t.Errorf("%s holds the %s in the form %s", place, name, form)
			}
		}
	}
}

func TestTheSearchForSecretsFindsThem(t *testing.T) {
	for _, text := range []string{"%s", "%x", "%X", "%v"} {
		found := &testing.T{}
		canaries{"key": secret("canary")}.wantNone(found, "text", fmt.Appendf(nil, "before "+text+" after", secret("canary")))
		if !found.Failed() {
			t.Errorf("a secret printed with %s was not found", text)
		}
	}
}

func TestNoSecretIsWrittenOrSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	said := new(bytes.Buffer)
	hear := func(err error) {
		var fault *registration.Fault
		if err == nil || !errors.As(err, &fault) {
			t.Errorf("expected a refusal to listen to, got %v", err)
			return
		}
		fmt.Fprintf(said, "%v\n%+v\n%s\n", err, *fault, dps.EncodeError(fault.Code, fault.Detail, fault.TrackingID, epoch))
	}
	d := w.enrolled("pump")
	got := d.register()
	w.misbehave(d, got, hear)
	d.chip.Clear()
	again := d.register()
	w.store.failNext("Finish", 1, before)
	w.hub.plan("EnsureDevice", 1, 1, before)
	hanging := d.token(d.challenge(), time.Hour)
	answer, err := d.prove(hanging)
	w.must(err)
	w.must(second(d.poll(answer.Status.OperationID, hanging)))
	keys, operations := w.keyedLife(hear)

	secrets := w.canaries(got, again)
	maps.Copy(secrets, keys)
	secrets.wantNone(t, "the log", w.logs.Bytes())
	secrets.wantNone(t, "a fault", said.Bytes())
	secrets.wantNone(t, "the audit", w.auditOf(answer.TrackingID, append(operations, got, again)...))
	if w.logs.Bytes() == nil || said.Len() == 0 {
		t.Error("nothing was said: the test looks in the wrong place")
	}
	w.wantNoneInFiles(t, secrets)
}

// misbehave plays refusals of every kind that has a secret near it.
func (w *world) misbehave(d *device, got registered, hear func(error)) {
	w.Helper()
	hear(second(d.prove(d.token(got.hubKey, time.Hour))))
	hear(second(d.prove("SharedAccessSignature sr=x&sig=" + base64.StdEncoding.EncodeToString(got.challenge) + "&se=1")))
	hear(second(d.prove(d.token(got.challenge, -time.Hour))))
	hear(second(d.prove(d.token(got.challenge, 2*time.Hour))))
	hear(second(d.poll("5.none", got.token)))
	hear(second(d.poll(got.operation, d.token(got.hubKey, time.Hour))))
	for _, call := range []string{"Device", "Redeem"} {
		token := d.token(d.challenge(), time.Hour)
		w.store.failNext(call, 1, before)
		hear(second(d.prove(token)))
	}
	d.enroll("*", disabled)
	hear(second(d.prove(d.token(d.challenge(), time.Hour))))
	d.enroll("*", d.pinning(softtpm.New(softtpm.ECC, 3).SRK.Bytes()))
	hear(second(d.prove(d.token(d.challenge(), time.Hour))))
	d.enroll("*", nil)
	hear(second(w.core.Authorize(w.ctx, hubOne, "/", w.serviceToken(secret("primary "+scopeOne+"config"), hubOne, "config", time.Hour), "", registration.AllRights, w.clock.Now())))
	hear(second(w.core.Authorize(w.ctx, hubOne, "/", w.serviceToken(secret("root "+scopeOne), hubOne, "nobody", time.Hour), "", registration.AllRights, w.clock.Now())))
}

func (w *world) canaries(all ...registered) canaries {
	w.Helper()
	c := canaries{"challenge root": secret("root " + scopeOne)}
	for policy := range rights {
		c["primary key of "+policy], c["secondary key of "+policy] = secret("primary "+scopeOne+policy), secret("secondary "+scopeOne+policy)
	}
	for i, r := range all {
		c[fmt.Sprint("hub key ", i)], c[fmt.Sprint("challenge key ", i)] = r.hubKey, r.challenge
		c[fmt.Sprint("signature ", i)] = signatureOf(r.token)
	}
	var ring struct{ Keys []struct{ Key []byte } }
	text, err := os.ReadFile(filepath.Join(w.files, "master.keys"))
	w.must(err)
	w.must(json.Unmarshal(text, &ring))
	for i, k := range ring.Keys {
		c[fmt.Sprint("master key ", i)] = k.Key
	}
	if len(ring.Keys) == 0 || len(ring.Keys[0].Key) != 32 {
		w.Fatalf("the key ring was not read")
	}
	return c
}

// auditOf is the text of the audit rows about the operations.
func (w *world) auditOf(last string, all ...registered) []byte {
	w.Helper()
	ids := []string{last, operator.TrackingID}
	for _, r := range all {
		o, err := w.inner.Operation(w.ctx, scopeOne, r.operation)
		w.must(err)
		ids = append(ids, o.TrackingID)
	}
	var text []byte
	for _, id := range ids {
		rows, err := w.inner.AuditByTrackingID(w.ctx, scopeOne, id)
		w.must(err)
		if len(rows) == 0 {
			w.Errorf("no audit under %s", id)
		}
		text = fmt.Appendf(text, "%+v\n", rows)
	}
	return text
}

// wantNoneInFiles reads the database, its log and what lies beside them, byte for byte.
func (w *world) wantNoneInFiles(t *testing.T, secrets canaries) {
	t.Helper()
	size := 0
	w.must(filepath.WalkDir(w.files, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == "master.keys" {
			return err
		}
		content, err := os.ReadFile(path)
		size += len(content)
		secrets.wantNone(t, entry.Name(), content)
		return err
	}))
	if size < 10_000 {
		t.Errorf("the files have %d bytes: the test looks in the wrong place", size)
	}
}
