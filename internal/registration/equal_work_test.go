package registration_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// effort is what a request cost and what a stranger saw of it.
type effort struct {
	calls map[string]int
	work  registration.Counts
	seen  string
}

func (e effort) String() string {
	return fmt.Sprintf("calls %v, work %+v, seen %s", e.calls, e.work, e.seen)
}

func (w *world) effortOf(work *registration.Work, do func() (registration.Answer, error)) (effort, registration.Reason) {
	w.Helper()
	w.store.take()
	work.Take()
	answer, err := do()
	var fault *registration.Fault
	if !errors.As(err, &fault) || answer.Challenge != nil || answer.Status != nil {
		w.Fatalf("not a refusal: %+v, %v", answer, err)
	}
	var body map[string]any
	w.must(json.Unmarshal(dps.EncodeError(fault.Code, fault.Detail, fault.TrackingID, epoch), &body))
	if id, _ := body["trackingId"].(string); len(id) != 36 {
		w.Errorf("tracking id %q", id)
	}
	delete(body, "trackingId")
	return effort{w.store.take(), work.Take(), fmt.Sprintf("%d %v %s", fault.Code.Status(), body, fault.RetryAfter)}, fault.Reason
}

func (w *world) wantEqual(name string, got, want effort) {
	w.Helper()
	if !maps.Equal(got.calls, want.calls) || got.work != want.work || got.seen != want.seen {
		w.Errorf("%s is told apart:\n%s\n%s", name, got, want)
	}
}

// strangers are the ways in which a first contact, or a token, can fail to be of an enrolled device. Only the operator may tell them apart.
func (w *world) strangers(alg softtpm.Algorithm) map[string]*device {
	enrolled := w.device("enrolled", alg, 0)
	enrolled.enroll("", nil)
	stranger := func(scope, id string) *device {
		d := w.device(id, alg, 1)
		d.scope = scope
		return d
	}
	busy := w.device("busy", alg, 0) // has registered before, under two owners, and has a challenge open
	busy.enroll("", nil)
	busy.register()
	busy.chip.Clear()
	busy.register()
	busy.challenge()
	_, err := w.put("keyed", keysBody(thirdKey, secondKey, ""), "")
	w.must(err)
	_, err = w.put("certified", clientBody(newCA(w.tb, "CA", nil).issue(w.tb, "certified"), nil, ""), "")
	w.must(err)
	return map[string]*device{
		"with a symmetric key": stranger(scopeOne, "keyed"), "with a certificate": stranger(scopeOne, "certified"),
		"unknown scope": stranger("0neUNKNOWN", "enrolled"), "unknown id": stranger(scopeOne, "unknown"), "other EK": stranger(scopeOne, "enrolled"),
		"other scope": stranger(scopeTwo, "enrolled"), "other EK of a busy device": stranger(scopeOne, "busy"),
	}
}

var firstContactReasons = map[string]registration.Reason{
	"unknown scope": registration.ReasonUnknownScope, "unknown id": registration.ReasonUnknownID, "other EK": registration.ReasonOtherEK,
	"with a symmetric key": registration.ReasonOtherMechanism, "with a certificate": registration.ReasonOtherMechanism,
	"other scope": registration.ReasonUnknownID, "other EK of a busy device": registration.ReasonOtherEK,
}

func TestAStrangersFirstContactCostsAndShowsTheSameWhateverIsWrong(t *testing.T) {
	t.Parallel()
	for _, alg := range softtpm.Algorithms {
		t.Run(string(alg), func(t *testing.T) {
			w := newWorld(t)
			strangers := w.strangers(alg)
			work := registration.CountWork(w.core)
			want, _ := w.effortOf(work, func() (registration.Answer, error) {
				d := strangers["unknown id"]
				return w.core.Register(w.ctx, d.request(""))
			})
			if want.work != (registration.Counts{ParseEK: 1, ParseSRK: 1}) || want.calls["Device"] != 1 || len(want.calls) != 1 {
				t.Errorf("an unknown id costs %s", want)
			}
			for name, d := range strangers {
				for path, call := range map[string]func() (registration.Answer, error){
					"register": func() (registration.Answer, error) { return w.core.Register(w.ctx, d.request("")) },
					"lookup":   func() (registration.Answer, error) { return w.core.Lookup(w.ctx, d.request("")) },
				} {
					got, reason := w.effortOf(work, call)
					w.wantEqual(path+", "+name, got, want)
					if reason != firstContactReasons[name] {
						t.Errorf("%s: the operator is told %s", name, reason)
					}
				}
			}
		})
	}
}

func TestATokenThatDoesNotVerifyCostsAndShowsTheSameWhateverIsWrong(t *testing.T) {
	t.Parallel()
	for _, alg := range softtpm.Algorithms {
		for _, omit := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, keys omitted: %t", alg, omit), func(t *testing.T) {
				w := newWorld(t)
				strangers := w.strangers(alg)
				strangers["right EK, wrong signature"] = w.device("enrolled", alg, 0)
				strangers["right EK, wrong signature, busy"] = w.device("busy", alg, 0)
				work := registration.CountWork(w.core)
				attempt := func(d *device) func() (registration.Answer, error) {
					d.omitTPM = omit
					return func() (registration.Answer, error) {
						return d.core.Register(d.ctx, d.request(d.token(bytes.Repeat([]byte{1}, 32), time.Hour)))
					}
				}
				want, _ := w.effortOf(work, attempt(strangers["unknown id"]))
				if want.calls["Device"] != 1 || want.calls["Owners"] != 1 || want.work.Wrap != 0 {
					t.Errorf("an unknown id costs %s", want)
				}
				for name, d := range strangers {
					got, reason := w.effortOf(work, attempt(d))
					w.wantEqual(name, got, want)
					wanted := registration.ReasonTokenSignature
					switch name {
					case "unknown scope":
						wanted = registration.ReasonUnknownScope
					case "with a certificate":
						wanted = registration.ReasonOtherMechanism
					}
					if reason != wanted {
						t.Errorf("%s: the operator is told %s", name, reason)
					}
				}
			})
		}
	}
}
