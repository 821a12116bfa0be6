package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// rabbit is RabbitMQ's management plug-in.
type rabbit struct {
	*api
	host string // virtual host
	link *link
}

// tags of a user: a list, or with older releases a text with commas.
type tags []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *tags) UnmarshalJSON(text []byte) error {
	var list []string
	if err := json.Unmarshal(text, &list); err == nil {
		*t = list
		return nil
	}
	var joined string
	if err := json.Unmarshal(text, &joined); err != nil {
		return err
	}
	*t = strings.Split(joined, ",")
	return nil
}

const rabbitPage = 500 // the most that it gives

type rabbitConnections struct {
	Pages int `json:"page_count"`
	Items []struct {
		Name     string `json:"name"`
		User     string `json:"user"`
		Host     string `json:"vhost"`
		Since    int64  `json:"connected_at"` // milliseconds
		Variable struct {
			ClientID string `json:"client_id"`
		} `json:"variable_map"`
	} `json:"items"`
}

// list asks for the connections of all virtual hosts: those of one come without pages.
func (r *rabbit) list(ctx context.Context, page func([]connection)) error {
	for number := 1; number <= maxPages; number++ {
		query := url.Values{"page": {strconv.Itoa(number)}, "page_size": {strconv.Itoa(rabbitPage)}, "columns": {"name,user,vhost,connected_at,variable_map.client_id"}}
		var answer rabbitConnections
		header, err := r.call(ctx, http.MethodGet, "/api/connections?"+query.Encode(), &answer)
		if err != nil {
			return fmt.Errorf("listing connections: %w", err)
		}
		ahead := clockOf(header)
		connections := make([]connection, 0, len(answer.Items))
		for _, item := range answer.Items {
			if item.Host != r.host {
				continue
			}
			c := connection{name: item.Name, user: item.User, clientID: item.Variable.ClientID}
			if item.Since > 0 {
				c.since = time.UnixMilli(item.Since).Add(-ahead)
			}
			connections = append(connections, c)
		}
		page(connections)
		if number >= answer.Pages {
			return nil
		}
	}
	return fmt.Errorf("listing connections: there are more than %d", maxPages*rabbitPage)
}

func (r *rabbit) end(ctx context.Context, c connection) error {
	_, err := r.remove(ctx, "/api/connections/"+url.PathEscape(c.name))
	return err
}

// cut ends the connections first, then removes the queues that an MQTT session without clean flag leaves, and a will that waits for its delay (MQTT 5):
// what waits there is neither for the next owner nor in his name.
func (r *rabbit) cut(ctx context.Context, deviceID string) (closed int, err error) {
	var found []connection
	err = r.list(ctx, func(page []connection) {
		for _, c := range page {
			if _, id, ok := r.link.device(c.user); c.clientID == deviceID || ok && id == deviceID {
				found = append(found, c)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	for _, c := range found {
		if err := r.end(ctx, c); err != nil {
			return closed, fmt.Errorf("ending a connection: %w", err)
		}
		closed++
	}
	for _, queue := range []string{"mqtt-subscription-" + deviceID + "qos0", "mqtt-subscription-" + deviceID + "qos1", "mqtt-will-" + deviceID} {
		if _, err := r.remove(ctx, "/api/queues/"+url.PathEscape(r.host)+"/"+url.PathEscape(queue)); err != nil {
			return closed, fmt.Errorf("removing the session: %w", err)
		}
	}
	return closed, nil
}
