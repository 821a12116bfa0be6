package main

import (
	"testing"

	"github.com/spf13/cobra"
)

// Programs read every command's answer; where --output is a file, or there is
// no answer, that is so on purpose.
func TestEveryCommandAnswersInJSON(t *testing.T) {
	others := map[string]string{"latchkey serve": "", "latchkey hub serve": "", "latchkey enroll export": "FILE", "latchkey export": "FILE", "latchkey backup": "FILE"}
	count := 0
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			walk(c)
		}
		if cmd.HasSubCommands() && cmd.Use != "export" {
			return
		}
		count++
		kind := ""
		if output := cmd.Flags().Lookup("output"); output != nil {
			kind = output.Value.Type()
		}
		want, other := others[cmd.CommandPath()]
		if !other {
			want = "table|json"
		}
		if kind != want {
			t.Errorf("%s: --output %q, want %q", cmd.CommandPath(), kind, want)
		}
	}
	walk(command())
	if count < 40 {
		t.Errorf("only %d commands", count)
	}
}
