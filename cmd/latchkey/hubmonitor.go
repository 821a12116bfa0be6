package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// monitorLine bounds one line of the stream: the largest message in base64, and its properties.
const monitorLine = 1 << 20

func hubMonitor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "monitor [DEVICE]",
		Short: "Show on the terminal what devices send to the embedded hub, as it comes",
		Long: `Show on the terminal what devices send to the embedded hub, as it comes: time, device, size, properties and body, a line each. It goes on until it is
interrupted, and over a restart of the service. The access policy needs ServiceConnect.

--since shows first what the service still remembers from then on, such as 5m or 2026-03-01T12:00:00Z: the last few thousand messages at most. A terminal or a
connection that is too slow misses messages, and is told how many; what is to get each one is an output in the service's configuration.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{errors.New("hub monitor takes one device id, or none for all devices")}
			}
			return nil
		},
	}
	connect := clientFlags(cmd)
	since := cmd.Flags().String("since", "", "first what came from then on: how long ago, such as 5m, or a time")
	limit := cmd.Flags().Int("limit", 0, "end after so many messages; 0: never")
	asJSON := jsonFlag(cmd, "print each record as it is in the telemetry file")
	cmd.ValidArgsFunction = completeDevices(connect)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m := &monitor{out: cmd.OutOrStdout(), complain: cmd.ErrOrStderr(), json: *asJSON, limit: *limit,
			colours: device(cmd.OutOrStdout()) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
		if *limit < 0 {
			return usageError{errors.New("--limit must not be negative")}
		}
		if *since != "" {
			at, err := moment(*since, time.Now())
			if err != nil {
				return usageError{fmt.Errorf("--since: %w", err)}
			}
			m.since = at
		}
		if len(args) == 1 {
			m.device = args[0]
		}
		c, err := connect()
		if err != nil {
			return err
		}
		return m.run(cmd.Context(), c)
	}
	return cmd
}

// monitor prints a stream of events, and takes it up again where it was when it breaks.
type monitor struct {
	out, complain io.Writer
	json, colours bool
	device        string
	since         time.Time
	limit         int

	printed int
	reached bool     // the service has answered
	waiting bool     // since then it has not, and that was said
	last    []string // ids of the newest records, which come again after a break
}

// errEnough says that as many messages were printed as were asked for.
var errEnough = errors.New("enough")

// run goes on until it is interrupted, which is no error.
func (m *monitor) run(ctx context.Context, c *client) error {
	for {
		err := m.stream(ctx, c)
		switch {
		case errors.Is(err, errEnough), ctx.Err() != nil:
			return nil
		case err != nil && !(m.reached && passes(err)):
			return err
		case err != nil && !m.waiting:
			m.waiting = true
			fmt.Fprintf(m.complain, "latchkey: %v\nTrying again until it answers.\n", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// stream prints one answer to its end.
func (m *monitor) stream(ctx context.Context, c *client) error {
	query := url.Values{}
	if m.device != "" {
		query.Set("deviceId", m.device)
	}
	if !m.since.IsZero() {
		query.Set("since", m.since.UTC().Format(time.RFC3339Nano))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer, err := c.open(ctx, http.MethodGet, "/latchkey/v1/hub/events", query, "", nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	// The service sends something every few seconds.
	silent := time.AfterFunc(callTime, cancel)
	defer silent.Stop()
	if m.since.IsZero() {
		m.since = time.Now() // what comes while the connection is lost is asked for
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(make([]byte, 0, 64<<10), monitorLine)
	for lines.Scan() {
		silent.Reset(callTime)
		m.reached, m.waiting = true, false
		if err := m.line(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the connection to the service was lost: %w", err)
	}
	return nil
}

// event is a line of the stream: a record, or one of the notes.
type event struct {
	ID, Time, DeviceID           string
	Properties, SystemProperties map[string]string
	Body                         json.RawMessage
	BodyBase64                   []byte
	Missed                       uint64
	Heartbeat                    string
}

func (m *monitor) line(text []byte) error {
	var e event
	if err := json.Unmarshal(text, &e); err != nil {
		return fmt.Errorf("the service's answer is no event: %w", err)
	}
	switch {
	case e.Missed > 0 && m.json:
		return m.print("%s\n", text)
	case e.Missed > 0:
		fmt.Fprintf(m.complain, "latchkey: %d messages were missed: the terminal or the connection is too slow\n", e.Missed)
		return nil
	case e.ID == "" || slices.Contains(m.last, e.ID):
		return nil
	}
	if at, err := time.Parse(time.RFC3339Nano, e.Time); err == nil && at.After(m.since) {
		m.since = at
	}
	if m.last = append(m.last, e.ID); len(m.last) > 512 {
		m.last = slices.Clone(m.last[256:])
	}
	var err error
	if m.json {
		err = m.print("%s\n", text)
	} else {
		err = m.print("%s\n", m.pretty(e))
	}
	if m.printed++; err == nil && m.printed == m.limit {
		return errEnough
	}
	return err
}

func (m *monitor) print(format string, args ...any) error {
	_, err := fmt.Fprintf(m.out, format, args...)
	return err
}

// Terminal colours of a line's parts.
const (
	dim, bold, plain = "\x1b[2m", "\x1b[36m", "\x1b[0m"
)

func (m *monitor) colour(with, text string) string {
	if !m.colours {
		return text
	}
	return with + text + plain
}

// pretty is one line: time, device, size, properties, body. What a device sends cannot do anything to the terminal.
func (m *monitor) pretty(e event) string {
	body, size := printable(string(e.Body)), len(e.Body)
	if e.Body == nil {
		size = len(e.BodyBase64)
		body = printable(string(e.BodyBase64))
		if strings.ContainsRune(body, '\uFFFD') {
			body = fmt.Sprintf("%x", e.BodyBase64[:min(len(e.BodyBase64), 64)])
			if len(e.BodyBase64) > 64 {
				body += "…"
			}
		}
	}
	at := e.Time
	if t, err := time.Parse(time.RFC3339Nano, e.Time); err == nil {
		at = t.Local().Format("15:04:05.000")
	}
	parts := []string{m.colour(dim, printable(at)), m.colour(bold, printable(e.DeviceID)), fmt.Sprintf("%d B", size)}
	for _, of := range []map[string]string{e.SystemProperties, e.Properties} {
		for _, name := range slices.Sorted(maps.Keys(of)) {
			parts = append(parts, m.colour(dim, printable(name)+"="+printable(of[name])))
		}
	}
	return strings.Join(append(parts, body), "  ")
}
