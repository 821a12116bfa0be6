package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// statistics are what the scope holds, as the service counts it.
type statistics struct {
	Enrollments, EnrollmentGroups, Registrations map[string]uint64
	DisabledEnrollments                          uint64
}

// countEnrollments is how many lines an export will have, about; 0 if the access policy may not know.
func (c *client) countEnrollments(ctx context.Context) (count int64) {
	data, err := c.call(ctx, http.MethodGet, "/latchkey/v1/statistics", nil, "", nil)
	if err != nil {
		return 0
	}
	var held statistics
	if json.Unmarshal(data, &held) != nil {
		return 0
	}
	for _, n := range held.Enrollments {
		count += int64(n)
	}
	return count
}

func statisticsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "statistics", Short: "Count what the scope holds", Args: noArgs}
	connect := clientFlags(cmd)
	return showAnswer(cmd, connect, at("/latchkey/v1/statistics"), nil, printStatistics)
}

func printStatistics(w io.Writer, data []byte) error {
	var held statistics
	if err := json.Unmarshal(data, &held); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
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
			row(t, "  "+name, strconv.FormatUint(kind.counts[name], 10))
		}
		if kind.name == "Enrollments" {
			fmt.Fprintf(t, "  disabled\t%d\n", held.DisabledEnrollments)
		}
	}
	return t.Flush()
}
