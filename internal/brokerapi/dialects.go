package brokerapi

import (
	"context"
	"net/http"
	"strconv"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// dialect is how a product asks and what it wants to hear.
type dialect struct {
	questions map[string]ask // by the last segment of the path
	yes       func(q *question) web.Reply
	no        func(fault *registration.Fault) web.Reply
}

// dialects by product, as the settings of a linked hub name it.
var dialects = map[string]dialect{
	"rabbitmq":  {map[string]ask{"user": rabbitUser, "vhost": rabbitHost, "resource": rabbitResource, "topic": rabbitTopic}, plainYes, plainNo},
	"emqx":      {map[string]ask{"login": emqxLogin, "topic": emqxTopic}, emqxYes, emqxNo},
	"generic":   {map[string]ask{"login": emqxLogin, "topic": emqxTopic}, emqxYes, emqxNo},
	"vernemq":   {map[string]ask{"hook": verneHook}, verneYes, verneNo},
	"nanomq":    {map[string]ask{"login": nanoLogin, "superuser": nobodyIsSuper, "topic": nanoTopic}, statusYes, statusNo},
	"mosquitto": {map[string]ask{"login": nanoLogin, "superuser": nobodyIsSuper, "topic": mosquittoTopic}, statusYes, statusNo},
}

var plainText = map[string]string{"Content-Type": "text/plain; charset=utf-8"}

// plainYes and plainNo are RabbitMQ's: a word. What failed has its own status, which RabbitMQ writes into its log and takes for a no.
func plainYes(*question) web.Reply {
	return web.Reply{Status: http.StatusOK, Body: []byte("allow"), Header: plainText}
}

func plainNo(fault *registration.Fault) web.Reply {
	status := http.StatusOK
	if failed(fault) {
		status = fault.Code.Status()
	}
	return web.Reply{Status: status, Body: []byte("deny"), Header: plainText}
}

// emqxYes and emqxNo: EMQX takes any other status than 200 or 204 for "ask the next", and where nobody is next its no_match says yes by default.
func emqxYes(q *question) web.Reply {
	body := []byte(`{"result":"allow","is_superuser":false`)
	if !q.expires.IsZero() {
		body = strconv.AppendInt(append(body, `,"expire_at":`...), q.expires.Unix(), 10)
	}
	return web.Reply{Status: http.StatusOK, Body: append(body, '}')}
}

func emqxNo(*registration.Fault) web.Reply {
	return web.Reply{Status: http.StatusOK, Body: []byte(`{"result":"deny","is_superuser":false}`)}
}

// verneYes and verneNo are VerneMQ's. No Cache-Control is sent, so VerneMQ asks each time.
func verneYes(*question) web.Reply {
	return web.Reply{Status: http.StatusOK, Body: []byte(`{"result":"ok"}`)}
}

func verneNo(*registration.Fault) web.Reply {
	return web.Reply{Status: http.StatusOK, Body: []byte(`{"result":{"error":"not_allowed"}}`)}
}

// statusYes and statusNo are of products that read the status alone, or the body of mosquitto-go-auth if they are told to.
func statusYes(*question) web.Reply {
	return web.Reply{Status: http.StatusOK, Body: []byte(`{"ok":true,"error":""}`)}
}

func statusNo(fault *registration.Fault) web.Reply {
	status := http.StatusForbidden
	if failed(fault) {
		status = fault.Code.Status()
	}
	return web.Reply{Status: status, Body: []byte(`{"ok":false,"error":"not allowed"}`)}
}

// failed: it is not that the device may not.
func failed(fault *registration.Fault) bool {
	return fault.Code != dps.CodeUnauthorized
}

// nobodyIsSuper: no device is beyond the rules of topics.
func nobodyIsSuper(_ context.Context, q *question, _ web.Call) error {
	return q.fault(dps.CodeUnauthorized, registration.ReasonTopic, nil)
}

// EMQX 5, and any broker that is told to ask like it: JSON or form with username, clientid, password, and for topics action and topic. Certificate is the client's in PEM,
// percent-encoded or not.
func emqxLogin(ctx context.Context, q *question, call web.Call) error {
	f, err := readFields(call)
	if err != nil {
		return q.malformed(err)
	}
	return q.login(ctx, given(f["username"]), f["clientid"], given(f["password"]), given(f["certificate"]))
}

func emqxTopic(ctx context.Context, q *question, call web.Call) error {
	f, err := readFields(call)
	if err != nil {
		return q.malformed(err)
	}
	action := f["action"]
	if action != "publish" && action != "subscribe" {
		return q.malformed(errWords)
	}
	return q.topic(ctx, given(f["username"]), f["clientid"], f["topic"], action == "subscribe")
}

// given is a value that EMQX has: it writes undefined for a placeholder without one.
func given(value string) string {
	if value == "undefined" {
		return ""
	}
	return value
}
