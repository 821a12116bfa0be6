package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"latchkey.example/latchkey/internal/iothub"
)

func hubDevices() *cobra.Command {
	cmd := group("devices", "Device identities at the embedded hub of the scope")
	cmd.Long = `Device identities at the embedded hub of the scope. Reading needs the permission RegistryRead or ServiceConnect, keys need RegistryRead, changing
needs RegistryWrite.

A device that was provisioned here is given what its enrollment says whenever it proves itself: a key that is set here lasts until then.`
	connect := clientFlags(cmd)
	cmd.AddCommand(deviceList(connect), deviceShow(connect), deviceAdd(connect), deviceSet(connect), deviceRemove(connect))
	return cmd
}

const devicePath, twinPath = "/devices/", "/twins/"

func deviceList(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List devices, in order of their ids; never keys",
		Long: `List devices, in order of their ids; never keys.

--where takes a condition such as
    status = 'disabled'
    connectionState = 'Connected' AND startswith(deviceId, 'line4-')
    tags.place = 'hall 3' AND properties.reported.level < 4`,
		Args: noArgs,
	}
	flags := addQueryFlags(cmd, "devices")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		text, err := deviceQuery(flags)
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		out := newLister(cmd.OutOrStdout(), *flags.asJSON, "DEVICE ID\tSTATUS\tCONNECTION\tAUTHENTICATION\tLAST ACTIVITY\tWAITING\tTWIN", deviceCells)
		err = errors.Join(c.eachItem(cmd.Context(), "/devices/query", text, *flags.limit, out.line), out.flush())
		if err == nil && out.none() && device(cmd.ErrOrStderr()) {
			fmt.Fprintln(cmd.ErrOrStderr(), "No devices found.")
		}
		return err
	}
	return cmd
}

// deviceQuery is judged on this side so that the message comes with the command.
func deviceQuery(flags queryFlags) (string, error) {
	if *flags.limit < 0 {
		return "", usageError{errors.New("--limit must not be negative")}
	}
	text := "SELECT * FROM devices"
	if *flags.where == "" {
		return text, nil
	}
	before := text + " WHERE "
	if _, err := iothub.ParseQuery(before + *flags.where); err != nil {
		return "", whereError(err, len(before))
	}
	return before + *flags.where, nil
}

// knownTwin is what is shown of a twin's answer.
type knownTwin struct {
	DeviceID                  string
	ETag                      string
	DeviceETag                string
	Status                    string
	StatusReason              string
	StatusUpdateTime          string
	ConnectionState           string
	LastActivityTime          string
	CloudToDeviceMessageCount int
	AuthenticationType        string
	Capabilities              struct{ IoTEdge bool }
	Version                   uint64
	Properties                struct {
		Desired, Reported struct {
			Version uint64 `json:"$version"`
		}
	}
}

func deviceCells(data json.RawMessage) ([]string, error) {
	var t knownTwin
	err := json.Unmarshal(data, &t)
	return []string{t.DeviceID, t.Status, t.ConnectionState, t.AuthenticationType, sometime(t.LastActivityTime), fmt.Sprint(t.CloudToDeviceMessageCount),
		fmt.Sprintf("desired %d, reported %d", t.Properties.Desired.Version, t.Properties.Reported.Version)}, err
}

// sometime is a time as people read it, empty if it has not been.
func sometime(text string) string {
	if strings.HasPrefix(text, "0001-01-01") {
		return ""
	}
	return shortTime(text)
}

func deviceShow(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show DEVICE",
		Short: "Show a device; with --keys its connection strings too, which the audit log notes",
		Args:  oneArg("device id"),
	}
	keys := cmd.Flags().Bool("keys", false, "print its connection strings, which are secret")
	asJSON := jsonFlag(cmd, "print it as JSON; with --keys the identity with them")
	cmd.ValidArgsFunction = completeDevices(connect)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		if *keys {
			data, d, err := c.device(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case *asJSON:
				return printJSON(cmd.OutOrStdout(), data)
			}
			return c.printDeviceConnections(cmd.OutOrStdout(), d)
		}
		data, err := c.call(cmd.Context(), http.MethodGet, twinPath+url.PathEscape(args[0]), versioned(), "", nil)
		switch {
		case err != nil:
			return err
		case *asJSON:
			return printJSON(cmd.OutOrStdout(), data)
		}
		return printDevice(cmd.OutOrStdout(), data)
	}
	return cmd
}

func printDevice(w io.Writer, data []byte) error {
	var t knownTwin
	if err := json.Unmarshal(data, &t); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	edge := ""
	if t.Capabilities.IoTEdge {
		edge = "yes"
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, pair := range [][2]string{
		{"Device id", t.DeviceID}, {"Status", t.Status}, {"Reason", t.StatusReason}, {"Since", sometime(t.StatusUpdateTime)},
		{"Connection", t.ConnectionState}, {"Last activity", sometime(t.LastActivityTime)}, {"Authentication", t.AuthenticationType}, {"IoT Edge", edge},
		{"Messages waiting", fmt.Sprint(t.CloudToDeviceMessageCount)},
		{"Twin", fmt.Sprintf("version %d: desired %d, reported %d", t.Version, t.Properties.Desired.Version, t.Properties.Reported.Version)}, {"Etag", t.DeviceETag},
	} {
		if pair[1] != "" {
			row(table, pair[0], pair[1])
		}
	}
	return table.Flush()
}

// device reads a device with its keys.
func (c *client) device(ctx context.Context, id string) ([]byte, iothub.Device, error) {
	data, err := c.call(ctx, http.MethodGet, devicePath+url.PathEscape(id), versioned(), "", nil)
	if err != nil {
		return nil, iothub.Device{}, err
	}
	return decodeDevice(data)
}

func decodeDevice(data []byte) ([]byte, iothub.Device, error) {
	d, err := iothub.DecodeDevice(data)
	if err != nil {
		return nil, d, errors.New("the service's answer is no device") // the cause could quote a key
	}
	return data, d, nil
}

// printDeviceConnections prints what device SDKs read, one for each key.
func (c *client) printDeviceConnections(w io.Writer, d iothub.Device) error {
	connection := iothub.DeviceConnection{HostName: c.connection.HostName, DeviceID: d.DeviceID}
	keys := [][]byte{d.Authentication.PrimaryKey}
	if d.Authentication.SecondaryKey != nil {
		keys = append(keys, d.Authentication.SecondaryKey)
	}
	for _, key := range keys {
		connection.Key = key
		if _, err := fmt.Fprintln(w, connection.Reveal()); err != nil {
			return err
		}
	}
	return nil
}

// wantedDevice is what the flags of add and set say of a device.
type wantedDevice struct {
	primary, secondary, certificate, reason string
	enable, disable, edge, noEdge           bool
	newPrimary, newSecondary                bool
}

func (w *wantedDevice) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&w.primary, "primary-key", "", "file with the primary symmetric key, base64; - is standard input")
	flags.StringVar(&w.secondary, "secondary-key", "", "file with the secondary symmetric key, base64; - is standard input")
	flags.StringVar(&w.certificate, "thumbprint", "", "SHA-256 of the client certificate, 64 hexadecimal digits, in place of keys")
	flags.StringVar(&w.reason, "reason", "", "why it is in its status, for people")
	flags.BoolVar(&w.disable, "disable", false, "let it not log in; a session that it has is ended")
	flags.BoolVar(&w.edge, "edge", false, "it may act as an IoT Edge device")
}

// keyOf reads a key out of a file.
func keyOf(cmd *cobra.Command, flag, name string) ([]byte, error) {
	text, err := readInput(name, cmd.InOrStdin(), 1<<10)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) < 16 || len(key) > 64 {
		return nil, usageError{fmt.Errorf("--%s: %s must hold the base64 of 16 to 64 bytes", flag, name)}
	}
	return key, nil
}

// apply makes d what is wanted.
func (w *wantedDevice) apply(cmd *cobra.Command, d *iothub.Device) (err error) {
	a := &d.Authentication
	if w.certificate != "" {
		if digest, err := hex.DecodeString(w.certificate); err != nil || len(digest) != 32 {
			return usageError{errors.New("--thumbprint: must be the SHA-256 of the certificate, 64 hexadecimal digits")}
		}
		if w.primary+w.secondary != "" || w.newPrimary || w.newSecondary {
			return usageError{errors.New("a device has either keys or a certificate")}
		}
		*a = iothub.Authentication{Type: iothub.SelfSigned, PrimaryThumbprint: strings.ToUpper(w.certificate)}
	}
	for _, k := range []struct {
		flag, file string
		fresh      bool
		key        *[]byte
	}{{"primary-key", w.primary, w.newPrimary, &a.PrimaryKey}, {"secondary-key", w.secondary, w.newSecondary, &a.SecondaryKey}} {
		switch {
		case k.file != "" && k.fresh:
			return usageError{fmt.Errorf("--%s and --new-%s: give one of them", k.flag, k.flag)}
		case k.file != "":
			*k.key, err = keyOf(cmd, k.flag, k.file)
		case k.fresh:
			*k.key = make([]byte, 32)
			rand.Read(*k.key)
		default:
			continue
		}
		if err != nil {
			return err
		}
		a.Type, a.PrimaryThumbprint, a.SecondaryThumbprint = iothub.SAS, "", ""
	}
	switch {
	case w.enable && w.disable, w.edge && w.noEdge:
		return usageError{errors.New("say one thing or its contrary, not both")}
	case w.enable:
		d.Status = iothub.Enabled
	case w.disable:
		d.Status = iothub.Disabled
	}
	d.IoTEdge = (d.IoTEdge || w.edge) && !w.noEdge
	if cmd.Flags().Changed("reason") {
		d.StatusReason = w.reason
	}
	if len(d.StatusReason) > iothub.MaxStatusReason {
		return usageError{fmt.Errorf("--reason: at most %d bytes", iothub.MaxStatusReason)}
	}
	return nil
}

func deviceAdd(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add DEVICE",
		Short: "Add a device that needs no provisioning, and print its connection string",
		Long: `Add a device that needs no provisioning, and print its connection string, which is secret. Without a key or a certificate it is given two fresh keys.
Devices that prove themselves are added by their registration; add is for those that do not.`,
		Args: oneArg("device id"),
	}
	var want wantedDevice
	want.flags(cmd)
	asJSON := jsonFlag(cmd, "print the identity as JSON, with its keys")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d := iothub.Device{DeviceID: args[0], Status: iothub.Enabled, Authentication: iothub.Authentication{Type: iothub.SAS}}
		if err := want.apply(cmd, &d); err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		data, made, err := c.putDevice(cmd.Context(), d, http.Header{"If-None-Match": {"*"}})
		switch {
		case err != nil:
			return err
		case *asJSON:
			return printJSON(cmd.OutOrStdout(), data)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "Added %s. Its connection string:\n", made.DeviceID)
		made.Authentication.SecondaryKey = nil
		return c.printDeviceConnections(cmd.OutOrStdout(), made)
	}
	return cmd
}

func (c *client) putDevice(ctx context.Context, d iothub.Device, header http.Header) ([]byte, iothub.Device, error) {
	data, _, err := c.exchange(ctx, http.MethodPut, devicePath+url.PathEscape(d.DeviceID), versioned(), header, d.Request())
	if err != nil {
		return nil, iothub.Device{}, err
	}
	return decodeDevice(data)
}

func deviceSet(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set DEVICE",
		Short: "Change a device: status, keys, certificate; what is not named stays",
		Long: `Change a device; what is not named stays. A session that the change does not let in any more is ended before the command is.

The device is written as it was read: if somebody else changes it at the same time, the command says so and changes nothing.`,
		Args: oneArg("device id"),
	}
	var want wantedDevice
	want.flags(cmd)
	cmd.Flags().BoolVar(&want.enable, "enable", false, "let it log in")
	cmd.Flags().BoolVar(&want.noEdge, "no-edge", false, "it may not act as an IoT Edge device")
	cmd.Flags().BoolVar(&want.newPrimary, "new-primary-key", false, "give it a fresh primary key")
	cmd.Flags().BoolVar(&want.newSecondary, "new-secondary-key", false, "give it a fresh secondary key")
	var changes []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { changes = append(changes, f.Name) })
	asJSON := jsonFlag(cmd, "print the identity as JSON, with its keys")
	cmd.ValidArgsFunction = completeDevices(connect)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.ContainsFunc(changes, cmd.Flags().Changed) {
			return usageError{errors.New("say what is to change; see --help")}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		_, d, err := c.device(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if err := want.apply(cmd, &d); err != nil {
			return err
		}
		data, now, err := c.putDevice(cmd.Context(), d, http.Header{"If-Match": {`"` + d.ETag + `"`}})
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, data, "Changed %s: %s, etag %s", printable(now.DeviceID), now.Status, now.ETag)
	}
	return cmd
}

func deviceRemove(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove DEVICE",
		Short: "Remove a device with its twin and the messages that wait for it",
		Args:  oneArg("device id"),
	}
	cmd.ValidArgsFunction = completeDevices(connect)
	return takeAway(cmd, connect, devicePath, versioned(), "Remove the device %s? Its session is ended, its twin and messages are gone; a provisioned device comes back when it proves itself.", "Removed the device %s")
}

// completeTime is how long the shell waits for names.
const completeTime = 2 * time.Second

// completeDevices offers device ids that begin as what is typed; none if the hub cannot be asked.
func completeDevices(connect func() (*client, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) (ids []cobra.Completion, _ cobra.ShellCompDirective) {
		c, err := connect()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		query := "SELECT * FROM devices WHERE startswith(deviceId, '" + strings.ReplaceAll(typed, "'", "''") + "')"
		_ = c.eachItem(ctx, "/devices/query", query, 100, func(data json.RawMessage) error { // what came is offered
			var t knownTwin
			err := json.Unmarshal(data, &t)
			ids = append(ids, t.DeviceID)
			return err
		})
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}
