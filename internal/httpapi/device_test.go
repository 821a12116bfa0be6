package httpapi_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/softtpm"
)

// keysBody is the usual register body.
func keysBody(id string, ek, srk []byte) string {
	return fmt.Sprintf(`{"registrationId":%q,"tpm":{"endorsementKey":%q,"storageRootKey":%q}}`, id, b64(ek), b64(srk))
}

// contactBody is the one of a device that tells the truth.
func contactBody(id string, c *softtpm.TPM) string { return keysBody(id, c.EK.Bytes(), c.SRK.Bytes()) }

func registerPath(id string) string {
	return "/" + scope + "/registrations/" + id + "/register" + version
}

func pollPath(id, operation string) string {
	return "/" + scope + "/registrations/" + id + "/operations/" + operation + version
}

func lookupPath(id string) string { return "/" + scope + "/registrations/" + id + version }

// contact makes a first contact and opens the challenge.
func (h *house) contact(id string, c *softtpm.TPM) []byte {
	h.t.Helper()
	key, err := c.Open(h.ask(http.MethodPut, registerPath(id), contactBody(id, c)).want(401).blob("authenticationKey"))
	must(h.t, err)
	return key
}

// sas is a SAS token for a registration as most clients spell it.
func sas(t testing.TB, key []byte, id string) string {
	t.Helper()
	return sasFor(t, key, scope+"/registrations/"+id, time.Now().Add(time.Hour))
}

func sasFor(t testing.TB, key []byte, resource string, expiry time.Time) string {
	t.Helper()
	token, err := dps.NewToken(dps.KeySigner(key), resource, expiry, dps.KeyNameRegistration)
	must(t, err)
	return token
}

// spelled is a SAS token whose every part is spelled by hand: sr as it is to stand in the token, and the order of the fields.
func spelled(key []byte, sr string, expiry time.Time, format string) string {
	se := fmt.Sprint(expiry.Unix())
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(sr + "\n" + se))
	sig := url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return strings.NewReplacer("{sr}", sr, "{se}", se, "{sig}", sig, "{SIG}", lowerEscapes(sig)).Replace(format)
}

// lowerEscapes writes %2B as %2b.
func lowerEscapes(s string) string {
	return strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d", "%3A", "%3a").Replace(s)
}

// prove makes a whole registration and gives the final answer and the hub key inside it.
func (h *house) prove(id string, c *softtpm.TPM) (operation string, hubKey []byte) {
	h.t.Helper()
	token := sas(h.t, h.contact(id, c), id)
	accepted := h.ask(http.MethodPut, registerPath(id), contactBody(id, c), "Authorization", token).want(202)
	operation = accepted.json("operationId")
	assigned := h.ask(http.MethodGet, pollPath(id, operation), "", "Authorization", token).want(200)
	hubKey, err := c.Open(assigned.blob("registrationState", "tpm", "authenticationKey"))
	must(h.t, err)
	return operation, hubKey
}
