package httpapi_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/web"
	"latchkey.example/latchkey/test/softtpm"
)

// stage is a house with the actors of the refusals: a device that is enrolled, one that has registered, and a stranger.
type stage struct {
	*house
	enrolled, registered, stranger *softtpm.TPM
	operation, token               string // of registered
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{house: newHouse(t, web.DefaultLimits), enrolled: softtpm.New(softtpm.RSA, 0), registered: softtpm.New(softtpm.ECC, 1), stranger: softtpm.New(softtpm.ECC, 2)}
	s.enroll("enrolled", s.enrolled, "")
	s.enroll("registered", s.registered, "")
	s.token = sas(t, s.contact("registered", s.registered), "registered")
	s.operation = s.ask(http.MethodPut, registerPath("registered"), contactBody("registered", s.registered), "Authorization", s.token).want(202).json("operationId")
	s.ask(http.MethodGet, pollPath("registered", s.operation), "", "Authorization", s.token).want(200)
	return s
}

// put registers as "enrolled" with a body and headers.
func (s *stage) put(body string, header ...string) answer {
	s.t.Helper()
	return s.ask(http.MethodPut, registerPath("enrolled"), body, header...)
}

// proof is a register request with a good body and the given Authorization.
func (s *stage) proof(authorization string) answer {
	s.t.Helper()
	return s.put(contactBody("enrolled", s.enrolled), "Authorization", authorization)
}

// refusal is one row: what is asked, and the answer to a stranger and to the operator.
type refusal struct {
	name   string
	code   dps.Code
	reason string
	says   string // part of the public message; empty: the code's own sentence and nothing else
	ask    func(s *stage) answer
}

const (
	idRule    = "The registration id must be 1 to 128 of the characters A-Z a-z 0-9 - . _ : and end in a letter, digit or dash."
	noVersion = "The query needs one api-version, such as api-version=2021-10-01."
)

func contactRefusals() []refusal {
	return []refusal{
		{"unknown scope", dps.CodeNotEnrolled, "unknown-scope", "", func(s *stage) answer {
			return s.ask(http.MethodPut, "/0lkNone/registrations/enrolled/register"+version, contactBody("enrolled", s.enrolled))
		}},
		{"the scope of somebody else", dps.CodeNotEnrolled, "unknown-id", "", func(s *stage) answer {
			return s.ask(http.MethodPut, "/"+otherScope+"/registrations/enrolled/register"+version, contactBody("enrolled", s.enrolled))
		}},
		{"unknown id", dps.CodeNotEnrolled, "unknown-id", "", func(s *stage) answer {
			return s.ask(http.MethodPut, registerPath("nobody"), contactBody("nobody", s.enrolled))
		}},
		{"EK other than enrolled", dps.CodeNotEnrolled, "other-ek", "", func(s *stage) answer {
			return s.put(keysBody("enrolled", s.stranger.EK.Bytes(), s.enrolled.SRK.Bytes()))
		}},
		{"the EK of another enrollment", dps.CodeNotEnrolled, "other-ek", "", func(s *stage) answer {
			return s.put(contactBody("enrolled", s.registered))
		}},
		{"no body", dps.CodeBadRequest, "missing-tpm", "tpm object", func(s *stage) answer { return s.put("") }},
		{"no tpm object", dps.CodeBadRequest, "missing-tpm", "tpm object", func(s *stage) answer { return s.put(`{"registrationId":"enrolled"}`) }},
		{"tpm is null", dps.CodeBadRequest, "missing-tpm", "tpm object", func(s *stage) answer { return s.put(`{"tpm":null}`) }},
		{"tpm is no object", dps.CodeBadRequest, "bad-request", "tpm", func(s *stage) answer { return s.put(`{"tpm":"yes"}`) }},
		{"tpm without endorsementKey", dps.CodeBadRequest, "bad-request", "tpm.endorsementKey", func(s *stage) answer {
			return s.put(fmt.Sprintf(`{"tpm":{"storageRootKey":%q}}`, b64(s.enrolled.SRK.Bytes())))
		}},
		{"tpm without storageRootKey", dps.CodeBadRequest, "bad-request", "tpm.storageRootKey", func(s *stage) answer {
			return s.put(fmt.Sprintf(`{"tpm":{"endorsementKey":%q}}`, b64(s.enrolled.EK.Bytes())))
		}},
		{"the EK as SRK too", dps.CodeBadRequest, "bad-srk", "srk-is-ek", func(s *stage) answer {
			return s.put(keysBody("enrolled", s.enrolled.EK.Bytes(), s.enrolled.EK.Bytes()))
		}},
		{"ids in path and body disagree", dps.CodeBadRequest, "id-mismatch", "in the body is not the one in the path", func(s *stage) answer {
			return s.put(contactBody("registered", s.enrolled))
		}},
		{"a csr", dps.CodeBadRequest, "csr", "csr", func(s *stage) answer {
			return s.put(strings.Replace(contactBody("enrolled", s.enrolled), "{", `{"csr":"MIIB",`, 1))
		}},
		{"broken JSON", dps.CodeBadRequest, "bad-request", "not valid JSON", func(s *stage) answer { return s.put(`{"registrationId":`) }},
		{"not an object", dps.CodeBadRequest, "bad-request", "must be a JSON object", func(s *stage) answer { return s.put(`[]`) }},
		{"a member twice", dps.CodeBadRequest, "bad-request", "twice", func(s *stage) answer { return s.put(`{"payload":1,"payload":2}`) }},
		{"bytes that are no UTF-8", dps.CodeBadRequest, "bad-request", "UTF-8", func(s *stage) answer { return s.put("{\"payload\":\"\xff\"}") }},
		{"nested too deeply", dps.CodeBadRequest, "bad-request", "nested", func(s *stage) answer {
			return s.put(`{"payload":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`)
		}},
		{"wrong content type", dps.CodeUnsupportedMediaType, "content-type", "", func(s *stage) answer {
			return s.put(contactBody("enrolled", s.enrolled), "Content-Type", "text/plain")
		}},
		{"no content type", dps.CodeUnsupportedMediaType, "content-type", "", func(s *stage) answer {
			return s.put(contactBody("enrolled", s.enrolled), "Content-Type", "")
		}},
		{"a content type that cannot be read", dps.CodeUnsupportedMediaType, "content-type", "", func(s *stage) answer {
			return s.put(contactBody("enrolled", s.enrolled), "Content-Type", "application/json; charset")
		}},
		{"97 KB body", dps.CodeTooLarge, "too-large", "", func(s *stage) answer { return s.put(padded(97 << 10)) }},
		{"97 KB body in chunks", dps.CodeTooLarge, "too-large", "", func(s *stage) answer {
			return s.send(http.MethodPut, registerPath("enrolled"), io.MultiReader(strings.NewReader(padded(97<<10))), "Content-Type", "application/json")
		}},
		{"one byte over 96 KB", dps.CodeTooLarge, "too-large", "", func(s *stage) answer { return s.put(padded(96<<10 + 1)) }},
		{"exactly 96 KB is read", dps.CodeBadRequest, "missing-tpm", "tpm object", func(s *stage) answer { return s.put(padded(96 << 10)) }},
	}
}

// padded is a register body of exactly n bytes.
func padded(n int) string {
	const head, tail = `{"payload":"`, `"}`
	return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
}

func pathRefusals() []refusal {
	at := func(method, path string) func(*stage) answer {
		return func(s *stage) answer {
			body := ""
			if method == http.MethodPut || method == http.MethodPost {
				body = fmt.Sprintf(`{"tpm":{"endorsementKey":%q,"storageRootKey":%q}}`, b64(s.enrolled.EK.Bytes()), b64(s.enrolled.SRK.Bytes()))
			}
			return s.ask(method, path, body)
		}
	}
	rows := []refusal{
		{"id of 129 characters", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPut, registerPath(strings.Repeat("a", 129)))},
		{"id with a space", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPut, registerPath("a%20b"))},
		{"id with a slash", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPut, registerPath("a%2Fb"))},
		{"id with a letter outside ASCII", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPut, registerPath("%C3%A4"))},
		{"id with a zero byte", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPut, registerPath("a%00b"))},
		{"id encoded twice", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPut, registerPath("a%253Ab"))},
		{"id that ends in a dot", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPut, registerPath("enrolled."))},
		{"id ..", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPut, registerPath("%2E%2E"))},
		{"no id", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPut, "/"+scope+"/registrations//register"+version)},
		{"bad id of a lookup", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodPost, lookupPath("a%20b"))},
		{"bad id of a poll", dps.CodeBadRequest, "bad-id", idRule, at(http.MethodGet, pollPath("a%20b", "1"))},
		{"api-version missing", dps.CodeBadRequest, "api-version", noVersion, at(http.MethodPut, "/"+scope+"/registrations/enrolled/register")},
		{"api-version empty", dps.CodeBadRequest, "api-version", noVersion, at(http.MethodPut, "/"+scope+"/registrations/enrolled/register?api-version=")},
		{"api-version unknown", dps.CodeBadRequest, "api-version", noVersion, at(http.MethodPut, "/"+scope+"/registrations/enrolled/register?api-version=2020-01-01")},
		{"api-version twice", dps.CodeBadRequest, "api-version", noVersion, at(http.MethodPut, registerPath("enrolled")+"&api-version=2021-06-01")},
		{"api-version missing at a lookup", dps.CodeBadRequest, "api-version", noVersion, at(http.MethodPost, "/"+scope+"/registrations/enrolled")},
		{"api-version missing at a poll", dps.CodeBadRequest, "api-version", noVersion, at(http.MethodGet, "/"+scope+"/registrations/enrolled/operations/1")},
		{"root", dps.CodeNotFound, "not-found", "", at(http.MethodGet, "/")},
		{"scope alone", dps.CodeNotFound, "not-found", "", at(http.MethodGet, "/"+scope)},
		{"no id in the path", dps.CodeNotFound, "not-found", "", at(http.MethodPut, "/"+scope+"/registrations"+version)},
		{"another word than registrations", dps.CodeNotFound, "not-found", "", at(http.MethodPut, "/"+scope+"/registration/enrolled/register"+version)},
		{"another word than register", dps.CodeNotFound, "not-found", "", at(http.MethodPut, "/"+scope+"/registrations/enrolled/registers"+version)},
		{"a poll without operation id", dps.CodeNotFound, "not-found", "", at(http.MethodGet, "/"+scope+"/registrations/enrolled/operations"+version)},
		{"a segment too many", dps.CodeNotFound, "not-found", "", at(http.MethodGet, "/"+scope+"/registrations/enrolled/operations/1/2"+version)},
		{"two trailing slashes", dps.CodeNotFound, "not-found", "", at(http.MethodPut, "/"+scope+"/registrations/enrolled/register//"+version)},
		{"very deep", dps.CodeNotFound, "not-found", "", at(http.MethodPut, strings.Repeat("/a", 3000))},
	}
	for _, wrong := range []struct{ method, path string }{
		{"GET", registerPath("enrolled")}, {"POST", registerPath("enrolled")}, {"DELETE", registerPath("enrolled")}, {"PATCH", registerPath("enrolled")},
		{"GET", lookupPath("enrolled")}, {"PUT", lookupPath("enrolled")}, {"DELETE", lookupPath("enrolled")},
		{"PUT", pollPath("enrolled", "1")}, {"POST", pollPath("enrolled", "1")}, {"DELETE", pollPath("enrolled", "1")},
	} {
		rows = append(rows, refusal{wrong.method + " " + wrong.path, dps.CodeMethodNotAllowed, "method", "", at(wrong.method, wrong.path)})
	}
	return rows
}

func proofRefusals() []refusal {
	rows := []refusal{
		{"a token signed with another challenge", dps.CodeUnauthorized, "token-signature", "", func(s *stage) answer {
			s.contact("enrolled", s.enrolled)
			return s.proof(sas(s.t, s.contact("registered", s.registered), "enrolled"))
		}},
		{"a token signed with no key of ours", dps.CodeUnauthorized, "token-signature", "", func(s *stage) answer {
			return s.proof(sas(s.t, []byte("a key of the stranger's own"), "enrolled"))
		}},
		{"a token for an unknown id", dps.CodeUnauthorized, "token-signature", "", func(s *stage) answer {
			return s.ask(http.MethodPut, registerPath("nobody"), contactBody("nobody", s.enrolled), "Authorization", sas(s.t, s.contact("enrolled", s.enrolled), "nobody"))
		}},
		{"a token for an unknown scope", dps.CodeUnauthorized, "unknown-scope", "", func(s *stage) answer {
			token := sasFor(s.t, s.contact("enrolled", s.enrolled), "0lkNone/registrations/enrolled", time.Now().Add(time.Hour))
			return s.ask(http.MethodPut, "/0lkNone/registrations/enrolled/register"+version, contactBody("enrolled", s.enrolled), "Authorization", token)
		}},
		{"a token redeemed long ago, body without keys", dps.CodeUnauthorized, "token-signature", "", func(s *stage) answer {
			return s.put("", "Authorization", sas(s.t, make([]byte, 32), "enrolled"))
		}},
		{"a token for another id", dps.CodeUnauthorized, "token-other-resource", "", func(s *stage) answer {
			return s.proof(sas(s.t, s.contact("enrolled", s.enrolled), "registered"))
		}},
		{"a token for another scope", dps.CodeUnauthorized, "token-other-resource", "", func(s *stage) answer {
			return s.proof(sasFor(s.t, s.contact("enrolled", s.enrolled), otherScope+"/registrations/enrolled", time.Now().Add(time.Hour)))
		}},
		{"a token for more than the registration", dps.CodeUnauthorized, "token-other-resource", "", func(s *stage) answer {
			return s.proof(sasFor(s.t, s.contact("enrolled", s.enrolled), scope, time.Now().Add(time.Hour)))
		}},
		{"an expired token", dps.CodeUnauthorized, "token-expired", "", func(s *stage) answer {
			return s.proof(sasFor(s.t, s.contact("enrolled", s.enrolled), scope+"/registrations/enrolled", time.Now().Add(-6*time.Minute)))
		}},
		{"a token of the year 2100", dps.CodeUnauthorized, "token-future", "", func(s *stage) answer {
			return s.proof(sasFor(s.t, s.contact("enrolled", s.enrolled), scope+"/registrations/enrolled", time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)))
		}},
		{"a token 49 hours ahead", dps.CodeUnauthorized, "token-future", "", func(s *stage) answer {
			return s.proof(sasFor(s.t, s.contact("enrolled", s.enrolled), scope+"/registrations/enrolled", time.Now().Add(49*time.Hour)))
		}},
		{"a good token, but another EK in the body", dps.CodeBadRequest, "other-keys", "tpm.endorsementKey", func(s *stage) answer {
			token := sas(s.t, s.contact("enrolled", s.enrolled), "enrolled")
			return s.put(keysBody("enrolled", s.stranger.EK.Bytes(), s.enrolled.SRK.Bytes()), "Authorization", token)
		}},
		{"a good token, but another SRK in the body", dps.CodeBadRequest, "other-keys", "tpm.storageRootKey", func(s *stage) answer {
			token := sas(s.t, s.contact("enrolled", s.enrolled), "enrolled")
			return s.put(keysBody("enrolled", s.enrolled.EK.Bytes(), s.stranger.SRK.Bytes()), "Authorization", token)
		}},
		{"poll of another device's operation", dps.CodeUnauthorized, "unknown-operation", "", func(s *stage) answer {
			return s.ask(http.MethodGet, pollPath("enrolled", s.operation), "", "Authorization", sas(s.t, s.contact("enrolled", s.enrolled), "enrolled"))
		}},
		{"poll of an unknown operation", dps.CodeUnauthorized, "unknown-operation", "", func(s *stage) answer {
			return s.ask(http.MethodGet, pollPath("registered", "5.0123456789abcdef.01234567-89ab-cdef-0123-456789abcdef"), "", "Authorization", s.token)
		}},
		{"poll of an operation through another scope", dps.CodeUnauthorized, "unknown-operation", "", func(s *stage) answer {
			token := sasFor(s.t, make([]byte, 32), otherScope+"/registrations/registered", time.Now().Add(time.Hour))
			return s.ask(http.MethodGet, "/"+otherScope+"/registrations/registered/operations/"+s.operation+version, "", "Authorization", token)
		}},
		{"poll without a token", dps.CodeUnauthorized, "bad-token", "", func(s *stage) answer {
			return s.ask(http.MethodGet, pollPath("registered", s.operation), "")
		}},
		{"poll with a token of another key", dps.CodeUnauthorized, "token-signature", "", func(s *stage) answer {
			return s.ask(http.MethodGet, pollPath("registered", s.operation), "", "Authorization", sas(s.t, make([]byte, 32), "registered"))
		}},
		{"poll with a token for another id", dps.CodeUnauthorized, "token-other-resource", "", func(s *stage) answer {
			return s.ask(http.MethodGet, pollPath("registered", s.operation), "", "Authorization", sas(s.t, make([]byte, 32), "enrolled"))
		}},
		{"poll with an expired token that was not the redeemed one", dps.CodeUnauthorized, "token-expired", "", func(s *stage) answer {
			token := sasFor(s.t, make([]byte, 32), scope+"/registrations/registered", time.Now().Add(-time.Hour))
			return s.ask(http.MethodGet, pollPath("registered", s.operation), "", "Authorization", token)
		}},
		{"lookup with a token of another key", dps.CodeUnauthorized, "token-signature", "", func(s *stage) answer {
			return s.ask(http.MethodPost, lookupPath("registered"), contactBody("registered", s.registered), "Authorization", sas(s.t, make([]byte, 32), "registered"))
		}},
		{"the body names other keys than the redeemed challenge", dps.CodeBadRequest, "other-keys", "tpm.", func(s *stage) answer {
			return s.ask(http.MethodPut, registerPath("registered"), keysBody("registered", s.stranger.EK.Bytes(), s.registered.SRK.Bytes()), "Authorization", s.token)
		}},
		{"the body names another owner than the redeemed challenge", dps.CodeBadRequest, "other-keys", "tpm.", func(s *stage) answer {
			return s.ask(http.MethodPut, registerPath("registered"), keysBody("registered", s.registered.EK.Bytes(), s.stranger.SRK.Bytes()), "Authorization", s.token)
		}},
	}
	for name, authorization := range map[string]string{
		"no scheme": "sr=a&sig=b&se=1", "another scheme": "Bearer abc", "scheme alone": "SharedAccessSignature", "no sig": "SharedAccessSignature sr=a&se=1",
		"no se": "SharedAccessSignature sr=a&sig=" + strings.Repeat("A", 43) + "%3D", "sig too short": "SharedAccessSignature sr=a&sig=QUJD&se=1",
		"se not a number": "SharedAccessSignature sr=a&sig=" + strings.Repeat("A", 43) + "%3D&se=soon", "very long": "SharedAccessSignature sr=" + strings.Repeat("a", 5000),
		"sr twice":      "SharedAccessSignature sr=a&sr=b&sig=" + strings.Repeat("A", 43) + "%3D&se=1",
		"broken escape": "SharedAccessSignature sr=a%2&sig=" + strings.Repeat("A", 43) + "%3D&se=1",
	} {
		rows = append(rows, refusal{"malformed token: " + name, dps.CodeUnauthorized, "bad-token", "", func(s *stage) answer { return s.proof(authorization) }})
	}
	return rows
}

// keyRefusals are bad public areas, each as EK and as SRK.
func keyRefusals() []refusal {
	modulus := softtpm.New(softtpm.RSA, 1).EK.RSA.N.Bytes()
	even := slices.Clone(modulus)
	even[255] &^= 1
	short := slices.Clone(modulus)
	short[0] &^= 0x80
	point := softtpm.New(softtpm.ECC, 3).EK.ECC.PublicKey().Bytes()[1:]
	off := slices.Clone(point)
	off[63] ^= 1
	usual := area{attributes: srkAttributes}
	keyed := prefixed(append(area{kind: 8, attributes: 0x00040440}.head(8), 0, 5, 0, 0x0b, 0, 0))
	good := usual.rsa(2048, 0, modulus)
	rules := []struct {
		name, rule string
		key        []byte
	}{
		{"truncated", "size-prefix-mismatch", good[:200]},
		{"truncated to a byte", "truncated", good[:1]},
		{"trailing bytes", "size-prefix-mismatch", append(slices.Clone(good), 0)},
		{"oversized", "oversized", make([]byte, 700)},
		{"without size prefix", "size-prefix-mismatch", good[2:]},
		{"of another type", "unknown-type", keyed},
		{"a signing key", "sign-set", area{attributes: signAttributes, signs: true}.rsa(2048, 0, modulus)},
		{"an ECC signing key", "sign-set", area{attributes: signAttributes, signs: true}.ecc(3, point[:32], point[32:])},
		{"that could live elsewhere", "fixedTPM-clear", area{attributes: srkAttributes &^ 2}.rsa(2048, 0, modulus)},
		{"exponent 1", "exponent", usual.rsa(2048, 1, modulus)},
		{"exponent 3", "exponent", usual.rsa(2048, 3, modulus)},
		{"even modulus", "modulus-even", usual.rsa(2048, 0, even)},
		{"short modulus", "modulus-length", usual.rsa(2048, 0, modulus[:255])},
		{"modulus with its top bit clear", "modulus-short", usual.rsa(2048, 0, short)},
		{"RSA 1024", "rsa-size", usual.rsa(1024, 0, modulus[:128])},
		{"point off the curve", "point-off-curve", usual.ecc(3, point[:32], off[32:])},
		{"point at infinity", "point-off-curve", usual.ecc(3, make([]byte, 32), make([]byte, 32))},
		{"P-521", "curve", usual.ecc(5, point[:32], point[32:])},
	}
	var rows []refusal
	for _, role := range []struct{ member, short, reason string }{{"endorsementKey", "EK", "bad-ek"}, {"storageRootKey", "SRK", "bad-srk"}} {
		with := func(text string) func(*stage) answer {
			return func(s *stage) answer {
				keys := map[string]string{"endorsementKey": b64(s.enrolled.EK.Bytes()), "storageRootKey": b64(s.enrolled.SRK.Bytes())}
				keys[role.member] = text
				return s.put(fmt.Sprintf(`{"registrationId":"enrolled","tpm":{"endorsementKey":%q,"storageRootKey":%q}}`, keys["endorsementKey"], keys["storageRootKey"]))
			}
		}
		for _, r := range rules {
			says := "tpm." + role.member + ": " + role.short + " refused: " + r.rule
			rows = append(rows, refusal{role.short + " " + r.name, dps.CodeBadRequest, role.reason, says, with(b64(r.key))})
		}
		rows = append(rows,
			refusal{role.short + " not base64", dps.CodeBadRequest, "bad-request", "tpm." + role.member, with("-----BEGIN PUBLIC KEY-----")},
			refusal{role.short + " base64 of the URL alphabet", dps.CodeBadRequest, "bad-request", "tpm." + role.member, with("ATo_-A==")},
			refusal{role.short + " longer than any key", dps.CodeBadRequest, "bad-request", "tpm." + role.member, with(strings.Repeat("A", 5000))},
			refusal{role.short + " empty", dps.CodeBadRequest, "bad-request", "tpm." + role.member, with("")},
		)
	}
	return rows
}

func TestBadInputIsRefusedClearlyAndChangesNothing(t *testing.T) {
	s := newStage(t)
	for _, group := range [][]refusal{contactRefusals(), pathRefusals(), proofRefusals(), keyRefusals()} {
		for _, row := range group {
			t.Run(row.name, func(t *testing.T) {
				s.t = t
				before := s.snapshot()
				s.judge(t, row, row.ask(s))
				unchanged(t, before, s.snapshot())
			})
		}
	}
	s.t = t
	// After all that, both devices are as they were.
	s.ask(http.MethodGet, pollPath("registered", s.operation), "", "Authorization", s.token).want(200)
	s.prove("enrolled", s.enrolled)
}

// judge compares an answer with its row, and asks why with the operator's key.
func (s *stage) judge(t *testing.T, row refusal, got answer) {
	t.Helper()
	message := got.json("message")
	trackingID := got.json("trackingId")
	switch {
	case got.status != row.code.Status() || got.json("errorCode") != fmt.Sprint(int(row.code)):
		t.Fatalf("status %d, want %d with %d: %s", got.status, row.code.Status(), row.code, got.body)
	case strings.Contains(got.body, "authenticationKey"):
		t.Errorf("a refusal with a key: %s", got.body)
	case row.says == "" && message != row.code.Message():
		t.Errorf("message %q, want the code's own: %q", message, row.code.Message())
	case !strings.Contains(message, row.says):
		t.Errorf("message %q, want %q in it", message, row.says)
	}
	timed(t, got.json("timestampUtc"))
	if want := fmt.Sprintf(`{"errorCode":%d,"trackingId":"%s","message":%q,"timestampUtc":"%s"}`, row.code, got.header.Get("x-ms-request-id"), message, got.json("timestampUtc")); got.body != want {
		t.Errorf("body %s, want %s", got.body, want)
	}
	got.header.Del("Connection")
	headers(t, got, map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Ms-Request-Id": trackingID, "X-Ms-Error-Code": fmt.Sprint(int(row.code))})
	asked, elsewhere := host, otherHost
	if strings.HasPrefix(got.path, "/"+otherScope+"/") {
		asked, elsewhere = otherHost, host
	}
	if row.reason != "unknown-scope" { // which belong to nobody, so every operator may see them
		s.manage(elsewhere, http.MethodGet, "/latchkey/v1/decisions/"+trackingID, "").want(404)
	}
	if got := s.why(asked, trackingID); got.json("reason") != row.reason || got.json("meaning") == "" {
		t.Errorf("reason %q, want %q: %s", got.json("reason"), row.reason, got.body)
	}
}
