package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

const hubPath = "/latchkey/v1/hubs"

// hubAnswer is a linked hub as the service tells it.
type hubAnswer struct {
	Name, Kind                                 string
	Own                                        bool
	Weight                                     int
	Allocate, Draining                         bool
	Region                                     string
	Settings                                   json.RawMessage
	SecretSet                                  bool
	ETag                                       string
	CreatedDateTimeUtc, LastUpdatedDateTimeUtc string
	Health                                     struct {
		State, Since, LastError, FailedAt, CheckedAt string
		LatencyMs                                    int64
	}
	Devices, Assigning uint64
}

func hubList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the hubs that the scope gives devices to, and how they do",
		Long: `List the hubs that the scope gives devices to. STATE is how the node sees them that answers: by what it asks of them for devices, and by a look twice
a minute. DEVICES counts registrations; of these, ASSIGNING wait for what is to be done at a hub.`,
		Args: noArgs,
	}
	return showAnswer(cmd, clientFlags(cmd), at(hubPath), nil, printHubs)
}

func printHubs(w io.Writer, data []byte) error {
	var all struct{ Hubs []hubAnswer }
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HUB\tKIND\tWEIGHT\tALLOCATION\tREGION\tDEVICES\tASSIGNING\tSTATE\tLATENCY\tLAST ERROR")
	for _, h := range all.Hubs {
		row(t, h.Name, h.Kind, strconv.Itoa(h.Weight), h.allocation(), h.Region, strconv.FormatUint(h.Devices, 10), strconv.FormatUint(h.Assigning, 10), h.Health.State, h.latency(), h.trouble())
	}
	return t.Flush()
}

// allocation says in a word how the hub takes part.
func (h hubAnswer) allocation() string {
	switch {
	case h.Draining:
		return "draining"
	case h.Allocate:
		return "yes"
	}
	return "by name only"
}

func (h hubAnswer) latency() string {
	if h.Health.LatencyMs == 0 {
		return ""
	}
	return (time.Duration(h.Health.LatencyMs) * time.Millisecond).String()
}

// trouble is the last error while it matters.
func (h hubAnswer) trouble() string {
	if h.Health.State == "ok" {
		return ""
	}
	return h.Health.LastError
}

func hubShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show HUB", Short: "Show how a hub is linked and how it does; never its secret", Args: oneArg("name of a hub")}
	connect := clientFlags(cmd)
	cmd.ValidArgsFunction = completeHubs(connect)
	return showAnswer(cmd, connect, func(args []string) string { return hubPath + "/" + url.PathEscape(args[0]) }, nil, printHub)
}

func printHub(w io.Writer, data []byte) error {
	h, err := decodeHub(data)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"Hub", h.Name}, {"Kind", h.Kind}, {"Weight", strconv.Itoa(h.Weight)}, {"Allocation", h.allocation()}, {"Region", h.Region},
		{"Settings", h.settings()}, {"Secret", map[bool]string{true: "set", false: ""}[h.SecretSet]}, {"Devices", fmt.Sprintf("%d, of which %d are assigning", h.Devices, h.Assigning)},
		{"State", h.state()}, {"Latency", h.latency()}, {"Last error", h.Health.LastError}, {"Failed", shortTime(h.Health.FailedAt)},
		{"Last look", shortTime(h.Health.CheckedAt)}, {"Changed", shortTime(h.LastUpdatedDateTimeUtc)},
	} {
		if line[1] != "" {
			row(t, line[0], line[1])
		}
	}
	return t.Flush()
}

// settings are the members of the settings, in order of their names, long values cut.
func (h hubAnswer) settings() string {
	const most = 60
	var all map[string]json.RawMessage
	if json.Unmarshal(h.Settings, &all) != nil {
		return ""
	}
	var told []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		value := strings.Trim(string(all[name]), `"`)
		if len(value) > most {
			value = strings.ToValidUTF8(value[:most], "") + "…"
		}
		told = append(told, name+" "+value)
	}
	return strings.Join(told, ", ")
}

func (h hubAnswer) state() string {
	if h.Health.Since == "" {
		return h.Health.State
	}
	return h.Health.State + " since " + shortTime(h.Health.Since)
}

func decodeHub(data []byte) (h hubAnswer, err error) {
	if err := json.Unmarshal(data, &h); err != nil {
		return h, errors.New("the service's answer is no linked hub")
	}
	return h, nil
}

// hub reads one linked hub.
func (c *client) hub(ctx context.Context, name string) (hubAnswer, error) {
	data, err := c.call(ctx, http.MethodGet, hubPath+"/"+url.PathEscape(name), nil, "", nil)
	if err != nil {
		return hubAnswer{}, err
	}
	return decodeHub(data)
}

// completeHubs offers the names of linked hubs.
func completeHubs(connect func() (*client, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
		c, err := connect()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		var all struct{ Hubs []hubAnswer }
		if data, err := c.call(ctx, http.MethodGet, hubPath, nil, "", nil); err == nil {
			_ = json.Unmarshal(data, &all) // what cannot be read offers nothing
		}
		for _, h := range all.Hubs {
			if strings.HasPrefix(h.Name, strings.ToLower(typed)) {
				names = append(names, h.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
