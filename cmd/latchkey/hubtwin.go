package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/iothub"
)

func hubTwin() *cobra.Command {
	cmd := group("twin", "Device twins: tags, desired and reported properties")
	connect := clientFlags(cmd)
	cmd.AddCommand(twinGet(connect), twinSet(connect))
	return cmd
}

func twinGet(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "get DEVICE", Short: "Show a device's twin: tags, desired and reported properties, their versions", Args: oneArg("device id")}
	cmd.ValidArgsFunction = completeDevices(connect)
	return showAnswer(cmd, connect, func(args []string) string { return twinPath + url.PathEscape(args[0]) }, versioned(), printTwin)
}

// printTwin shows the documents without what the hub notes of each member.
func printTwin(w io.Writer, data []byte) error {
	var t struct {
		knownTwin
		Tags       map[string]any
		Properties struct{ Desired, Reported map[string]any }
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	parts := []struct {
		name string
		part map[string]any
	}{{"Tags", t.Tags}, {"Desired properties", t.Properties.Desired}, {"Reported properties", t.Properties.Reported}}
	fmt.Fprintf(w, "Twin of %s, version %d, etag %s\n", printable(t.DeviceID), t.Version, printable(t.ETag))
	for _, p := range parts {
		version := ""
		if v, ok := p.part["$version"].(float64); ok {
			version = fmt.Sprintf(", version %.0f", v)
		}
		delete(p.part, "$version")
		delete(p.part, "$metadata")
		if p.part == nil {
			p.part = map[string]any{}
		}
		text, err := json.MarshalIndent(p.part, "", "  ")
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "\n%s%s\n%s\n", p.name, version, visible(string(text))); err != nil {
			return err
		}
	}
	return nil
}

func twinSet(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set DEVICE [JSON]",
		Short: "Change tags and desired properties of a device's twin",
		Long: `Change tags and desired properties of a device's twin. The change is a JSON object of the form

    {"tags": {"place": "hall 3"}, "properties": {"desired": {"interval": 30, "old": null}}}

as an argument, in a file (--file, - is standard input), or in parts with --tags and --desired. It is merged into what is there: null removes a
member. With --replace each part that is named takes the place of all that was there. The device is told at once if it is connected and listens.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usageError{errors.New("hub twin set needs a device id, and perhaps a JSON object")}
			}
			return nil
		},
	}
	file := cmd.Flags().String("file", "", "file with the change; - is standard input")
	tags := cmd.Flags().String("tags", "", "JSON object to merge into the tags")
	desired := cmd.Flags().String("desired", "", "JSON object to merge into the desired properties")
	replace := cmd.Flags().Bool("replace", false, "replace each part that is named")
	match := cmd.Flags().String("if-match", "", "change it only if this is its etag")
	asJSON := jsonFlag(cmd, "print the twin as JSON")
	cmd.ValidArgsFunction = completeDevices(connect)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := twinBody(cmd, args[1:], *file, *tags, *desired)
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		method := http.MethodPatch
		if *replace {
			method = http.MethodPut
		}
		data, err := c.call(cmd.Context(), method, twinPath+url.PathEscape(args[0]), versioned(), *match, body)
		if err != nil {
			return err
		}
		var t knownTwin
		if err := json.Unmarshal(data, &t); err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		return tell(cmd, *asJSON, data, "Changed the twin of %s: version %d, desired properties %d, etag %s", printable(t.DeviceID), t.Version, t.Properties.Desired.Version, printable(t.ETag))
	}
	return cmd
}

// twinBody is the change that the command line names, in one of three ways.
func twinBody(cmd *cobra.Command, argument []string, file, tags, desired string) (body []byte, err error) {
	ways := 0
	for _, given := range []bool{len(argument) > 0, file != "", tags+desired != ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return nil, usageError{errors.New("name the change in one way: as an argument, with --file, or with --tags and --desired")}
	case len(argument) > 0:
		body = []byte(argument[0])
	case file != "":
		if body, err = readInput(file, cmd.InOrStdin(), iothub.MaxTwinBody); err != nil {
			return nil, err
		}
	default:
		if body, err = twinParts(tags, desired); err != nil {
			return nil, err
		}
	}
	update, err := iothub.DecodeTwinUpdate(body)
	switch {
	case err != nil:
		return nil, usageError{fmt.Errorf("the change: %w", err)}
	case len(update.Tags) == 0 && len(update.Desired) == 0:
		return nil, usageError{errors.New(`the change names neither tags nor desired properties: {"tags": {…}, "properties": {"desired": {…}}}`)}
	}
	return body, nil
}

func twinParts(tags, desired string) ([]byte, error) {
	parts := map[string]any{}
	for name, text := range map[string]string{"--tags": tags, "--desired": desired} {
		if text != "" && !json.Valid([]byte(text)) {
			return nil, usageError{fmt.Errorf("%s is no JSON object", name)}
		}
	}
	if tags != "" {
		parts["tags"] = json.RawMessage(tags)
	}
	if desired != "" {
		parts["properties"] = map[string]any{"desired": json.RawMessage(desired)}
	}
	return json.Marshal(parts)
}
