package azure_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/registration"
)

// exchange is a request as it must come, byte for byte, and the answer to it.
type exchange struct {
	request, answer []string // first line, then header lines, sorted
	sent, body      string
}

// recorded reads testdata: ">>> METHOD URI", header lines, an empty line, the body; "<<< STATUS" and the like. They are written after the REST reference and what people
// have shown of answers (see the sources in package iothub), with names and keys of our own.
func recorded(t *testing.T, name string) (all []exchange) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".http"))
	if err != nil {
		t.Fatal(err)
	}
	part := func(text string) ([]string, string) {
		head, body, _ := strings.Cut(text, "\n\n")
		lines := strings.Split(strings.TrimSuffix(head, "\n"), "\n")
		slices.Sort(lines[1:])
		return lines, strings.TrimSuffix(body, "\n")
	}
	for _, one := range strings.Split(string(text), ">>> ")[1:] {
		sent, answer, found := strings.Cut(one, "<<< ")
		if !found {
			t.Fatalf("%s: a request without answer", name)
		}
		var e exchange
		e.request, e.sent = part(sent)
		e.answer, e.body = part(answer)
		all = append(all, e)
	}
	return all
}

// replay answers as it was recorded, and fails the test if it is asked anything else.
type replay struct {
	t     *testing.T
	key   []byte
	left  []exchange
	asked int
}

func (r *replay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.asked++
	body, err := io.ReadAll(req.Body)
	if err != nil || len(r.left) == 0 {
		r.t.Errorf("request %d: %s %s, %v: there is none any more", r.asked, req.Method, req.URL, err)
		return
	}
	e := r.left[0]
	r.left = r.left[1:]
	got := []string{req.Method + " " + req.RequestURI}
	for name, values := range req.Header {
		if !slices.Contains([]string{"Authorization", "User-Agent", "Content-Length", "Accept-Encoding"}, name) {
			got = append(got, name+": "+strings.Join(values, "|"))
		}
	}
	slices.Sort(got[1:])
	if !reflect.DeepEqual(got, e.request) || string(body) != e.sent {
		r.t.Errorf("request %d is\n%q\n%s\nwant\n%q\n%s", r.asked, got, body, e.request, e.sent)
	}
	token, err := dps.ParseToken(req.Header.Get("Authorization"))
	if err != nil || !token.Verify(r.key) || token.Resource != "example.com" || token.KeyName != "latchkey" || time.Until(token.Expiry) > time.Hour {
		r.t.Errorf("request %d is signed with %v, %v", r.asked, token, err)
	}
	for _, line := range e.answer[1:] {
		name, value, _ := strings.Cut(line, ": ")
		w.Header().Set(name, value)
	}
	status, err := strconv.Atoi(e.answer[0])
	if err != nil {
		r.t.Error(err)
	}
	w.WriteHeader(status)
	io.WriteString(w, e.body)
}

// hubName is name where a test case has a name of its own.
const hubName = name

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func TestRecordedExchanges(t *testing.T) {
	certificate, err := hex.DecodeString(strings.Repeat("ab", 32))
	if err != nil {
		t.Fatal(err)
	}
	first := registration.Credential{Primary: key(0xa1)}
	twin := data(`{"line":4}`, `{"rate":5}`, `{"temp":1}`)
	twin.IoTEdge = true
	for name, c := range map[string]struct {
		do   func(h *azure.Hub) error
		want func(err error) bool // nil: no error
	}{
		"create-with-twin": {do: func(h *azure.Hub) error { return h.EnsureDevice(t.Context(), scope, hubName, wanted(first, 42, twin)) }},
		"new-owner": {do: func(h *azure.Hub) error {
			return h.EnsureDevice(t.Context(), scope, hubName, wanted(registration.Credential{Primary: key(0xb2), Secondary: key(0xc3)}, 43, nil))
		}},
		"certificate-of-2016-shape": {do: func(h *azure.Hub) error {
			return h.EnsureDevice(t.Context(), scope, hubName, wanted(registration.Credential{Certificate: certificate}, 44, nil))
		}},
		"remove":  {do: func(h *azure.Hub) error { return h.RemoveDevice(t.Context(), scope, hubName, device, 43) }},
		"disable": {do: func(h *azure.Hub) error { return h.DisableDevice(t.Context(), scope, hubName, device, 43) }},
		"data": {do: func(h *azure.Hub) error {
			got, err := h.DeviceData(t.Context(), scope, hubName, device)
			if s := fmt.Sprintf("%s %s %s", got.Tags, got.Desired, got.Reported); err == nil && s != `{"line":4,"place":{"hall":"north"}} {"rate":5} {"temp":21.5}` {
				return errors.New(s)
			}
			return err
		}},
		"raced": {do: func(h *azure.Hub) error { return h.EnsureDevice(t.Context(), scope, hubName, wanted(first, 42, nil)) },
			want: func(err error) bool { return errors.Is(err, registration.ErrStale) }},
		"unauthorized": {do: func(h *azure.Hub) error { return h.EnsureDevice(t.Context(), scope, hubName, wanted(first, 42, nil)) },
			want: func(err error) bool { // as the imitated service shows it to the device
				var refused *registration.RefusedError
				return errors.As(err, &refused) && refused.Message == "ErrorCode:IotHubUnauthorizedAccess;Unauthorized"
			}},
		"throttled": {do: func(h *azure.Hub) error { return h.EnsureDevice(t.Context(), scope, hubName, wanted(first, 42, nil)) },
			want: func(err error) bool {
				var retry *registration.RetryError
				return errors.As(err, &retry) && retry.After == 10*time.Second
			}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			r := &replay{t: t, key: f.key, left: recorded(t, name)}
			f.server.Config.Handler = r
			err := c.do(f.open(nil))
			if c.want == nil && err != nil || c.want != nil && !c.want(err) {
				t.Errorf("it ends in %v", err)
			}
			if len(r.left) != 0 {
				t.Errorf("%d requests did not come", len(r.left))
			}
		})
	}
}

// A hub may write into its answers whatever it likes, what we sent to it among that; and what the operator has given us is nobody's to see.
func TestNoSecretLeaves(t *testing.T) {
	f := newFake(t)
	var logged bytes.Buffer
	credential := registration.Credential{Primary: []byte("canary-of-the-device-1"), Secondary: []byte("canary-of-the-device-2")}
	secrets := []string{base64.StdEncoding.EncodeToString(credential.Primary), base64.StdEncoding.EncodeToString(credential.Secondary), "canary", base64.StdEncoding.EncodeToString(f.key), string(f.key), "sig="}
	f.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // a hub that tells all it hears
		body, _ := io.ReadAll(r.Body)
		if r.Method == "GET" {
			status, answer := f.refuse(404001)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			io.WriteString(w, answer)
			return
		}
		w.WriteHeader(400)
		token := r.Header.Get("Authorization")
		_, signed, _ := strings.Cut(token, "sig=")
		signed, _, _ = strings.Cut(signed, "&")
		var keys []string
		scanner := bufio.NewScanner(strings.NewReader(strings.ReplaceAll(string(body), `"`, "\n")))
		for scanner.Scan() {
			if decoded, err := base64.StdEncoding.DecodeString(scanner.Text()); err == nil && len(decoded) >= 16 {
				keys = append(keys, scanner.Text())
			}
		}
		if len(keys) != 2 || signed == "" {
			t.Errorf("the control: the hub hears %d keys, %q", len(keys), signed)
		}
		fmt.Fprintf(w, `{"Message":"ErrorCode:ArgumentInvalid;%s %s %s","ExceptionMessage":"Tracking ID:%s"}`, keys[0], keys[1], signed, signed)
		secrets = append(secrets, signed)
	})
	h := f.open(func(c *azure.Config) { c.Log = logTo(&logged) })
	err := h.EnsureDevice(t.Context(), scope, name, wanted(credential, 1, nil))
	var refused *registration.RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("the hub refuses: %v", err)
	}
	config := f.config()
	shown := fmt.Sprintf("%v %+v %s %v %s %+v %v", err, err, refused.Message, h.State(), logged.String(), config.Connection, wanted(credential, 1, nil))
	for _, secret := range secrets {
		if strings.Contains(shown, secret) {
			t.Errorf("%q is in %s", secret, shown)
		}
	}
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		for _, secret := range secrets {
			if strings.Contains(fmt.Sprintf("%+v", cause), secret) {
				t.Errorf("%q is in %+v", secret, cause)
			}
		}
	}
}
