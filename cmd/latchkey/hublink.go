package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"
)

// hubConnectionVariable holds a hub's connection string for those who keep it nowhere else.
const hubConnectionVariable = "LATCHKEY_HUB_CONNECTION_STRING"

func hubLink() *cobra.Command {
	var f hubFlags
	cmd := &cobra.Command{
		Use:   "link [HUB] --kind azure|broker|embedded",
		Short: "Link a hub to the scope, so that devices are given to it",
		Long: `Link a hub to the scope. HUB is the host name that its devices connect to; of the kind azure it may be left out, since the connection string has it.

azure     an Azure IoT Hub, or what has its REST interface, such as 'latchkey hub serve' on another machine. The connection string of an access policy
          with RegistryRead, RegistryWrite and ServiceConnect comes from --hub-connection-file or ` + hubConnectionVariable + `.
broker    an MQTT broker that asks over HTTP who may log in: --settings and --secret name files with JSON; docs/hubs/brokers.md describes them.
embedded  a further name of the hub that is built in; the installation's CA issues a certificate for it.

Before it is linked the hub is asked once whether it lets the service do what it will have to, and the refusal says what is wrong. --no-check leaves that
out, for a hub that is not up yet. Secrets are never given on the command line.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%s links one hub", nameOf(cmd))}
			}
			return nil
		},
	}
	connect := clientFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.kind, "kind", "", "kind of the hub: azure, broker or embedded")
	f.add(cmd)
	asJSON := jsonFlag(cmd, "print the linked hub as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.kind != "azure" && f.kind != "broker" && f.kind != "embedded" {
			return usageError{errors.New("say what kind of hub it is: --kind azure, --kind broker or --kind embedded")}
		}
		message, err := f.message(cmd, nil)
		if err != nil {
			return err
		}
		name := f.named
		if len(args) > 0 {
			name = args[0]
		}
		if name == "" {
			return usageError{errors.New("name the hub: the host name that its devices connect to")}
		}
		message["kind"] = f.kind
		data, err := f.send(cmd, connect, http.MethodPut, name, "", message)
		if err != nil {
			return err
		}
		h, err := decodeHub(data)
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, data, "Linked %s: %s, weight %d", printable(h.Name), h.Kind, h.Weight)
	}
	return cmd
}

func hubSet() *cobra.Command {
	var f hubFlags
	cmd := &cobra.Command{
		Use:   "set HUB",
		Short: "Change how a hub is linked: its weight, region, settings or secret",
		Long: `Change how a hub is linked. What is not named stays as it is, and nothing is changed if somebody else changes it at the same time. New settings, and a new secret,
are tried before they take the place of the old ones, unless --no-check says otherwise. Weights count when devices register next: who is at a hub stays until then.`,
		Args: oneArg("name of a hub"),
	}
	connect := clientFlags(cmd)
	f.add(cmd)
	cmd.ValidArgsFunction = completeHubs(connect)
	asJSON := jsonFlag(cmd, "print the linked hub as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		before, err := c.hub(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		message, err := f.message(cmd, before.Settings)
		switch {
		case err != nil:
			return err
		case len(message) == 0:
			return usageError{errors.New("say what is to change; see --help")}
		case f.named != "" && f.named != before.Name:
			return usageError{fmt.Errorf("the connection string is of the hub %s", f.named)}
		}
		data, err := f.send(cmd, connect, http.MethodPatch, args[0], before.ETag, message)
		if err != nil {
			return err
		}
		if err := tell(cmd, *asJSON, data, "Changed %s", printable(before.Name)); err != nil {
			return err
		}
		return c.warnOfHubs(cmd)
	}
	return cmd
}

// send sends a message about a hub.
func (f *hubFlags) send(cmd *cobra.Command, connect func() (*client, error), method, name, ifMatch string, message map[string]any) ([]byte, error) {
	body, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	c, err := connect()
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	if f.untried {
		query.Set("check", "false")
	}
	return c.call(cmd.Context(), method, hubPath+"/"+url.PathEscape(name), query, ifMatch, body)
}

func hubDrain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain HUB",
		Short: "Give a hub no more devices: those that are there leave it when they register next",
		Long: `Give a hub no more devices. Those that are there stay connected, and leave it when they register next, as far as the reprovisioning policy of their enrollment lets
them; 'latchkey hub list' counts who is left. --undo lets the hub take devices again.`,
		Args: oneArg("name of a hub"),
	}
	connect := clientFlags(cmd)
	cmd.ValidArgsFunction = completeHubs(connect)
	undo := cmd.Flags().Bool("undo", false, "let it take devices again")
	asJSON := jsonFlag(cmd, "print the linked hub as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		data, err := c.call(cmd.Context(), http.MethodPatch, hubPath+"/"+url.PathEscape(args[0]), nil, "", fmt.Appendf(nil, `{"draining":%t}`, !*undo))
		if err != nil {
			return err
		}
		h, err := decodeHub(data)
		if err != nil {
			return err
		}
		done := "takes no more devices; of those that are there, see latchkey hub list"
		if *undo {
			done = "takes devices again"
		}
		if err := tell(cmd, *asJSON, data, "%s %s", printable(h.Name), done); err != nil {
			return err
		}
		return c.warnOfHubs(cmd)
	}
	return cmd
}

func hubUnlink() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unlink HUB",
		Short: "Unlink a hub from the scope; what devices have there stays there",
		Long: `Unlink a hub from the scope. While registrations are at it, or entries name it, that is refused; --force unlinks it all the same: its devices get another hub
when they register next, and their twins and messages stay behind, out of reach.`,
		Args: oneArg("name of a hub"),
	}
	connect := clientFlags(cmd)
	cmd.ValidArgsFunction = completeHubs(connect)
	force := cmd.Flags().Bool("force", false, "though devices are there, or entries name it")
	query := url.Values{}
	takeAway(cmd, connect, hubPath+"/", query, "Unlink the hub %s?", "Unlinked %s")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *force {
			query.Set("force", "true")
		}
		return run(cmd, args)
	}
	return cmd
}

// hubFlags say how a hub is linked.
type hubFlags struct {
	kind, region, connectionFile, ca, address, settings, secret string
	weight                                                      int
	allocate, untried                                           bool
	named                                                       string // by the connection string
}

func (f *hubFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&f.weight, "weight", 1, "its share of devices whose hub is chosen by hash, 1 to 1000")
	flags.BoolVar(&f.allocate, "allocate", true, "take part in allocation; false: only an enrollment that names the hub leads there")
	flags.StringVar(&f.region, "region", "", "name of its region, for geoLatency")
	flags.StringVar(&f.connectionFile, "hub-connection-file", "", "file with the connection string of an azure hub, - for standard input")
	flags.StringVar(&f.ca, "hub-ca-file", "", "PEM file of the CA that the certificate of an azure hub, or of a broker's management API, comes from, beside the system's")
	flags.StringVar(&f.address, "hub-address", "", "host:port of an azure hub's REST interface where its name does not lead there")
	flags.StringVar(&f.settings, "settings", "", "file with the settings as JSON, - for standard input")
	flags.StringVar(&f.secret, "secret", "", "file with the secret as JSON, - for standard input")
	flags.BoolVar(&f.untried, "no-check", false, "do not ask the hub first whether it lets the service do what it will have to")
}

// message is what the flags that were given say. Settings are those that are there, or those of --settings, with what other flags put into them.
func (f *hubFlags) message(cmd *cobra.Command, settings json.RawMessage) (map[string]any, error) {
	if err := onceStandardInput(f.connectionFile, f.settings, f.secret); err != nil {
		return nil, err
	}
	message := map[string]any{}
	given := cmd.Flags().Changed
	if given("weight") {
		message["weight"] = f.weight
	}
	if given("allocate") {
		message["allocate"] = f.allocate
	}
	if given("region") {
		message["region"] = f.region
	}
	changed, err := f.settingsOf(cmd, settings)
	if err != nil {
		return nil, err
	}
	if changed != nil {
		message["settings"] = changed
	}
	secret, err := f.secretOf(cmd)
	if err != nil {
		return nil, err
	}
	if secret != nil {
		message["secret"] = secret
	}
	return message, nil
}

// settingsOf is nil if nothing is said of settings.
func (f *hubFlags) settingsOf(cmd *cobra.Command, there json.RawMessage) (map[string]json.RawMessage, error) {
	given := cmd.Flags().Changed
	if !given("settings") && !given("hub-ca-file") && !given("hub-address") {
		return nil, nil
	}
	settings := map[string]json.RawMessage{}
	if f.settings != "" {
		data, err := readInput(f.settings, cmd.InOrStdin(), maxHubFile)
		if err != nil {
			return nil, err
		}
		there = data
	}
	if (f.settings != "" || len(there) > 0) && (json.Unmarshal(there, &settings) != nil || settings == nil) {
		return nil, fmt.Errorf("%s: the settings must be a JSON object", inputName(f.settings))
	}
	for name, value := range map[string]struct {
		flag, text string
		file       bool
	}{"ca": {"hub-ca-file", f.ca, true}, "address": {"hub-address", f.address, false}} {
		switch {
		case !given(value.flag):
			continue
		case value.text == "":
			delete(settings, name)
			continue
		case value.file:
			data, err := readFile(value.text, maxHubFile)
			if err != nil {
				return nil, err
			}
			value.text = string(data)
		}
		settings[name], _ = json.Marshal(value.text) // a text has JSON
	}
	return settings, nil
}

// maxHubFile bounds a file about a hub.
const maxHubFile = 64 << 10

// secretOf is nil if nothing is said of a secret.
func (f *hubFlags) secretOf(cmd *cobra.Command) (json.RawMessage, error) {
	text, from := "", hubConnectionVariable
	switch {
	case f.connectionFile != "" && f.secret != "":
		return nil, usageError{errors.New("give the secret in one way: --hub-connection-file or --secret")}
	case f.secret != "":
		data, err := readInput(f.secret, cmd.InOrStdin(), maxHubFile)
		if err != nil {
			return nil, err
		}
		if object := map[string]json.RawMessage{}; json.Unmarshal(data, &object) != nil || object == nil {
			return nil, fmt.Errorf("%s: the secret must be a JSON object", inputName(f.secret)) // the cause could quote it
		}
		return data, nil
	case f.connectionFile != "":
		data, err := readInput(f.connectionFile, cmd.InOrStdin(), maxHubFile)
		if err != nil {
			return nil, err
		}
		text, from = string(data), inputName(f.connectionFile)
	case f.kind == "azure":
		text = os.Getenv(hubConnectionVariable)
	}
	if text == "" {
		if f.kind == "azure" {
			return nil, usageError{errors.New("an azure hub needs its connection string: --hub-connection-file FILE, or " + hubConnectionVariable)}
		}
		return nil, nil
	}
	return f.connection(text, from)
}
