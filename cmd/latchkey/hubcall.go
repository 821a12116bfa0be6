package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/iothub"
)

func hubSend() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "send DEVICE [TEXT]",
		Short: "Send a message to a device; it waits at the hub until the device takes it or it expires",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usageError{errors.New("hub send needs a device id, and a text or --file")}
			}
			return nil
		},
	}
	connect := clientFlags(cmd)
	flags := cmd.Flags()
	file := flags.String("file", "", "file with the message; - is standard input")
	properties := flags.StringArray("property", nil, "NAME=VALUE for the device; may be given more than once")
	expires := flags.Duration("expires", 0, "how long it waits for the device, at most 48h; 0: an hour")
	header := http.Header{}
	texts := map[string]*string{}
	for _, f := range [][3]string{
		{"ack", "iothub-ack", "feedback that is wanted: none, positive, negative or full"}, {"message-id", "iothub-messageid", "id of the message"},
		{"correlation-id", "iothub-correlationid", "id of what it belongs to"}, {"user-id", "iothub-userid", "who sends it"},
		{"content-type", "iothub-contenttype", "media type of the message"}, {"content-encoding", "iothub-contentencoding", "character set of the message"},
	} {
		texts[f[1]] = flags.String(f[0], "", f[2])
	}
	asJSON := jsonFlag(cmd, "print what was sent as JSON")
	cmd.ValidArgsFunction = completeDevices(connect)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := messageBody(cmd, args[1:], *file)
		if err != nil {
			return err
		}
		bag, err := propertyBag(*properties)
		if err != nil {
			return err
		}
		for name, value := range texts {
			if *value != "" {
				header.Set(name, *value)
			}
		}
		if bag != "" {
			header.Set("X-Latchkey-Properties", bag)
		}
		if *expires < 0 || *expires > iothub.MaxMessageLife {
			return usageError{errors.New("--expires: must lie ahead, by at most 48h")}
		}
		if *expires > 0 {
			header.Set("iothub-expiry", time.Now().Add(*expires).UTC().Format(time.RFC3339))
		}
		header.Set("Content-Type", "application/octet-stream")
		c, err := connect()
		if err != nil {
			return err
		}
		if _, _, err := c.exchange(cmd.Context(), http.MethodPost, devicePath+url.PathEscape(args[0])+"/messages/deviceBound", versioned(), header, body); err != nil {
			return err
		}
		return tellValue(cmd, *asJSON, map[string]any{"deviceId": args[0], "bytes": len(body)}, "Sent %d bytes to %s; they wait until the device takes them", len(body), args[0])
	}
	return cmd
}

func messageBody(cmd *cobra.Command, argument []string, file string) ([]byte, error) {
	switch {
	case len(argument) > 0 == (file != ""):
		return nil, usageError{errors.New("name the message in one way: as an argument, or with --file")}
	case file != "":
		return readInput(file, cmd.InOrStdin(), iothub.MaxMessage)
	}
	return []byte(argument[0]), nil
}

// propertyBag is name=value&…, each percent-encoded.
func propertyBag(properties []string) (string, error) {
	bag := url.Values{}
	for _, p := range properties {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" || bag.Has(name) {
			return "", usageError{fmt.Errorf("--property: %q; write NAME=VALUE, each name once", p)}
		}
		bag.Set(name, value)
	}
	return bag.Encode(), nil
}

// methodFailed is the answer of a device that did not do what it was asked.
type methodFailed struct{ status int }

func (m methodFailed) Error() string {
	return fmt.Sprintf("the device answered with status %d", m.status)
}

func hubInvoke() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "invoke DEVICE METHOD [PAYLOAD]",
		Short: "Call a direct method of a connected device and print its answer",
		Long: `Call a direct method of a connected device and print its answer. PAYLOAD is JSON; a device that answers with a status of 300 or more makes the
exit code 1, and its answer is printed all the same.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || len(args) > 3 {
				return usageError{errors.New("hub invoke needs a device id and the name of a method, and perhaps a payload")}
			}
			return nil
		},
	}
	connect := clientFlags(cmd)
	respond := cmd.Flags().Duration("timeout", iothub.DefaultRespond, "how long the device may take to answer, 5s to 5m")
	wait := cmd.Flags().Duration("connect-timeout", 0, "how long to wait for a device that is not connected, at most 5m")
	asJSON := jsonFlag(cmd, "print status and payload as JSON")
	cmd.ValidArgsFunction = completeDevices(connect)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m := iothub.Method{Name: args[1], Respond: *respond, Connect: *wait}
		if len(args) == 3 {
			m.Payload = json.RawMessage(args[2])
			if !json.Valid(m.Payload) {
				return usageError{errors.New(`the payload must be JSON; a text stands in quotes: '"text"'`)}
			}
		}
		body := m.Encode()
		if _, err := iothub.DecodeMethod(body); err != nil {
			return usageError{err}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		c.http.Timeout = *respond + *wait + callTime
		data, err := c.call(cmd.Context(), http.MethodPost, twinPath+url.PathEscape(args[0])+"/methods", versioned(), "", body)
		if err != nil {
			return err
		}
		return printMethod(cmd, data, *asJSON)
	}
	return cmd
}

func printMethod(cmd *cobra.Command, data []byte, asJSON bool) error {
	var answer struct {
		Status  int
		Payload json.RawMessage
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	shown := []byte(answer.Payload)
	if asJSON {
		shown = data
	}
	if err := printJSON(cmd.OutOrStdout(), shown); err != nil {
		return err
	}
	if answer.Status >= 300 {
		return methodFailed{answer.Status}
	}
	return nil
}
