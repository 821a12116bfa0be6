package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/config"
)

const hubVersion = "?api-version=2021-04-12"

// hub calls the hub's service side as the owner and wants a status.
func (r *running) hub(method, path, body string, want int) map[string]any {
	r.t.Helper()
	status, answer, err := r.manage(r.client(), method, path+hubVersion, []byte(body))
	if err != nil || status != want {
		r.t.Fatalf("%s %s: %d %s %v, want %d", method, path, status, answer, err, want)
	}
	var object map[string]any
	_ = json.Unmarshal(answer, &object) // some answers are none
	return object
}

// What an application does to a device that was provisioned counts at once, and until the device proves itself again.
func TestAnApplicationKeepsAProvisionedDeviceOutUntilItProvesItselfAgain(t *testing.T) {
	r := installed(t).run(t)
	c := r.device(0)
	must(t, c.enroll())
	must(t, c.register())
	must(t, c.send("hello"))
	known := r.hub(http.MethodGet, "/devices/"+c.id, "", 200)
	if known["status"] != "enabled" {
		t.Errorf("known as %v", known)
	}
	for what, act := range map[string]func(){
		"disabled": func() {
			r.hub(http.MethodPost, "/devices", fmt.Sprintf(`[{"id":%q,"importMode":"update","status":"disabled"}]`, c.id), 200)
		},
		"given other keys": func() {
			key := strings.Repeat("QUJD", 8)
			r.hub(http.MethodPost, "/devices", fmt.Sprintf(`[{"id":%q,"importMode":"update","authentication":{"symmetricKey":{"primaryKey":%q}}}]`, c.id, key), 200)
		},
		"removed": func() { r.hub(http.MethodDelete, "/devices/"+c.id, "", 204) },
	} {
		password, err := c.password()
		must(t, err)
		session, err := c.login(password)
		must(t, err)
		act()
		if err := c.send("still here"); err == nil {
			t.Errorf("%s: the device is let in", what)
		}
		if err := settled(session.Publish("devices/"+c.id+"/messages/events/", 1, false, "still here")); err == nil && session.IsConnectionOpen() {
			t.Errorf("%s: its session goes on", what)
		}
		must(t, c.register())
		if err := c.send("back"); err != nil {
			t.Errorf("%s, and back: %v", what, err)
		}
		if now := r.hub(http.MethodGet, "/devices/"+c.id, "", 200); now["status"] != "enabled" {
			t.Errorf("%s, and back: %v", what, now)
		}
	}
	shown := r.hub(http.MethodGet, "/devices/"+c.id, "", 200)["authentication"].(map[string]any)["symmetricKey"].(map[string]any)["primaryKey"].(string)
	if shown == "" || strings.Contains(r.log.String(), shown) {
		t.Error("the key that was shown is in the log")
	}
}

func TestAHubAloneServesItsHubAndNothingElse(t *testing.T) {
	h := installed(t)
	r := h.run(t, func(o *Options) {
		o.Load = func() (config.Config, error) { return h.load(map[string]string{"provision": "false"}) }
	})
	r.hub(http.MethodPut, "/devices/d", `{"deviceId":"d"}`, 200)
	if status, body := r.probe("/readyz"); status != 200 || body != "ok: a hub alone, nothing is provisioned here\n" {
		t.Errorf("/readyz: %d %q", status, body)
	}
	for _, path := range []string{"/enrollments/e", "/enrollmentGroups/g", "/registrations/r", "/latchkey/v1/caCertificates", "/latchkey/v1/export", "/latchkey/v1/hubs", "/" + r.made.IDScope + "/registrations/r/operations/o", "/"} {
		status, body, err := r.manage(r.client(), http.MethodGet, path, nil)
		if err != nil || status != 404 || path != "/" && !strings.Contains(string(body), "hub alone") {
			t.Errorf("%s: %d %s %v", path, status, body, err)
		}
	}
	for _, path := range []string{"/latchkey/v1/accessPolicies", "/latchkey/v1/scopes", "/latchkey/v1/audit", "/latchkey/v1/openapi.json"} {
		if status, body, err := r.manage(r.client(), http.MethodGet, path, nil); err != nil || status != 200 {
			t.Errorf("%s: %d %s %v", path, status, body, err)
		}
	}
}
