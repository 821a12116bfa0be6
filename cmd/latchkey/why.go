package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"
)

func whyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why TRACKINGID",
		Short: "Say why a request was answered as it was",
		Long: `Say why a request was answered as it was.

Every answer of the service carries a tracking id (trackingId in the body, x-ms-request-id in the header). A stranger is told
no reason; this command tells the operator.`,
		Args: oneArg("tracking id"),
	}
	connect := clientFlags(cmd)
	return showAnswer(cmd, connect, func(args []string) string { return "/latchkey/v1/decisions/" + url.PathEscape(args[0]) }, nil, printDecision)
}

func printDecision(w io.Writer, data []byte) error {
	var d struct {
		Time, Reason, Meaning string
		Request               *struct {
			RegistrationID, Scope, Address, Note, First string
			Count                                       uint64
		}
		Audit []struct{ Time, Actor, Address, Action, Object, Outcome, Reason string }
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	say := func(format string, values ...any) { // a terminal does what an answer says
		for i, value := range values {
			if text, ok := value.(string); ok {
				values[i] = printable(text)
			}
		}
		fmt.Fprintf(w, format, values...)
	}
	say("%s at %s\n%s\n", d.Reason, d.Time, d.Meaning)
	if r := d.Request; r != nil {
		say("\nAsked by %s for registration id %q in scope %q; %d times since %s.\n", r.Address, r.RegistrationID, r.Scope, r.Count, r.First)
		if r.Note != "" {
			say("%s\n", r.Note)
		}
	}
	for _, row := range d.Audit {
		say("\nAudit %s  %s %s %s: %s (%s) %s\n", row.Time, row.Actor, row.Action, row.Object, row.Outcome, row.Reason, row.Address)
	}
	return nil
}
