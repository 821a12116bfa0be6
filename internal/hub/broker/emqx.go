package broker

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// emqx is the REST API of EMQX 5.
type emqx struct{ *api }

const emqxPage = 1000

type emqxClients struct {
	Data []struct {
		ClientID  string    `json:"clientid"`
		User      string    `json:"username"`
		Connected *bool     `json:"connected"`
		Since     time.Time `json:"connected_at"`
	} `json:"data"`
	Meta struct {
		HasNext bool `json:"hasnext"`
	} `json:"meta"`
}

func (e *emqx) list(ctx context.Context, page func([]connection)) error {
	for number := 1; number <= maxPages; number++ {
		query := url.Values{"page": {strconv.Itoa(number)}, "limit": {strconv.Itoa(emqxPage)}, "fields": {"clientid,username,connected,connected_at"}}
		var answer emqxClients
		header, err := e.call(ctx, http.MethodGet, "/api/v5/clients?"+query.Encode(), &answer)
		if err != nil {
			return fmt.Errorf("listing clients: %w", err)
		}
		ahead := clockOf(header)
		connections := make([]connection, 0, len(answer.Data))
		for _, item := range answer.Data {
			if item.Connected != nil && !*item.Connected {
				continue
			}
			c := connection{name: item.ClientID, user: item.User, clientID: item.ClientID}
			if !item.Since.IsZero() {
				c.since = item.Since.Add(-ahead)
			}
			connections = append(connections, c)
		}
		page(connections)
		if !answer.Meta.HasNext {
			return nil
		}
	}
	return fmt.Errorf("listing clients: there are more than %d", maxPages*emqxPage)
}

func (e *emqx) end(ctx context.Context, c connection) error {
	_, err := e.cut(ctx, c.clientID)
	return err
}

// cut kicks the client, which discards its session too. Client ids are device ids: Login sees to it.
func (e *emqx) cut(ctx context.Context, deviceID string) (closed int, err error) {
	gone, err := e.remove(ctx, "/api/v5/clients/"+url.PathEscape(deviceID))
	if err != nil || gone {
		return 0, err
	}
	return 1, nil
}
