package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/iothub"
)

const allocationPath = "/latchkey/v1/allocation"

// allocationAnswer is how hubs are chosen, as the service tells it.
type allocationAnswer struct {
	DefaultPolicy string
	Regions       []struct {
		Name     string
		Networks []string
		Latency  map[string]int
	}
	WebhookKeySet bool
	ETag          string
	Warnings      []string
}

func hubAllocation() *cobra.Command {
	cmd := group("allocation", "How a hub is chosen where an enrollment says nothing else")
	connect := clientFlags(cmd)
	show := &cobra.Command{Use: "show", Short: "Show the default policy, the table of regions, and whether questions to webhooks are signed", Args: noArgs}
	cmd.AddCommand(showAnswer(show, connect, at(allocationPath), nil, printAllocation), allocationSet(connect))
	return cmd
}

func printAllocation(w io.Writer, data []byte) error {
	var a allocationAnswer
	if err := json.Unmarshal(data, &a); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	signed := "not signed: there is no key"
	if a.WebhookKeySet {
		signed = "signed"
	}
	fmt.Fprintf(w, "Default policy        %s\nQuestions to webhooks %s\n", printable(a.DefaultPolicy), signed)
	if len(a.Regions) > 0 {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "\nREGION\tNETWORKS\tLATENCY")
		for _, r := range a.Regions {
			var latency []string
			for _, hub := range slices.Sorted(maps.Keys(r.Latency)) {
				latency = append(latency, fmt.Sprintf("%s %d ms", hub, r.Latency[hub]))
			}
			row(t, r.Name, strings.Join(r.Networks, ", "), strings.Join(latency, ", "))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, warning := range a.Warnings {
		if _, err := fmt.Fprintln(w, "\nWarning: "+printable(warning)); err != nil {
			return err
		}
	}
	return nil
}

func allocationSet(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Change the default policy or the table of regions, or make the key that signs questions to webhooks",
		Long: `Change how hubs are chosen. The file of --regions holds an array in JSON, which takes the place of the whole table; [] empties it:

  [{"name": "north", "networks": ["192.0.2.0/24", "2001:db8::/32"], "latency": {"hub-a.example.net": 12, "hub-b.example.net": 80}}]

A device whose address is in one of the networks is in that region; of several the longest prefix decides. Latency is in milliseconds.

--new-webhook-key makes a fresh key in place of the one before, and prints it this once, as the libraries of Standard Webhooks take it.`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	policy := flags.String("default", "", "allocation policy of enrollments that name none: hashed, geoLatency or static")
	regions := flags.String("regions", "", "file with the table of regions as JSON, - for standard input")
	fresh := flags.Bool("new-webhook-key", false, "make a fresh key that signs questions to webhooks, and print it")
	unsigned := flags.Bool("no-webhook-key", false, "leave questions to webhooks unsigned")
	asJSON := jsonFlag(cmd, "print the settings, or the new key, as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		body, err := allocationBody(cmd, *policy, *regions)
		switch {
		case err != nil:
			return err
		case *fresh && *unsigned:
			return usageError{errors.New("--new-webhook-key and --no-webhook-key exclude each other")}
		case body == nil && !*fresh && !*unsigned:
			return usageError{errors.New("say what is to change; see --help")}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		if body != nil {
			data, err := c.call(cmd.Context(), http.MethodPatch, allocationPath, nil, "", body)
			if err != nil {
				return err
			}
			if err := printChanged(cmd, data, *asJSON && !*fresh && !*unsigned); err != nil {
				return err
			}
		}
		switch {
		case *fresh:
			return c.newWebhookKey(cmd, *asJSON)
		case *unsigned:
			if _, err := c.call(cmd.Context(), http.MethodDelete, allocationPath+"/webhookKey", nil, "", nil); err != nil {
				return err
			}
			return tellValue(cmd, *asJSON, map[string]bool{"webhookKeySet": false}, "Questions to webhooks are not signed any more")
		}
		return nil
	}
	return cmd
}

// printChanged tells on standard error, so that a key alone is on standard output.
func printChanged(cmd *cobra.Command, data []byte, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), data)
	}
	return printAllocation(cmd.ErrOrStderr(), data)
}

func (c *client) newWebhookKey(cmd *cobra.Command, asJSON bool) error {
	data, err := c.call(cmd.Context(), http.MethodPost, allocationPath+"/webhookKey", nil, "", nil)
	if err != nil {
		return err
	}
	var made struct{ WebhookKey string }
	if err := json.Unmarshal(data, &made); err != nil || made.WebhookKey == "" {
		return errors.New("the service's answer holds no key")
	}
	if !asJSON {
		fmt.Fprintln(cmd.ErrOrStderr(), "The key that signs questions to webhooks from now on, which is secret and shown this once:")
	}
	return tell(cmd, asJSON, data, "%s", printable(made.WebhookKey))
}

// allocationBody judges on this side what the service would refuse; nil if nothing is said.
func allocationBody(cmd *cobra.Command, policy, regions string) ([]byte, error) {
	message := map[string]any{}
	if policy != "" {
		message["defaultPolicy"] = policy
	}
	if regions != "" {
		data, err := readInput(regions, cmd.InOrStdin(), maxHubFile)
		if err != nil {
			return nil, err
		}
		if !json.Valid(data) {
			return nil, fmt.Errorf("%s is not JSON", inputName(regions))
		}
		message["regions"] = json.RawMessage(bytes.TrimSpace(data))
	}
	if len(message) == 0 {
		return nil, nil
	}
	body, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	if _, err := dps.DecodeAllocation(body); err != nil {
		return nil, usageError{err}
	}
	return body, nil
}

// warnOfHubs tells on standard error what of the hubs and their choice is likely to be a mistake.
func (c *client) warnOfHubs(cmd *cobra.Command) error {
	data, err := c.call(cmd.Context(), http.MethodGet, allocationPath, nil, "", nil)
	if err != nil {
		return err
	}
	var a allocationAnswer
	if err := json.Unmarshal(data, &a); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	for _, warning := range a.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "Warning: "+printable(warning))
	}
	return nil
}

// connection is the secret of an azure hub, and notes its name. The text is in no error.
func (f *hubFlags) connection(text, from string) (json.RawMessage, error) {
	text = strings.TrimSpace(text)
	c, err := iothub.ParseConnection(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", from, err)}
	}
	f.named, _, _ = strings.Cut(strings.ToLower(c.HostName), ":")
	return json.Marshal(map[string]string{"connectionString": text})
}
