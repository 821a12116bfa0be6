package broker

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// verne is the HTTP form of VerneMQ's administration commands. The API key is the user name of basic authentication.
type verne struct {
	*api
	mountpoint string
}

type verneSessions struct {
	Table []struct {
		ClientID string `json:"client_id"`
		User     string `json:"user"`
	} `json:"table"`
}

// verneLimit is how many sessions are asked for: its lists have no pages.
const verneLimit = 100_000

func (v *verne) list(ctx context.Context, page func([]connection)) error {
	flags := []string{"--client_id", "--user", "--is_online=true", "--limit=" + strconv.Itoa(verneLimit)}
	if v.mountpoint != "" {
		flags = append(flags, "--mountpoint="+url.QueryEscape(v.mountpoint))
	}
	var answer verneSessions
	if _, err := v.call(ctx, http.MethodGet, "/api/v1/session/show?"+strings.Join(flags, "&"), &answer); err != nil {
		return fmt.Errorf("listing sessions: %w", err)
	}
	if len(answer.Table) >= verneLimit {
		return fmt.Errorf("listing sessions: there are %d or more", verneLimit)
	}
	connections := make([]connection, 0, len(answer.Table))
	for _, item := range answer.Table {
		connections = append(connections, connection{name: item.ClientID, user: item.User, clientID: item.ClientID})
	}
	page(connections)
	return nil
}

func (v *verne) end(ctx context.Context, c connection) error {
	return v.disconnect(ctx, c.clientID, false)
}

// cut disconnects the client and has its session cleaned up.
func (v *verne) cut(ctx context.Context, deviceID string) (closed int, err error) {
	if err := v.disconnect(ctx, deviceID, true); err != nil {
		return 0, err
	}
	return 1, nil
}

// disconnect: VerneMQ puts the client id into a query of its own as it stands, so what no device can be called is not asked for.
func (v *verne) disconnect(ctx context.Context, clientID string, cleanup bool) error {
	if !validDeviceID(clientID) {
		return nil
	}
	query := "client-id=" + url.QueryEscape(clientID)
	if v.mountpoint != "" {
		query += "&--mountpoint=" + url.QueryEscape(v.mountpoint)
	}
	if cleanup {
		query += "&--cleanup"
	}
	_, err := v.call(ctx, http.MethodGet, "/api/v1/session/disconnect?"+query, nil)
	return err
}
