package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

// meanwhile is the script command of that name: between reading and writing an entry, as `set` does, somebody else disables it. The write
// must be refused and the entry stay as the other one left it.
func meanwhile(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: meanwhile enrollment|group ID")
	}
	c, err := newClient(ts.Getenv("LATCHKEY_CONNECTION_STRING"), ts.Getenv("LATCHKEY_CONNECT"), ts.Getenv("LATCHKEY_CA_FILE"))
	ts.Check(err)
	defer c.http.CloseIdleConnections()
	cmd := new(cobra.Command)
	cmd.SetContext(context.Background())
	change := map[string]func(id, status string, first func() error) error{
		"enrollment": func(id, status string, first func() error) error {
			return second(c.changeEnrollment(cmd, id, versioned(), func(e *dps.IndividualEnrollment) error { e.ProvisioningStatus = status; return first() }))
		},
		"group": func(id, status string, first func() error) error {
			return second(c.changeGroup(cmd, id, versioned(), func(g *dps.EnrollmentGroup) error { g.ProvisioningStatus = status; return first() }))
		},
	}[args[0]]
	disable := func() error { return change(args[1], dps.EnrollmentDisabled, func() error { return nil }) }
	var no *refused
	if err := change(args[1], dps.EnrollmentEnabled, disable); !errors.As(err, &no) || no.status != http.StatusPreconditionFailed {
		ts.Fatalf("a change of what somebody else has changed: %v", err)
	}
}
