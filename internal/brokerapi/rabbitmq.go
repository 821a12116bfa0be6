package brokerapi

import (
	"context"
	"errors"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// RabbitMQ's rabbitmq_auth_backend_http, as rabbitmq_mqtt has it ask. Its four questions share the user name; the MQTT client id comes with each, with that
// about topics as variable_map.client_id. Other protocols send none, so no device gets in over AMQP.

func rabbitUser(ctx context.Context, q *question, call web.Call) error {
	f, err := readFields(call)
	if err != nil {
		return q.malformed(err)
	}
	if err := q.login(ctx, f["username"], f["client_id"], f["password"], ""); err != nil {
		return err
	}
	reason := q.reason
	if err := q.inHost(ctx, f, f["client_id"]); err != nil {
		return err
	}
	q.reason = reason
	return nil
}

func rabbitHost(ctx context.Context, q *question, call web.Call) error {
	f, err := readFields(call)
	if err != nil {
		return q.malformed(err)
	}
	return q.inHost(ctx, f, f["client_id"])
}

// inHost: the device may be there, and the virtual host is that of the linked hub.
func (q *question) inHost(ctx context.Context, f fields, client string) error {
	if client == "" {
		return q.fault(dps.CodeUnauthorized, registration.ReasonBrokerUser, errors.New("no MQTT client id: the client speaks another protocol"))
	}
	_, host, err := q.standing(ctx, f["username"], client)
	if err != nil {
		return err
	}
	if f["vhost"] != host {
		return q.fault(dps.CodeUnauthorized, registration.ReasonBrokerUser, errors.New("the virtual host is another"))
	}
	return nil
}

const (
	topicExchange = "amq.topic" // where rabbitmq_mqtt publishes, unless it is told otherwise
	sessionQueue  = "mqtt-subscription-"
)

// rabbitResource: an MQTT session needs its own queues, and to read and write the exchange, where topics are asked for one by one.
func rabbitResource(ctx context.Context, q *question, call web.Call) error {
	f, err := readFields(call)
	if err != nil {
		return q.malformed(err)
	}
	if err := q.inHost(ctx, f, f["client_id"]); err != nil {
		return err
	}
	kind, name, permission := f["resource"], f["name"], f["permission"]
	switch {
	case kind == "queue" && (name == sessionQueue+q.device+"qos0" || name == sessionQueue+q.device+"qos1" || name == "mqtt-will-"+q.device):
		return nil
	case kind == "exchange" && name == topicExchange && (permission == "read" || permission == "write"):
		return nil
	}
	return q.fault(dps.CodeUnauthorized, registration.ReasonTopic, nil)
}

func rabbitTopic(ctx context.Context, q *question, call web.Call) error {
	f, err := readFields(call)
	if err != nil {
		return q.malformed(err)
	}
	if err := q.inHost(ctx, f, f["variable_map.client_id"]); err != nil {
		return err
	}
	subscribe := f["permission"] == "read"
	if f["resource"] != "topic" || f["name"] != topicExchange || !subscribe && f["permission"] != "write" {
		return q.fault(dps.CodeUnauthorized, registration.ReasonTopic, nil)
	}
	return q.topic(ctx, f["username"], f["variable_map.client_id"], mqttTopic(f["routing_key"], subscribe), subscribe)
}

// mqttTopic is a routing key in the words of MQTT. RabbitMQ has made dots of slashes and stars of plus signs, and what were dots and stars in the topic
// means the same from then on: so it is judged as what it means.
func mqttTopic(key string, filter bool) string {
	key = strings.ReplaceAll(key, ".", "/")
	if filter {
		key = strings.ReplaceAll(key, "*", "+")
	}
	return key
}
