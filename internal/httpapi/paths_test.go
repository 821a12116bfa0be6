package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/web"
	"latchkey.example/latchkey/test/softtpm"
)

// Each of these is one client's habit, or allowed by the way URLs are written.
func TestEverySpellingOfAPathReachesItsDevice(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	const id = "Line:4-Press"
	h.enroll(id, c, "")
	for _, path := range []string{
		"/" + scope + "/registrations/Line:4-Press/register",
		"/" + scope + "/registrations/Line%3A4-Press/register",
		"/" + scope + "/registrations/Line%3a4%2DPress/register",
		"/" + scope + "/registrations/line:4-press/register",
		"/" + scope + "/registrations/LINE%3A4-PRESS/register/",
		"/" + scope + "/Registrations/Line:4-Press/REGISTER",
		"/0lk%4Fne/registrations/Line:4-Press/register",
	} {
		h.ask(http.MethodPut, path+version, contactBody(id, c)).want(401).blob("authenticationKey")
	}
	token := sas(t, h.contact(id, c), id)
	operation := h.ask(http.MethodPut, registerPath("line%3A4-press"), contactBody("LINE:4-PRESS", c), "Authorization", token).want(202).json("operationId")
	for _, path := range []string{
		"/" + scope + "/registrations/Line:4-Press/operations/" + operation,
		"/" + scope + "/registrations/line%3a4-press/Operations/" + operation + "/",
		"/" + scope + "/REGISTRATIONS/LINE:4-PRESS/operations/" + strings.ReplaceAll(operation, "-", "%2D"),
	} {
		h.ask(http.MethodGet, path+version, "", "Authorization", token).want(200)
	}
	h.ask(http.MethodPost, "/"+scope+"/Registrations/Line%3A4-Press/"+version, contactBody(id, c)).want(401)
	// The scope is a name of ours, not of the client's: its letters count.
	h.ask(http.MethodPut, "/"+strings.ToLower(scope)+"/registrations/Line:4-Press/register"+version, contactBody(id, c)).want(404)
}

func TestEveryKnownAPIVersionIsServedAlike(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("versioned", c, "")
	for _, v := range []string{"2017-08-31-preview", "2017-11-15", "2018-04-01", "2018-09-01-preview", "2019-03-31", "2021-06-01", "2021-10-01",
		"2025-07-01-preview", "2026-04-01", "2026-07-01-preview", "2026-11-01", "2026-11-02-preview", "2026-11-15-preview"} {
		for _, query := range []string{"?api-version=" + v, "?api-version=" + v + "&forceRegistration=true"} {
			h.ask(http.MethodPut, "/"+scope+"/registrations/versioned/register"+query, contactBody("versioned", c)).want(401).blob("authenticationKey")
		}
	}
}

// What the SDKs send besides what the protocol asks for.
func TestHabitsOfClientsDoNoHarm(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.RSA, 0)
	h.enroll("habits", c, "")
	// The C client escapes slashes inside base64.
	escaped := strings.ReplaceAll(contactBody("habits", c), "/", `\/`)
	if !strings.Contains(escaped, `\/`) {
		t.Fatal("the keys have no slash in their base64: choose others")
	}
	contact := h.ask(http.MethodPut, registerPath("habits"), escaped, "UserAgent", "prov_device_client/1.0", "Host", "one.example.net:443", "Accept", "application/json").want(401)
	key, err := c.Open(contact.blob("authenticationKey"))
	must(t, err)
	token := sas(t, key, "habits")
	for _, contentType := range []string{"application/json", "application/json;charset=UTF-8", "Application/JSON; charset=utf-8"} {
		h.ask(http.MethodPut, registerPath("habits"), escaped, "Content-Type", contentType).want(401)
	}
	body := strings.Replace(escaped, "{", `{"payload":{"a":[1,2]},"unknown":null,`, 1)
	operation := h.ask(http.MethodPut, registerPath("habits"), body, "Authorization", token, "Request-Id", "b2f0a1d0", "User-Agent", "node").want(202).json("operationId")
	// Node's GET has a body, C's has a content type and no body.
	h.ask(http.MethodGet, pollPath("habits", operation), "{}", "Authorization", token).want(200)
	h.ask(http.MethodGet, pollPath("habits", operation), "{}", "Authorization", token, "Content-Type", "").want(200)
	h.ask(http.MethodGet, pollPath("habits", operation), "", "Authorization", token, "Content-Type", "application/json").want(200)
}

// Base64 with line breaks or without padding is the same key.
func TestAKeyMayBeSpelledWithLineBreaks(t *testing.T) {
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.ECC, 0)
	h.enroll("wrapped", c, "")
	ek := b64(c.EK.Bytes())
	for _, spelling := range []string{ek[:64] + `\r\n` + ek[64:], strings.TrimRight(ek, "="), " " + ek + `\n`} {
		body := fmt.Sprintf(`{"tpm":{"endorsementKey":"%s","storageRootKey":"%s"}}`, spelling, b64(c.SRK.Bytes()))
		h.ask(http.MethodPut, registerPath("wrapped"), body).want(401).blob("authenticationKey")
	}
}
