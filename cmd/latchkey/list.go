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
	where := cmd.Flags().String("where", "", "condition on the enrollments to list")
	limit := cmd.Flags().Int("limit", 0, "list at most so many; 0: all")
	asJSON := cmd.Flags().Bool("json", false, "print one JSON object a line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *limit < 0 {
			return usageError{errors.New("--limit must not be negative")}
		}
		text := "SELECT * FROM enrollments"
		if *where != "" {
			text += " WHERE " + *where
		}
		if _, err := dps.ParseQuery(text, dps.CollectionEnrollments); err != nil {
			return usageError{fmt.Errorf("--where (positions count from the start of %q): %w", "SELECT * FROM enrollments WHERE ", err)}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		out := newLister(cmd.OutOrStdout(), *asJSON)
		return errors.Join(c.eachEnrollment(cmd.Context(), text, *limit, out.line), out.flush())
	}
	return cmd
}

// eachEnrollment walks the pages of a query.
func (c *client) eachEnrollment(ctx context.Context, query string, limit int, do func(json.RawMessage) error) error {
	body, err := json.Marshal(map[string]string{"query": query})
	if err != nil {
		return err
	}
	header := http.Header{"X-Ms-Max-Item-Count": {listPage}}
	for count := 0; ; {
		answer, got, err := c.exchange(ctx, http.MethodPost, "/enrollments/query", versioned(), header, body)
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

// lister prints enrollments as a table, or as they are.
type lister struct {
	w      io.Writer
	table  *tabwriter.Writer // nil: JSON lines
	titled bool
}

func newLister(w io.Writer, asJSON bool) *lister {
	l := &lister{w: w}
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
	if !l.titled {
		l.titled = true
		fmt.Fprintln(l.table, "REGISTRATION ID\tSTATUS\tENDORSEMENT KEY\tDEVICE ID\tUPDATED")
	}
	var head struct{ RegistrationID, LastUpdatedDateTimeUtc string }
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	e, err := dps.DecodeEnrollment(head.RegistrationID, data)
	if err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	key := ""
	if e.Attestation.TPM != nil {
		key = describe(e.Attestation.TPM.EndorsementKey)
	}
	updated, _, _ := strings.Cut(head.LastUpdatedDateTimeUtc, ".")
	fmt.Fprintf(l.table, "%s\t%s\t%s\t%s\t%s\n", e.RegistrationID, e.ProvisioningStatus, key, e.DeviceID, updated)
	return nil
}

func (l *lister) flush() error {
	if l.table == nil {
		return nil
	}
	return l.table.Flush()
}
