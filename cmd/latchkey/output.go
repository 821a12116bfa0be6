package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// outputValue is the flag --output: table for people, json for programs.
type outputValue struct{ json *bool }

func (v outputValue) String() string {
	if v.json != nil && *v.json {
		return "json"
	}
	return "table"
}

func (v outputValue) Set(text string) error {
	switch text {
	case "table", "json":
		*v.json = text == "json"
		return nil
	}
	return errors.New("use table or json")
}

func (outputValue) Type() string { return "table|json" }

// jsonFlag adds --output, and --json as its short form.
func jsonFlag(cmd *cobra.Command, help string) *bool {
	asJSON := new(bool)
	cmd.Flags().Var(outputValue{asJSON}, "output", "table for people, json for programs")
	cmd.Flags().BoolVar(asJSON, "json", false, help+"; the same as --output json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)) // it is there
	return asJSON
}
