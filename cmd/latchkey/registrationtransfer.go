package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

const transferPath = "/latchkey/v1/transfers"

type transferAnswer struct {
	RegistrationID, To, CreatedDateTimeUtc, ExpiresDateTimeUtc, AccessPolicy, Code string
	Ended                                                                          bool
}

func registrationTransfer(connect func() (*client, error)) *cobra.Command {
	cmd := group("transfer", "Give a device with a TPM to another scope of this installation, and take one")
	cmd.Long = `Give a device with a TPM to another scope of this installation, by both operators' consent: the one that has it offers it and hands the code
that this prints to the other, who accepts it. In one step the enrollment then goes over, and what the first scope had of the device is gone: its
registration, and the device at its hubs. Until those have removed it the device gets no hub in its new scope.

Between two installations nothing is transferred: the device forgets the one (latchkey-device forget), its enrollment is deleted there, and
'latchkey enroll add' makes it at the other.`
	cmd.AddCommand(transferOffer(connect), transferAccept(connect), transferList(connect), transferWithdraw(connect))
	return cmd
}

func transferOffer(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "offer ID --to SCOPE",
		Short:   "Offer a device to another scope, and print the code with which that takes it, once",
		Long:    "Offer a device to another scope, and print the code with which that takes it, once. The code is secret. It needs EnrollmentWrite and RegistrationStatusWrite.",
		Example: "  latchkey registration transfer offer pump-17 --to 0lk1a2b3c4d --valid 48h",
		Args:    oneArg("registration id"),
	}
	to := cmd.Flags().String("to", "", "ID scope that may take it")
	valid := cmd.Flags().Duration("valid", 24*time.Hour, "how long it may be taken, at most 720h")
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *to == "" {
			return usageError{errors.New("name the scope that may take the device, such as --to 0lk1a2b3c4d")}
		}
		body, err := json.Marshal(map[string]any{"to": *to, "validSeconds": int(valid.Seconds())})
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		data, err := c.call(cmd.Context(), http.MethodPut, transferPath+"/"+url.PathEscape(args[0]), nil, "", body)
		if err != nil || *asJSON {
			return errors.Join(err, printRaw(cmd.OutOrStdout(), data))
		}
		var a transferAnswer
		if err := json.Unmarshal(data, &a); err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "Offered %s to %s until %s. Whoever has this code there takes it:\n", a.RegistrationID, a.To, shortTime(a.ExpiresDateTimeUtc))
		_, err = fmt.Fprintln(cmd.OutOrStdout(), a.Code)
		return err
	}
	return cmd
}

// printRaw prints an answer as it came; nothing for none.
func printRaw(w io.Writer, data []byte) error {
	if data == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "%s\n", data)
	return err
}

func transferAccept(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "accept",
		Short: "Take a device that another scope has offered to this one; the code comes from standard input",
		Example: `  echo "$CODE" | latchkey registration transfer accept
  latchkey registration transfer accept --id pump-17 --disabled < code`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	id := flags.String("id", "", "registration id here; default: as before")
	deviceID := flags.String("device-id", "", "name at the hub; default: the registration id")
	disabled := flags.Bool("disabled", false, "do not let it in yet")
	asJSON := jsonFlag(cmd, "print the enrollment as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		code, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1024))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(code)) == "" {
			return usageError{errors.New("give the code on standard input: a command line can be seen by others")}
		}
		entry := map[string]string{}
		for name, value := range map[string]string{"registrationId": *id, "deviceId": *deviceID} {
			if value != "" {
				entry[name] = value
			}
		}
		if *disabled {
			entry["provisioningStatus"] = "disabled"
		}
		body, err := json.Marshal(map[string]any{"code": strings.TrimSpace(string(code)), "enrollment": entry})
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		data, err := c.call(cmd.Context(), http.MethodPost, transferPath, nil, "", body)
		if err != nil || *asJSON {
			return errors.Join(err, printRaw(cmd.OutOrStdout(), data))
		}
		var taken struct{ RegistrationID string }
		if err := json.Unmarshal(data, &taken); err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Took the device %s\n", taken.RegistrationID)
		return err
	}
	return cmd
}

func transferList(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the offers that this scope has made", Args: noArgs}
	asJSON := jsonFlag(cmd, "print one JSON object a line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		if !*asJSON {
			fmt.Fprintln(t, "REGISTRATION ID\tTO\tUNTIL\tENDED\tACCESS POLICY")
		}
		for after := ""; ; {
			query := url.Values{}
			if after != "" {
				query.Set("after", after)
			}
			data, err := c.call(cmd.Context(), http.MethodGet, transferPath, query, "", nil)
			if err != nil {
				return err
			}
			var page struct {
				Transfers []json.RawMessage
				After     string
			}
			if err := json.Unmarshal(data, &page); err != nil {
				return fmt.Errorf("the service's answer: %w", err)
			}
			for _, each := range page.Transfers {
				if err := printTransfer(t, each, *asJSON); err != nil {
					return err
				}
			}
			if after = page.After; after == "" {
				return t.Flush()
			}
		}
	}
	return cmd
}

func printTransfer(t *tabwriter.Writer, data json.RawMessage, asJSON bool) error {
	if asJSON {
		return printRaw(t, data)
	}
	var a transferAnswer
	if err := json.Unmarshal(data, &a); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	ended := "no"
	if a.Ended {
		ended = "yes"
	}
	row(t, a.RegistrationID, a.To, shortTime(a.ExpiresDateTimeUtc), ended, a.AccessPolicy)
	return nil
}

func transferWithdraw(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "withdraw ID", Short: "End an offer", Args: oneArg("registration id")}
	return takeAway(cmd, connect, transferPath+"/", url.Values{}, "Withdraw the offer of %s? Its code is then of no use.", "Withdrew the offer of %s")
}
