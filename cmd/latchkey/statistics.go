package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func statisticsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "statistics", Short: "Count what the scope holds", Args: noArgs}
	connect := clientFlags(cmd)
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		data, err := c.call(cmd.Context(), http.MethodGet, "/latchkey/v1/statistics", nil, "", nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), data)
		}
		var held struct {
			Enrollments, EnrollmentGroups, Registrations map[string]uint64
			DisabledEnrollments                          uint64
		}
		if err := json.Unmarshal(data, &held); err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		for _, kind := range []struct {
			name   string
			counts map[string]uint64
		}{{"Enrollments", held.Enrollments}, {"Groups", held.EnrollmentGroups}, {"Registrations", held.Registrations}} {
			total := uint64(0)
			for _, n := range kind.counts {
				total += n
			}
			fmt.Fprintf(t, "%s\t%d\n", kind.name, total)
			for _, name := range slices.Sorted(maps.Keys(kind.counts)) {
				fmt.Fprintf(t, "  %s\t%d\n", name, kind.counts[name])
			}
			if kind.name == "Enrollments" {
				fmt.Fprintf(t, "  disabled\t%d\n", held.DisabledEnrollments)
			}
		}
		return t.Flush()
	}
	return cmd
}
