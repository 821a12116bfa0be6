package brokerapi_test

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/registration"
)

// What each product sends, what it means, and what it is told, byte for byte. RabbitMQ's requests are those of RabbitMQ 3.10.8; the others were made by
// the rules of EMQX 5's documentation, VerneMQ's vmq_webhooks_plugin, NanoMQ's auth_http and mosquitto-go-auth's backends/http.go.
func TestEachProductIsUnderstoodAndAnsweredInItsWords(t *testing.T) {
	const (
		sdkUser  = "broker.example/dev-1/?api-version=2021-04-12&DeviceClientType=py-azure-iot-device%2F1.0"
		rabbitY  = "200 text/plain allow"
		rabbitN  = "200 text/plain deny"
		rabbit5  = "503 text/plain deny"
		emqxY    = `200 application/json {"result":"allow","is_superuser":false}`
		emqxIn   = `200 application/json {"result":"allow","is_superuser":false,"expire_at":1800000000}`
		emqxN    = `200 application/json {"result":"deny","is_superuser":false}`
		verneY   = `200 application/json {"result":"ok"}`
		verneN   = `200 application/json {"result":{"error":"not_allowed"}}`
		statusY  = `200 application/json {"ok":true,"error":""}`
		statusN  = `403 application/json {"ok":false,"error":"not allowed"}`
		status5  = `503 application/json {"ok":false,"error":"not allowed"}`
		loginOne = `login broker.example dev-1 dev-1 ` + token + ` ""`
		bound    = "devices/dev-1/messages/devicebound/#"
	)
	for name, c := range map[string]struct {
		asked        string
		yes, no, err string
	}{
		"rabbitmq-user":              {"login broker.example " + sdkUser + " dev-1 " + token + ` ""`, rabbitY, rabbitN, rabbit5},
		"rabbitmq-vhost":             {"", rabbitY, rabbitN, rabbit5},
		"rabbitmq-resource-queue":    {"", rabbitY, rabbitN, rabbit5},
		"rabbitmq-resource-exchange": {"", rabbitY, rabbitN, rabbit5},
		"rabbitmq-topic-subscribe":   {"topic broker.example " + sdkUser + " dev-1 devices/dev-1/messages/devicebound/# true", rabbitY, rabbitN, rabbit5},
		"rabbitmq-topic-publish":     {"topic broker.example dev-2 dev-2 devices/dev-2/messages/events/a/b=1&c=* false", rabbitY, rabbitN, rabbit5},
		"emqx-login":                 {loginOne, emqxIn, emqxN, emqxN},
		"emqx-login-certificate": {"login broker.example dev-1 dev-1  \"-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n\"",
			emqxIn, emqxN, emqxN},
		"emqx-topic-publish":        {"topic broker.example dev-1 dev-1 devices/dev-1/messages/events/ false", emqxY, emqxN, emqxN},
		"emqx-topic-subscribe":      {"topic broker.example dev-1 dev-1 " + bound + " true", emqxY, emqxN, emqxN},
		"vernemq-register":          {loginOne, verneY, verneN, verneN},
		"vernemq-register-m5":       {loginOne, verneY, verneN, verneN},
		"vernemq-publish":           {"topic broker.example dev-1 dev-1 devices/dev-1/messages/events/ false", verneY, verneN, verneN},
		"vernemq-subscribe":         {"topic broker.example dev-1 dev-1 " + bound + " true|topic broker.example dev-1 dev-1 fleet/news true", verneY, verneN, verneN},
		"vernemq-subscribe-m5":      {"topic broker.example dev-1 dev-1 " + bound + " true", verneY, verneN, verneN},
		"nanomq-login":              {loginOne, statusY, statusN, status5},
		"nanomq-login-form":         {loginOne, statusY, statusN, status5},
		"nanomq-superuser":          {"", statusN, statusN, statusN},
		"nanomq-topic-publish":      {"topic broker.example dev-1 dev-1 devices/dev-1/messages/events/a,b false", statusY, statusN, status5},
		"nanomq-topic-subscribe":    {"topic broker.example dev-1 dev-1 " + bound + " true|topic broker.example dev-1 dev-1 fleet/news true", statusY, statusN, status5},
		"mosquitto-login":           {loginOne, statusY, statusN, status5},
		"mosquitto-superuser":       {"", statusN, statusN, statusN},
		"mosquitto-topic-deliver":   {"topic broker.example dev-1 dev-1 devices/dev-1/messages/devicebound/x true", statusY, statusN, status5},
		"mosquitto-topic-publish":   {"topic broker.example dev-1 dev-1 devices/dev-1/messages/events/ false", statusY, statusN, status5},
		"mosquitto-topic-both":      {"topic broker.example dev-1 dev-1 devices/dev-1/x false|topic broker.example dev-1 dev-1 devices/dev-1/x true", statusY, statusN, status5},
		"mosquitto-topic-subscribe": {"topic broker.example dev-1 dev-1 " + bound + " true", statusY, statusN, status5},
		"mosquitto-topic-form":      {"topic broker.example dev-1 dev-1 " + bound + " true", statusY, statusN, status5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			product, _, _ := strings.Cut(name, "-")
			h := newHouse(t, product)
			if got := h.send(recorded(t, name)); got != c.yes {
				t.Errorf("yes is %s", got)
			}
			if got := strings.Join(h.hubs.asked, "|"); got != c.asked {
				t.Errorf("asked: %s\nwant:  %s", got, c.asked)
			}
			h.hubs.why = registration.ReasonTokenSignature
			if got := h.send(recorded(t, name)); got != c.no {
				t.Errorf("no is %s", got)
			}
			h.hubs.why, h.hubs.err = registration.ReasonStoreDown, errStore
			if got := h.send(recorded(t, name)); got != c.err {
				t.Errorf("a failure is %s", got)
			}
			if strings.Contains(h.log.String(), "sig=") || strings.Contains(h.log.String(), secret) {
				t.Error("a secret is in the log")
			}
			// Nobody who does not show the secret learns that there is such a hub.
			h.hubs.product = ""
			stranger := recorded(t, name)
			stranger.Header.Del("Authorization")
			stranger.URL.Path = strings.Replace(stranger.URL.Path, secret, "another-secret", 1)
			if got := h.send(stranger); !strings.HasPrefix(got, "401 application/json {\"errorCode\":401002") {
				t.Errorf("a stranger is told %s", got)
			}
		})
	}
}

// Every recorded request is in the table above.
func TestNoRecordingIsForgotten(t *testing.T) {
	files, err := os.ReadDir("testdata")
	must(t, err)
	source, err := os.ReadFile("dialects_test.go")
	must(t, err)
	recordings := 0
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".http"); ok {
			recordings++
			if !strings.Contains(string(source), `"`+name+`":`) {
				t.Errorf("%s is not used", f.Name())
			}
		}
	}
	if recordings < 20 {
		t.Errorf("there are %d recordings", recordings)
	}
}

// A session at RabbitMQ needs its own queues and the exchange of topics, and nothing else there is.
func TestRabbitMQGivesADeviceItsOwnSessionAlone(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	base := "username=dev-1&vhost=%2F&tags=&client_id=dev-1"
	for body, want := range map[string]string{
		base + "&resource=queue&name=mqtt-subscription-dev-1qos0&permission=write":                          "allow",
		base + "&resource=queue&name=mqtt-subscription-dev-1qos1&permission=read":                           "allow",
		base + "&resource=queue&name=mqtt-subscription-dev-12qos1&permission=read":                          "deny",
		base + "&resource=queue&name=mqtt-subscription-dev-2qos1&permission=configure":                      "deny",
		base + "&resource=queue&name=orders&permission=read":                                                "deny",
		base + "&resource=exchange&name=amq.topic&permission=write":                                         "allow",
		base + "&resource=exchange&name=amq.topic&permission=configure":                                     "deny",
		base + "&resource=exchange&name=amq.default&permission=write":                                       "deny",
		base + "&resource=exchange&name=&permission=write":                                                  "deny",
		"username=dev-1&vhost=other&tags=&client_id=dev-1&resource=exchange&name=amq.topic&permission=read": "deny",
		"username=dev-1&vhost=%2F&tags=&resource=exchange&name=amq.topic&permission=read":                   "deny", // another protocol
		base + "&resource=exchange&name=amq.topic&permission=write&name=amq.topic":                          "400",
		base + "&resource=exchange&name=amq.topic&permission=%zz":                                           "400",
	} {
		h := newHouse(t, "rabbitmq")
		got := h.send(request(http.MethodPost, "/latchkey/v1/broker/broker.example/resource", form, body))
		if got != "200 text/plain "+want && got != want+" text/plain deny" {
			t.Errorf("%s: %s", body, got)
		}
	}
	h := newHouse(t, "rabbitmq")
	for query, want := range map[string]string{
		"permission=read&routing_key=devices.%2A.x&name=amq.topic&resource=topic":  "topic broker.example dev-1 dev-1 devices/+/x true",
		"permission=write&routing_key=devices.%2A.x&name=amq.topic&resource=topic": "topic broker.example dev-1 dev-1 devices/*/x false",
		"permission=configure&routing_key=a&name=amq.topic&resource=topic":         "",
		"permission=read&routing_key=a&name=another&resource=topic":                "",
	} {
		h.hubs.asked = nil
		answer := h.send(request(http.MethodGet, "/latchkey/v1/broker/broker.example/topic?username=dev-1&vhost=%2F&variable_map.client_id=dev-1&"+query, "", ""))
		if got := strings.Join(h.hubs.asked, "|"); got != want || (answer == "200 text/plain allow") != (want != "") {
			t.Errorf("%s: asked %q, answered %s", query, got, answer)
		}
	}
}

// One filter that is not allowed spoils a SUBSCRIBE where there is one answer for all of it.
func TestOneFilterThatIsRefusedRefusesThemAll(t *testing.T) {
	for product, name := range map[string]string{"vernemq": "vernemq-subscribe", "nanomq": "nanomq-topic-subscribe"} {
		h := newHouse(t, product)
		h.hubs.refuses = "fleet/news"
		if got := h.send(recorded(t, name)); strings.Contains(got, "ok\"}") || strings.Contains(got, "true") {
			t.Errorf("%s: %s", product, got)
		}
	}
}

func TestQuestionsOfAnotherProductOrNoneAreRefused(t *testing.T) {
	for product, paths := range map[string][]string{
		"rabbitmq": {"login", "hook", "User", "user/x"}, "emqx": {"user", "hook", "superuser"}, "vernemq": {"login", "topic"}, "mosquitto": {"hook", ""},
	} {
		h := newHouse(t, product)
		for _, path := range paths {
			if got := h.send(request(http.MethodPost, "/latchkey/v1/broker/broker.example/"+path, "", "")); !strings.HasPrefix(got, "404") && !strings.HasPrefix(got, "401") {
				t.Errorf("%s is asked %q and answers %s", product, path, got)
			}
		}
		if len(h.hubs.asked) > 0 {
			t.Errorf("%s: %v", product, h.hubs.asked)
		}
	}
	h := newHouse(t, "emqx")
	for _, r := range []*http.Request{
		request(http.MethodDelete, "/latchkey/v1/broker/broker.example/login", "", ""),
		request(http.MethodPost, "/latchkey/v1/broker/broker.example/login", "text/plain", "username=dev-1"),
		request(http.MethodPost, "/latchkey/v1/broker/broker.example/login", "application/json", `["username"]`),
		request(http.MethodPost, "/latchkey/v1/broker/broker.example/login", "application/json", `{"username":"a","username":"b"}`),
		request(http.MethodPost, "/latchkey/v1/broker/broker.example/login", "application/json", `{"username":"a"} {}`),
		request(http.MethodPost, "/latchkey/v1/broker/broker.example/topic", "application/json", `{"username":"a","topic":"x","action":"all"}`),
		request(http.MethodPost, "/latchkey/v1/broker/broker.example/topic", "application/json", `{"password":"`+strings.Repeat("x", 100<<10)+`"}`),
		request(http.MethodPost, "/latchkey/v1/broker/broker.example/topic", "application/x-www-form-urlencoded", strings.Repeat("a&", 100)),
	} {
		if got := h.send(r); strings.Contains(got, "allow") {
			t.Errorf("%s %s: %s", r.Method, r.URL, got)
		}
	}
	if len(h.hubs.asked) > 0 {
		t.Errorf("asked: %v", h.hubs.asked)
	}
}

// A refused login is found by its tracking id, under the device that tried.
func TestARefusedLoginIsWrittenDownWithItsReason(t *testing.T) {
	h := newHouse(t, "rabbitmq")
	h.hubs.why = registration.ReasonTokenExpired
	h.send(recorded(t, "rabbitmq-user"))
	line := h.lastLine()
	if line["reason"] != "token-expired" || line["id"] != "dev-1" || line["scope"] != scope || line["operation"] != "broker-user" || line["api"] != "broker" || line["from"] != "192.0.2.7" {
		t.Errorf("the line is %v", line)
	}
	why, err := h.core.Why(t.Context(), registration.Caller{Scope: scope}, line["trackingId"].(string))
	if err != nil || why.Reason != registration.ReasonTokenExpired {
		t.Errorf("explained as %+v, %v", why, err)
	}
	h.hubs.why = registration.ReasonNone
	h.send(recorded(t, "rabbitmq-user"))
	if line := h.lastLine(); line["reason"] != "broker-login" || line["status"] != 200.0 {
		t.Errorf("the line is %v", line)
	}
}
