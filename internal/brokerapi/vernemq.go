package brokerapi

import (
	"context"
	"encoding/json"
	"net/http"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// hookBody is what VerneMQ's webhooks send, of all hooks together. Payloads and properties are passed over.
type hookBody struct {
	Mountpoint string `json:"mountpoint"`
	ClientID   string `json:"client_id"`
	User       string `json:"username"`
	Password   string `json:"password"`
	Topic      string `json:"topic"`
	Topics     []struct {
		Topic string `json:"topic"`
	} `json:"topics"`
}

// maxTopics bounds the filters of one SUBSCRIBE that are looked at.
const maxTopics = 64

// verneHook: one path takes all hooks, which a header tells apart; those of MQTT 5 end in _m5.
func verneHook(ctx context.Context, q *question, call web.Call) error {
	var body hookBody
	if call.Method != http.MethodPost {
		return q.malformed(errWords)
	}
	if err := json.Unmarshal(call.Body, &body); err != nil {
		return q.malformed(err)
	}
	hook := call.Header.Get("vernemq-hook")
	if hook == "auth_on_register" || hook == "auth_on_register_m5" {
		if err := q.login(ctx, body.User, body.ClientID, body.Password, ""); err != nil {
			return err
		}
	}
	reason := q.reason
	_, mountpoint, err := q.standing(ctx, body.User, body.ClientID)
	if err != nil {
		return err
	}
	if body.Mountpoint != mountpoint {
		return q.fault(dps.CodeUnauthorized, registration.ReasonBrokerUser, nil)
	}
	switch hook {
	case "auth_on_register", "auth_on_register_m5":
		q.reason = reason
		return nil
	case "auth_on_publish", "auth_on_publish_m5":
		return q.topic(ctx, body.User, body.ClientID, body.Topic, false)
	case "auth_on_subscribe", "auth_on_subscribe_m5":
		return verneSubscribe(ctx, q, body)
	}
	return q.malformed(errWords)
}

// verneSubscribe: all filters of a SUBSCRIBE, or none.
func verneSubscribe(ctx context.Context, q *question, body hookBody) error {
	if len(body.Topics) == 0 || len(body.Topics) > maxTopics {
		return q.malformed(errWords)
	}
	for _, t := range body.Topics {
		if err := q.topic(ctx, body.User, body.ClientID, t.Topic, true); err != nil {
			return err
		}
	}
	return nil
}
