package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// showAnswer makes a command that reads one path and prints the answer: as it is, or by show.
func showAnswer(cmd *cobra.Command, connect func() (*client, error), path func(args []string) string, query url.Values, show func(io.Writer, []byte) error) *cobra.Command {
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		data, err := c.call(cmd.Context(), http.MethodGet, path(args), query, "", nil)
		switch {
		case err != nil:
			return err
		case *asJSON:
			return printJSON(cmd.OutOrStdout(), data)
		}
		return show(cmd.OutOrStdout(), data)
	}
	return cmd
}

// row writes the cells of a table. A terminal does what an answer says, so that it says nothing but text.
func row(w io.Writer, cells ...string) error {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	_, err := fmt.Fprintln(w, strings.Join(cells, "\t"))
	return err
}

// at is a path that has no argument in it.
func at(path string) func([]string) string { return func([]string) string { return path } }

// takeAway makes a command that asks, unless it is told --yes, and deletes what its argument names. %s in question and done is that argument.
func takeAway(cmd *cobra.Command, connect func() (*client, error), folder string, query url.Values, question, done string) *cobra.Command {
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	asJSON := jsonFlag(cmd, "print what was removed as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		if !*yes {
			if err := confirm(cmd, fmt.Sprintf(question, args[0])); err != nil {
				return err
			}
		}
		if _, err := c.call(cmd.Context(), http.MethodDelete, folder+url.PathEscape(args[0]), query, "", nil); err != nil {
			return err
		}
		return tellValue(cmd, *asJSON, removed{args[0], true}, done, args[0])
	}
	return cmd
}
