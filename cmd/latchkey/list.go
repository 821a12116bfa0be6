package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

const listPage = "500"

func enrollList(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List enrollments, in order of their ids",
		Long: `List enrollments, in order of their ids.

--where takes a condition such as
    provisioningStatus = 'disabled'
    registrationState.status = 'assigned' AND STARTSWITH(registrationId, 'line4-')`,
		Args: noArgs,
	}
	listCommand(cmd, connect, "enrollments", dps.CollectionEnrollments, func() string { return "/enrollments/query" },
		"REGISTRATION ID\tSTATUS\tMECHANISM\tPROOF\tDEVICE ID\tUPDATED", enrollmentCells)
	return cmd
}

// eachItem walks the pages of a query.
func (c *client) eachItem(ctx context.Context, path, query string, limit int, do func(json.RawMessage) error) error {
	body, err := json.Marshal(map[string]string{"query": query})
	if err != nil {
		return err
	}
	header := http.Header{"X-Ms-Max-Item-Count": {listPage}}
	for count := 0; ; {
		answer, got, err := c.exchange(ctx, http.MethodPost, path, versioned(), header, body)
		if err != nil {
			return err
		}
		var page []json.RawMessage
		if err := json.Unmarshal(answer, &page); err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		for _, line := range page {
			if limit > 0 && count == limit {
				return nil
			}
			if err := do(line); err != nil {
				return err
			}
			count++
		}
		next := got.Get("x-ms-continuation")
		if next == "" {
			return nil
		}
		header.Set("x-ms-continuation", next)
	}
}

// queryFlags are those of every list.
type queryFlags struct {
	where  *string
	limit  *int
	asJSON *bool
}

func addQueryFlags(cmd *cobra.Command, what string) queryFlags {
	return queryFlags{
		where:  cmd.Flags().String("where", "", "condition on the "+what+" to list"),
		limit:  cmd.Flags().Int("limit", 0, "list at most so many; 0: all"),
		asJSON: jsonFlag(cmd, "print one JSON object a line"),
	}
}

// text is the query, judged on this side so that the message comes with the command.
func (f queryFlags) text(over dps.Collection) (string, error) {
	if *f.limit < 0 {
		return "", usageError{errors.New("--limit must not be negative")}
	}
	text := "SELECT * FROM " + over.String()
	if *f.where == "" {
		return text, nil
	}
	before := text + " WHERE "
	if _, err := dps.ParseQuery(before+*f.where, over); err != nil {
		return "", whereError(err, len(before))
	}
	return before + *f.where, nil
}

// whereError names the place of a mistake in what the user wrote, before which so many characters of the query stand.
func whereError(err error, before int) error {
	var field *dps.FieldError
	at := 0
	if errors.As(err, &field) {
		if _, err := fmt.Sscanf(field.Problem, "position %d:", &at); err == nil && at > before {
			_, problem, _ := strings.Cut(field.Problem, ": ")
			return usageError{fmt.Errorf("--where, position %d: %s", at-before, problem)}
		}
	}
	return usageError{fmt.Errorf("--where: %w", err)}
}

// listCommand runs a list: each item of the answer becomes a row of cells under the titles, or stays as it is.
func listCommand(cmd *cobra.Command, connect func() (*client, error), what string, over dps.Collection, path func() string, titles string, cells func(json.RawMessage) ([]string, error)) {
	flags := addQueryFlags(cmd, what)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		text, err := flags.text(over)
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		out := newLister(cmd.OutOrStdout(), *flags.asJSON, titles, cells)
		err = errors.Join(c.eachItem(cmd.Context(), path(), text, *flags.limit, out.line), out.flush())
		if err == nil && out.none() && device(cmd.ErrOrStderr()) {
			fmt.Fprintf(cmd.ErrOrStderr(), "No %s found.\n", what)
		}
		return err
	}
}

// lister prints items as a table, or as they are.
type lister struct {
	w      io.Writer
	table  *tabwriter.Writer // nil: JSON lines
	titles string
	cells  func(json.RawMessage) ([]string, error)
}

func newLister(w io.Writer, asJSON bool, titles string, cells func(json.RawMessage) ([]string, error)) *lister {
	l := &lister{w: w, titles: titles, cells: cells}
	if !asJSON {
		l.table = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	}
	return l
}

func (l *lister) line(data json.RawMessage) error {
	if l.table == nil {
		_, err := fmt.Fprintf(l.w, "%s\n", data)
		return err
	}
	cells, err := l.cells(data)
	if err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	if l.titles != "" {
		fmt.Fprintln(l.table, l.titles)
		l.titles = ""
	}
	return row(l.table, cells...)
}

// none says whether no row of the table came.
func (l *lister) none() bool { return l.table != nil && l.titles != "" }

func (l *lister) flush() error {
	if l.table == nil {
		return nil
	}
	return l.table.Flush()
}

// enrollmentCells is the row of an individual enrollment.
func enrollmentCells(data json.RawMessage) ([]string, error) {
	var head struct{ RegistrationID, LastUpdatedDateTimeUtc string }
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	e, err := dps.DecodeEnrollment(head.RegistrationID, data)
	if err != nil {
		return nil, err
	}
	return []string{e.RegistrationID, e.ProvisioningStatus, e.Attestation.Type, proofOf(e.Attestation), e.DeviceID, shortTime(head.LastUpdatedDateTimeUtc)}, nil
}

// proofOf names what a device shows, short enough to compare by eye.
func proofOf(a dps.Attestation) string {
	switch {
	case a.TPM != nil:
		return describe(a.TPM.EndorsementKey)
	case a.X509 != nil && a.X509.CAReferences != nil:
		return strings.Trim("CA "+a.X509.CAReferences.Primary+", "+a.X509.CAReferences.Secondary, ", ")
	case a.X509 != nil:
		var names []string
		for _, c := range append(a.X509.Client.List(), a.X509.Signing.List()...) {
			names = append(names, thumbprint(c.Info.SHA256Thumbprint))
		}
		return strings.Join(names, ", ")
	}
	return ""
}

func thumbprint(sha256 string) string {
	if len(sha256) > 16 {
		sha256 = sha256[:16] + "…"
	}
	return "SHA-256 " + strings.ToLower(sha256)
}

// wholeSeconds is a time as shortTime gives one, empty for none.
func wholeSeconds(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05")
}

func shortTime(text string) string {
	text, _, _ = strings.Cut(strings.TrimSuffix(text, "Z"), ".")
	return text
}
