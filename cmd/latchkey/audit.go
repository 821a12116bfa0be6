package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

const (
	auditPage   = 500
	followEvery = 2 * time.Second
)

// auditFlags are what `audit` can be told.
type auditFlags struct {
	object, action, since string
	limit                 int
	follow                bool
}

func auditCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read the audit log: what was changed, by whom, and every registration",
		Long: `Read the audit log, oldest first: what was changed, by whom, and every registration.

--since takes how long ago, such as 90m, 36h or 7d, or a time such as 2026-03-01T12:00:00Z. --follow goes on with what is written from then on,
until it is interrupted, and over a restart of the service. The access policy needs EnrollmentRead and RegistrationStatusRead.`,
		Args: noArgs,
	}
	connect := clientFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.object, "object", "", "only rows about this id")
	flags.StringVar(&f.action, "action", "", "only rows of this action, such as enrollment.put")
	flags.StringVar(&f.since, "since", "", "only rows from then on")
	flags.IntVar(&f.limit, "limit", 0, "print at most so many; 0: all")
	asJSON := jsonFlag(cmd, "print one JSON object a line, with all details")
	flags.BoolVar(&f.follow, "follow", false, "go on until interrupted")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		query, err := f.query(time.Now())
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		out := newAuditPrinter(cmd.OutOrStdout(), *asJSON)
		reader := auditReader{client: c, query: query, limit: f.limit, out: out, complain: cmd.ErrOrStderr()}
		return errors.Join(reader.run(cmd.Context(), f.follow), out.flush())
	}
	return cmd
}

// query is the question as the service takes it.
func (f *auditFlags) query(now time.Time) (url.Values, error) {
	if f.limit < 0 {
		return nil, usageError{errors.New("--limit must not be negative")}
	}
	query := url.Values{}
	if f.object != "" {
		query.Set("object", f.object)
	}
	if f.action != "" {
		query.Set("action", f.action)
	}
	if f.since != "" {
		since, err := moment(f.since, now)
		if err != nil {
			return nil, usageError{fmt.Errorf("--since: %w", err)}
		}
		query.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	return query, nil
}

// moment reads a time, or how long ago it was. Days are 24 hours.
func moment(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := time.ParseDuration(text)
	if days, found := strings.CutSuffix(text, "d"); found {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		ago = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || ago < 0 {
		return time.Time{}, fmt.Errorf("%q is neither a time such as 2026-03-01T12:00:00Z nor how long ago, such as 90m, 36h or 7d", text)
	}
	return now.Add(-ago), nil
}

// auditReader walks the log.
type auditReader struct {
	client   *client
	query    url.Values
	limit    int // 0: all
	out      *auditPrinter
	complain io.Writer
	printed  int
	reached  bool // the service has answered
	waiting  bool // since then it has not, and that was said
}

// run prints the log to its end and, to follow it, what comes after. An interruption is how following ends, so it is no error.
func (r *auditReader) run(ctx context.Context, follow bool) error {
	for {
		more, err := r.page(ctx)
		switch {
		case follow && ctx.Err() != nil:
			return nil
		case err != nil && !(follow && r.reached && passes(err)):
			return err
		case err != nil:
			r.say(err)
		case r.limit > 0 && r.printed == r.limit, !more && !follow:
			return nil
		}
		if err := r.out.flush(); err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// passes says whether a failure is worth waiting for its end: a restart, a network that is away, a service that has too much to do.
func passes(err error) bool {
	var no *refused
	return !errors.As(err, &no) || no.status == http.StatusTooManyRequests || no.status >= 500
}

// say tells of a failure once, until the service has answered again.
func (r *auditReader) say(err error) {
	if !r.waiting {
		fmt.Fprintf(r.complain, "latchkey: %v\nTrying again until it answers.\n", err)
	}
	r.waiting = true
}

// page prints one page, and says whether another is there now.
func (r *auditReader) page(ctx context.Context) (more bool, err error) {
	size := auditPage
	if r.limit > 0 {
		size = min(size, r.limit-r.printed)
	}
	r.query.Set("size", strconv.Itoa(size))
	data, err := r.client.call(ctx, http.MethodGet, "/latchkey/v1/audit", r.query, "", nil)
	if err != nil {
		return false, err
	}
	var page struct {
		Entries            []json.RawMessage
		Continuation, Next string
	}
	if err := json.Unmarshal(data, &page); err != nil || page.Next == "" {
		return false, errors.Join(errors.New("the service's answer is no page of the audit log"), err)
	}
	for _, entry := range page.Entries {
		if err := r.out.line(entry); err != nil {
			return false, err
		}
	}
	r.reached, r.waiting = true, false
	r.printed += len(page.Entries)
	r.query.Set("continuation", page.Next)
	return page.Continuation != "", nil
}

// auditPrinter prints rows as a table, or as they are.
type auditPrinter struct {
	w      io.Writer
	table  *tabwriter.Writer // nil: JSON lines
	titled bool
	only   func(action string) bool // nil: every row
}

func newAuditPrinter(w io.Writer, asJSON bool) *auditPrinter {
	p := &auditPrinter{w: w}
	if !asJSON {
		p.table = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	}
	return p
}

func (p *auditPrinter) line(data json.RawMessage) error {
	if p.only != nil {
		var row struct{ Action string }
		if err := json.Unmarshal(data, &row); err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		if !p.only(row.Action) {
			return nil
		}
	}
	if p.table == nil {
		_, err := fmt.Fprintf(p.w, "%s\n", data)
		return err
	}
	var e struct {
		Time, Actor, Address, Action, Object, Outcome, Reason string
		Detail                                                json.RawMessage
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	if !p.titled {
		p.titled = true
		fmt.Fprintln(p.table, "TIME\tACTOR\tADDRESS\tACTION\tOBJECT\tOUTCOME\tWHAT")
	}
	at, _, _ := strings.Cut(strings.TrimSuffix(e.Time, "Z"), ".")
	outcome := e.Outcome
	if e.Outcome != "ok" {
		outcome += " (" + e.Reason + ")"
	}
	cells := []string{at, e.Actor, e.Address, e.Action, e.Object, outcome, whatChanged(e.Detail)}
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	_, err := fmt.Fprintln(p.table, strings.Join(cells, "\t"))
	return err
}

func (p *auditPrinter) flush() error {
	if p.table == nil {
		return nil
	}
	return p.table.Flush()
}
