package brokerapi

import (
	"context"
	"strings"

	"latchkey.example/latchkey/internal/web"
)

// nanoLogin is NanoMQ's auth_req and mosquitto-go-auth's getuser: username, clientid and password.
func nanoLogin(ctx context.Context, q *question, call web.Call) error {
	f, err := readFields(call)
	if err != nil {
		return q.malformed(err)
	}
	return q.login(ctx, f["username"], f["clientid"], f["password"], "")
}

// nanoTopic is NanoMQ's acl_req: access is 1 to subscribe and 2 to publish. The filters of one SUBSCRIBE come joined by commas, and all must be allowed.
// A topic to publish to is one, whatever stands in it.
func nanoTopic(ctx context.Context, q *question, call web.Call) error {
	f, err := readFields(call)
	if err != nil {
		return q.malformed(err)
	}
	switch f["access"] {
	case "2":
		return q.topic(ctx, f["username"], f["clientid"], f["topic"], false)
	case "1":
		filters := strings.Split(f["topic"], ",")
		if len(filters) > maxTopics {
			return q.malformed(errWords)
		}
		for _, filter := range filters {
			if err := q.topic(ctx, f["username"], f["clientid"], filter, true); err != nil {
				return err
			}
		}
		return nil
	}
	return q.malformed(errWords)
}

// mosquittoTopic is mosquitto-go-auth's aclcheck: acc is 1 for a message on its way to the client, 2 to publish, 3 for both, 4 to subscribe.
func mosquittoTopic(ctx context.Context, q *question, call web.Call) error {
	f, err := readFields(call)
	if err != nil {
		return q.malformed(err)
	}
	acc := f["acc"]
	if acc != "1" && acc != "2" && acc != "3" && acc != "4" {
		return q.malformed(errWords)
	}
	if acc == "2" || acc == "3" {
		if err := q.topic(ctx, f["username"], f["clientid"], f["topic"], false); err != nil {
			return err
		}
	}
	if acc != "2" {
		return q.topic(ctx, f["username"], f["clientid"], f["topic"], true)
	}
	return nil
}
