package e2e

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
)

// picker is an allocation webhook: what it answers is said by the path. It notes what it was asked.
type picker struct {
	*httptest.Server
	hub string

	mu    sync.Mutex
	asked map[string][]question
}

type question struct {
	header http.Header
	body   []byte
}

func newPicker(t *testing.T, hub string) (*picker, string) {
	p := &picker{hub: hub, asked: map[string][]question{}}
	p.Server = httptest.NewTLSServer(p)
	t.Cleanup(p.Close)
	ca := filepath.Join(t.TempDir(), "webhook-ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return p, ca
}

func (p *picker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.asked[r.URL.Path] = append(p.asked[r.URL.Path], question{r.Header, body})
	times := len(p.asked[r.URL.Path])
	p.mu.Unlock()
	switch r.URL.Path {
	case "/good":
		fmt.Fprintf(w, `{"iotHubHostName":%q,"initialTwin":{"tags":{"line":4}},"payload":{"tier":7}}`, p.hub)
	case "/weak":
		if times == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"iotHubHostName":%q}`, p.hub)
	case "/no":
		http.Error(w, "not this device", http.StatusBadRequest)
	case "/elsewhere":
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
	case "/garbage":
		_, _ = w.Write([]byte("\x1f\x8b<html>"))
	case "/huge":
		_, _ = w.Write(append([]byte(`{"iotHubHostName":"`+p.hub+`","x":"`), bytes.Repeat([]byte("x"), 10<<20)...))
	case "/unlinked":
		_, _ = w.Write([]byte(`{"iotHubHostName":"hub.of.somebody.else"}`))
	}
}

func (p *picker) questions(path string) []question {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

var presenceKey = []byte("0123456789abcdef0123456789abcdef")

// enrollCustom makes an entry for a symmetric key whose hub a webhook chooses.
func enrollCustom(t *testing.T, service *rig.Service, id, url string) {
	t.Helper()
	key := base64.StdEncoding.EncodeToString(presenceKey)
	body := fmt.Sprintf(`{"registrationId":%q,"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":%q,"secondaryKey":%q}},"allocationPolicy":"custom",
		"customAllocationDefinition":{"webhookUrl":%q,"apiVersion":"2021-10-01"}}`, id, key, key, url)
	if err := service.Put(t.Context(), "/enrollments/"+id, body); err != nil {
		t.Fatal(err)
	}
}

// presence registers a device with a symmetric key, as an SDK does, and returns what it is shown in the end.
func presence(t *testing.T, service *rig.Service, id, payload string) dps.OperationStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path := "/" + service.IDScope + "/registrations/" + id
	token, err := dps.NewToken(dps.KeySigner(presenceKey), service.IDScope+"/registrations/"+id, time.Now().Add(time.Hour), "registration")
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, path, body string) (status dps.OperationStatus) {
		t.Helper()
		request, err := http.NewRequestWithContext(ctx, method, service.URL(path+"?api-version=2019-03-31"), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", token)
		request.Header.Set("Content-Type", "application/json")
		response, err := service.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode > 299 || json.Unmarshal(text, &status) != nil {
			t.Fatalf("%s %s: %d %s, %v", method, path, response.StatusCode, text, err)
		}
		return status
	}
	first := call(http.MethodPut, path+"/register", fmt.Sprintf(`{"registrationId":%q,"payload":%s}`, id, payload))
	last, err := rig.Poll(ctx, func() (dps.OperationStatus, bool, error) {
		now := call(http.MethodGet, path+"/operations/"+first.OperationID, "")
		return now, now.Status != dps.StatusAssigning, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

func TestAWebhookChoosesTheHubOfADevice(t *testing.T) {
	picker, ca := newPicker(t, rig.DefaultHost)
	service := rig.New(t, rig.Config{Flags: []string{"--webhooks-private", "127.0.0.1,::1", "--webhooks-ca", ca}})
	key := webhookKey(t, service)
	// What each answer comes to: empty is assigned, else the sentence that the device is shown.
	for path, want := range map[string]string{
		"/good": "", "/weak": "",
		"/no":        "Custom allocation failed with status code: 400",
		"/elsewhere": "Custom allocation failed with status code: 302",
		"/garbage":   "cannot be used",
		"/huge":      "longer than 65536 bytes",
		"/unlinked":  "a hub that it was not offered",
	} {
		t.Run(path[1:], func(t *testing.T) {
			id := "device-" + path[1:]
			enrollCustom(t, service, id, picker.URL+path+"?code=s3cret")
			got := presence(t, service, id, `{"model": "P7"}`)
			state := got.RegistrationState
			switch {
			case want == "" && (got.Status != dps.StatusAssigned || state.AssignedHub != rig.DefaultHost):
				t.Errorf("it ended as %+v", state)
			case want != "" && (got.Status != dps.StatusFailed || state.ErrorCode != dps.CodeAllocationFailed || !strings.Contains(state.ErrorMessage, want)):
				t.Errorf("it ended as %+v, want %q", state, want)
			}
		})
	}
	asked := picker.questions("/good")
	if len(asked) != 1 {
		t.Fatalf("/good was asked %d times", len(asked))
	}
	wantQuestion(t, asked[0].body)
	if !signedBy(key, asked[0]) || signedBy(append(bytes.Clone(key[1:]), 0), asked[0]) {
		t.Errorf("the question is not signed with the scope's key: %v", asked[0].header)
	}
	if weak := picker.questions("/weak"); len(weak) != 2 || weak[0].header.Get("Webhook-Id") == "" || weak[0].header.Get("Webhook-Id") != weak[1].header.Get("Webhook-Id") {
		t.Errorf("/weak was asked as %+v", weak)
	}
	for _, path := range []string{"/no", "/elsewhere", "/garbage", "/huge", "/unlinked"} {
		if n := len(picker.questions(path)); n != 1 {
			t.Errorf("%s was asked %d times", path, n)
		}
	}
	if strings.Contains(service.Log(), "s3cret") {
		t.Error("the URL's query is in the log")
	}
}

// wantQuestion looks at the question as a receiver that was written for the imitated service reads it.
func wantQuestion(t *testing.T, body []byte) {
	t.Helper()
	var q struct {
		IndividualEnrollment struct {
			RegistrationID string
			Attestation    map[string]any
		}
		DeviceRuntimeContext struct {
			RegistrationID string
			SymmetricKey   *struct{}
			Payload        map[string]string
		}
		LinkedHubs []string
	}
	if err := json.Unmarshal(body, &q); err != nil {
		t.Fatal(err)
	}
	if q.IndividualEnrollment.RegistrationID != "device-good" || len(q.IndividualEnrollment.Attestation) != 1 || q.DeviceRuntimeContext.RegistrationID != "device-good" ||
		q.DeviceRuntimeContext.SymmetricKey == nil || q.DeviceRuntimeContext.Payload["model"] != "P7" || len(q.LinkedHubs) != 1 || q.LinkedHubs[0] != rig.DefaultHost {
		t.Errorf("it was asked %s", body)
	}
	if bytes.Contains(body, []byte(base64.StdEncoding.EncodeToString(presenceKey))) {
		t.Error("the webhook is told the device's key")
	}
}

// An operator of one tenant names a URL on the machine that runs the service.
func TestAWebhookOnThisMachineIsNotCalled(t *testing.T) {
	picker, ca := newPicker(t, rig.DefaultHost)
	service := rig.New(t, rig.Config{Flags: []string{"--webhooks-ca", ca}})
	enrollCustom(t, service, "device-1", picker.URL+"/good")
	got := presence(t, service, "device-1", "null")
	if got.Status != dps.StatusFailed || got.RegistrationState.ErrorCode != dps.CodeAllocationFailed || !strings.Contains(got.RegistrationState.ErrorMessage, "does not call") {
		t.Errorf("it ended as %+v", got.RegistrationState)
	}
	if n := len(picker.questions("/good")); n != 0 {
		t.Errorf("it was called %d times", n)
	}
}

// signedBy checks a call as the text of Standard Webhooks tells receivers to.
func signedBy(key []byte, q question) bool {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", q.header.Get("Webhook-Id"), q.header.Get("Webhook-Timestamp"), q.body)
	return q.header.Get("Webhook-Signature") == "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// webhookKey makes the key that signs questions, and gives it as a receiver's library reads it.
func webhookKey(t *testing.T, service *rig.Service) []byte {
	t.Helper()
	text, err := service.Call(t.Context(), http.MethodPost, "/latchkey/v1/allocation/webhookKey", "")
	if err != nil {
		t.Fatal(err)
	}
	var shown struct{ WebhookKey string }
	if err := json.Unmarshal(text, &shown); err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(shown.WebhookKey, "whsec_"))
	if err != nil || len(key) < 24 {
		t.Fatalf("the key has %d bytes, %v", len(key), err)
	}
	return key
}
