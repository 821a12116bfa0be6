package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

func registrationCommand() *cobra.Command {
	cmd := group("registration", "Registrations")
	connect := clientFlags(cmd)
	show := &cobra.Command{Use: "show ID", Short: "Show a registration", Args: oneArg("registration id")}
	showAnswer(show, connect, func(args []string) string { return "/registrations/" + url.PathEscape(args[0]) }, versioned(), printRegistration)
	cmd.AddCommand(registrationList(connect), show, registrationDelete(connect), registrationWatch(connect), registrationTransfer(connect))
	return cmd
}

func printRegistration(w io.Writer, data []byte) error {
	var r dps.RegistrationState
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	failure := r.ErrorMessage
	if r.ErrorCode != 0 {
		failure = fmt.Sprintf("%s (errorCode %d)", failure, r.ErrorCode)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, pair := range [][2]string{
		{"Registration id", r.RegistrationID}, {"Status", r.Status}, {"Substatus", r.Substatus}, {"Hub", r.AssignedHub}, {"Device id", r.DeviceID},
		{"Error", failure}, {"Created", wholeSeconds(r.Created)}, {"Updated", wholeSeconds(r.LastUpdated)},
	} {
		if pair[1] != "" {
			row(t, pair[0], pair[1])
		}
	}
	return t.Flush()
}

func registrationDelete(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a registration; the enrollment stays, and the device's identity at the hub unless --hub-device says otherwise",
		Args:  oneArg("registration id"),
	}
	query := versioned()
	hubDeviceFlag(cmd, query)
	return takeAway(cmd, connect, "/registrations/", query,
		"Delete the registration %s? The device registers again when it asks.", "Deleted the registration %s")
}

func registrationList(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List registrations, in order of their ids",
		Long: `List registrations, in order of their ids: of all devices that proved themselves, or of those that a group let in.

--where takes a condition such as
    status = 'failed'
    assignedHub = 'dps.example.net' AND STARTSWITH(registrationId, 'line4-')`,
		Args: noArgs,
	}
	group := cmd.Flags().String("group", "", "only those that this enrollment group let in")
	path := func() string {
		if *group == "" {
			return "/latchkey/v1/registrations/query"
		}
		return "/registrations/" + url.PathEscape(*group) + "/query"
	}
	listCommand(cmd, connect, "registrations", dps.CollectionRegistrations, path, "REGISTRATION ID\tSTATUS\tHUB\tDEVICE ID\tERROR\tUPDATED",
		func(data json.RawMessage) ([]string, error) {
			var r struct {
				RegistrationID, Status, AssignedHub, DeviceID, ErrorMessage, LastUpdatedDateTimeUtc string
			}
			err := json.Unmarshal(data, &r)
			return []string{r.RegistrationID, r.Status, r.AssignedHub, r.DeviceID, r.ErrorMessage, shortTime(r.LastUpdatedDateTimeUtc)}, err
		})
	return cmd
}

func registrationWatch(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch [ID]",
		Short: "Show devices as they register, until interrupted",
		Long: `Show devices as they register, until interrupted: each proof, each refusal after a proof, each assignment. It reads the audit log, so
the access policy needs EnrollmentRead and RegistrationStatusRead.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{errors.New("watch takes one registration id, or none for all")}
			}
			return nil
		},
	}
	since := cmd.Flags().String("since", "", "begin with what is not older, such as 90m, 36h or 7d; default: now")
	asJSON := jsonFlag(cmd, "print one JSON object a line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f := auditFlags{since: *since}
		if f.since == "" {
			f.since = time.Now().UTC().Format(time.RFC3339Nano)
		}
		if len(args) == 1 {
			f.object = strings.ToLower(args[0])
		}
		query, err := f.query(time.Now())
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		if device(cmd.ErrOrStderr()) {
			fmt.Fprintln(cmd.ErrOrStderr(), "Waiting for devices to register; interrupt to end.")
		}
		out := newAuditPrinter(cmd.OutOrStdout(), *asJSON)
		out.only = func(action string) bool {
			return strings.HasPrefix(action, "device.") || action == "registration.delete"
		}
		reader := auditReader{client: c, query: query, out: out, complain: cmd.ErrOrStderr()}
		return errors.Join(reader.run(cmd.Context(), true), out.flush())
	}
	return cmd
}
