package main

import (
	"encoding/json"
	"errors"
	"fmt"

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

// fileValue is a flag --output that names a file, where other commands have a form in its place.
type fileValue struct{ name *string }

func (v fileValue) String() string {
	if v.name == nil {
		return ""
	}
	return *v.name
}

func (v fileValue) Set(text string) error {
	if text == "table" || text == "json" {
		return fmt.Errorf("--output names the file to write here, not a form; write ./%s if the file is to have that name", text)
	}
	*v.name = text
	return nil
}

func (fileValue) Type() string { return "FILE" }

// fileFlag adds --output for commands that write a file.
func fileFlag(cmd *cobra.Command, help string) *string {
	name := new(string)
	cmd.Flags().Var(fileValue{name}, "output", help)
	return name
}

// tell prints what was done: the answer as JSON, or a sentence.
func tell(cmd *cobra.Command, asJSON bool, answer []byte, format string, args ...any) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), answer)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	return err
}

// tellValue is tell where this side makes the answer.
func tellValue(cmd *cobra.Command, asJSON bool, answer any, format string, args ...any) error {
	data, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return tell(cmd, asJSON, data, format, args...)
}

// removed is what every command prints as JSON that takes something away.
type removed struct {
	ID      string `json:"id"`
	Removed bool   `json:"removed"`
}

// withoutKeys is an entry of the service's answer without its symmetric keys, which are shown to those only who ask for them.
func withoutKeys(entry []byte) ([]byte, error) {
	var members, attestation map[string]json.RawMessage
	if err := json.Unmarshal(entry, &members); err != nil {
		return nil, errors.New("the service's answer is no entry") // the cause could quote a key
	}
	if err := json.Unmarshal(members["attestation"], &attestation); err != nil {
		return nil, errors.New("the service's answer is no entry")
	}
	if attestation["symmetricKey"] == nil {
		return entry, nil
	}
	delete(attestation, "symmetricKey")
	var err error
	if members["attestation"], err = json.Marshal(attestation); err != nil {
		return nil, err
	}
	return json.Marshal(members)
}
