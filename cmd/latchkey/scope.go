package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

const scopePath = "/latchkey/v1/scopes"

// scopeAnswer is a scope as the service tells it.
type scopeAnswer struct {
	IDScope                               string
	Hosts                                 []string
	Home                                  bool
	CreatedDateTimeUtc, CertificateEndUtc string
	ConnectionString                      string
}

func scopeCommand() *cobra.Command {
	cmd := group("scope", "ID scopes: the tenants of an installation")
	cmd.Long = `ID scopes: the tenants of an installation. Each has its own enrollments, access policies, hub and registrations, which the others do not see.
The connection string in use must be of the home scope, the one that 'latchkey init' made, and have ServiceConfig.`
	connect := clientFlags(cmd)
	cmd.AddCommand(scopeCreate(connect), scopeList(connect), scopeDelete(connect))
	return cmd
}

func scopeCreate(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create --host NAME",
		Short: "Create a scope and print its id and its connection string, which is secret and shown this once",
		Long: `Create a scope for one or more host names. The first names its hub. The service serves it at once, with a certificate for its names that the
installation's private CA issues; that CA vouches for names at or below those that 'latchkey init' was given.`,
		Args: noArgs,
	}
	hosts := cmd.Flags().StringSlice("host", nil, "host name of its management API and its hub; give it again for more names")
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(*hosts) == 0 {
			return usageError{errors.New("name the host, such as --host plant2.dps.example.net")}
		}
		body, err := json.Marshal(map[string][]string{"hosts": *hosts})
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		data, err := c.call(cmd.Context(), http.MethodPost, scopePath, nil, "", body)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), data)
		}
		var made scopeAnswer
		if err := json.Unmarshal(data, &made); err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "ID scope           %s\nHosts              %s\nConnection string  %s\n", printable(made.IDScope), printable(strings.Join(made.Hosts, ", ")), printable(made.ConnectionString))
		return err
	}
	return cmd
}

func scopeList(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the scopes of the installation", Args: noArgs}
	return showAnswer(cmd, connect, at(scopePath), nil, printScopes)
}

func printScopes(w io.Writer, data []byte) error {
	var all struct{ Scopes []scopeAnswer }
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID SCOPE\tHOSTS\tHOME\tCREATED\tCERTIFICATE ENDS")
	for _, s := range all.Scopes {
		home, end := "", "with the service's"
		if s.Home {
			home = "home"
		}
		if s.CertificateEndUtc != "" {
			end = shortTime(s.CertificateEndUtc)
		}
		row(t, s.IDScope, strings.Join(s.Hosts, ", "), home, shortTime(s.CreatedDateTimeUtc), end)
	}
	return t.Flush()
}

func scopeDelete(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "delete IDSCOPE", Short: "Delete a scope and all that is in it", Args: oneArg("ID scope")}
	return takeAway(cmd, connect, scopePath+"/", nil,
		"Delete the scope %s with all its enrollments, groups, registrations, access policies and its hub? This cannot be undone.", "Deleted the scope %s")
}
