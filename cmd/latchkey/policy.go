package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

const policyPath = "/latchkey/v1/accessPolicies"

// permissions are what --rights takes.
var permissions = []string{"ServiceConfig", "EnrollmentRead", "EnrollmentWrite", "RegistrationStatusRead", "RegistrationStatusWrite",
	"RegistryRead", "RegistryWrite", "ServiceConnect"}

// policyAnswer is an access policy as the service tells it. Its keys are only ever shown as connection strings.
type policyAnswer struct {
	Name                     string
	Rights                   []string
	PrimaryKey, SecondaryKey string
}

func policyCommand() *cobra.Command {
	cmd := group("access-policy", "Shared access policies: who may call the management API, and for what")
	cmd.Long = `Shared access policies: who may call the management API of the scope, and for what. The connection string in use must be of
one with ServiceConfig.

Permissions: ` + strings.Join(permissions, ", ") + `.
ServiceConfig may give every permission to any access policy, its own too.`
	connect := clientFlags(cmd)
	cmd.AddCommand(policyList(connect), policyShow(connect), policyAdd(connect), policySet(connect), policyRegenerate(connect), policyRemove(connect))
	return cmd
}

func policyList(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the access policies and their permissions, never keys", Args: noArgs}
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		data, policies, err := c.policies(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), data)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tRIGHTS")
		for _, p := range policies {
			row(t, p.Name, strings.Join(p.Rights, ", "))
		}
		return t.Flush()
	}
	return cmd
}

func policyShow(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show an access policy; with --keys its two connection strings too, which the audit log notes",
		Args:  oneArg("name of an access policy"),
	}
	keys := cmd.Flags().Bool("keys", false, "print its two connection strings, which are secret")
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkPolicyName(args[0]); err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		if !*keys {
			return c.showPolicy(cmd, args[0], *asJSON)
		}
		data, p, err := c.policy(cmd.Context(), http.MethodGet, args[0], "", nil, nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), data)
		}
		if err := printPolicy(cmd.OutOrStdout(), p); err != nil {
			return err
		}
		return c.printConnections(cmd.OutOrStdout(), p, "primary", "secondary")
	}
	return cmd
}

// showPolicy finds the access policy in the list, so that its keys stay where they are.
func (c *client) showPolicy(cmd *cobra.Command, name string, asJSON bool) error {
	p, err := c.listed(cmd.Context(), name)
	if err != nil {
		return err
	}
	return showPolicy(cmd, p, asJSON)
}

// showPolicy shows all of an access policy but its keys.
func showPolicy(cmd *cobra.Command, p policyAnswer, asJSON bool) error {
	if !asJSON {
		return printPolicy(cmd.OutOrStdout(), p)
	}
	return tellValue(cmd, true, map[string]any{"name": p.Name, "rights": p.Rights}, "")
}

func printPolicy(w io.Writer, p policyAnswer) error {
	_, err := fmt.Fprintf(w, "Name    %s\nRights  %s\n", printable(p.Name), printable(strings.Join(p.Rights, ", ")))
	return err
}

func policyAdd(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME --rights RIGHT[,RIGHT...]",
		Short: "Add an access policy and print its connection string",
		Long: `Add an access policy with two fresh keys and print the connection string of its primary key, which is secret.
'latchkey access-policy show NAME --keys' prints both later.`,
		Args: oneArg("name for the access policy"),
	}
	rights := rightsFlag(cmd)
	asJSON := jsonFlag(cmd, "print it as JSON, with both keys")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := rightsBody(args[0], *rights)
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		data, p, err := c.policy(cmd.Context(), http.MethodPut, args[0], "", http.Header{"If-None-Match": {"*"}}, body)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), data)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "Added %s. Its connection string, which is secret:\n", p.Name)
		return c.printConnections(cmd.OutOrStdout(), p, "primary")
	}
	return cmd
}

func policySet(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAME --rights RIGHT[,RIGHT...]",
		Short: "Replace the permissions of an access policy; its keys stay",
		Args:  oneArg("name of an access policy"),
	}
	rights := rightsFlag(cmd)
	yes := cmd.Flags().Bool("yes", false, "do not ask when permissions are taken away")
	asJSON := jsonFlag(cmd, "print it as JSON, without its keys")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := rightsBody(args[0], *rights)
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		before, err := c.listed(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		lost := slices.DeleteFunc(before.Rights, func(r string) bool { return slices.Contains(*rights, r) })
		if len(lost) > 0 && !*yes {
			if err := confirm(cmd, fmt.Sprintf("Take %s from %s? Who uses its keys is refused these at once.", strings.Join(lost, ", "), args[0])); err != nil {
				return err
			}
		}
		_, p, err := c.policy(cmd.Context(), http.MethodPut, args[0], "", http.Header{"If-Match": {"*"}}, body)
		if err != nil {
			return err
		}
		return showPolicy(cmd, p, *asJSON)
	}
	return cmd
}

func policyRegenerate(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "regenerate NAME --key primary|secondary",
		Short: "Give an access policy a fresh key in place of an old one, and print its connection string",
		Long: `Give an access policy a fresh key in place of its primary or secondary one, and print the new connection string, which is secret. The old key
is refused from then on, the other one goes on. So move clients to the other key first.`,
		Args: oneArg("name of an access policy"),
	}
	key := cmd.Flags().String("key", "", "which key: primary or secondary")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	asJSON := jsonFlag(cmd, "print the access policy as JSON, with both keys")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkPolicyName(args[0]); err != nil {
			return err
		}
		if *key != "primary" && *key != "secondary" {
			return usageError{errors.New("say which key: --key primary, or --key secondary")}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		if !*yes {
			if err := confirm(cmd, fmt.Sprintf("Regenerate the %s key of %s? Who still uses the old one is refused at once.", *key, args[0])); err != nil {
				return err
			}
		}
		data, p, err := c.policy(cmd.Context(), http.MethodPost, args[0], "/regenerate", nil, []byte(`{"key":"`+*key+`"}`))
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), data)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "The new connection string of %s, %s key, which is secret:\n", p.Name, *key)
		return c.printConnections(cmd.OutOrStdout(), p, *key)
	}
	return cmd
}

func policyRemove(connect func() (*client, error)) *cobra.Command {
	named := func(_ *cobra.Command, args []string) error { return checkPolicyName(args[0]) }
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove an access policy; both its keys are refused from then on",
		Args:  cobra.MatchAll(oneArg("name of an access policy"), named),
	}
	return takeAway(cmd, connect, policyPath+"/", nil, "Remove the access policy %s? Who uses its keys is refused at once.", "Removed %s")
}

func rightsFlag(cmd *cobra.Command) *[]string {
	return cmd.Flags().StringSlice("rights", nil, "permissions, separated by commas: "+strings.Join(permissions, ", "))
}

// rightsBody judges on this side what the service would refuse, so that the message comes with the command.
func rightsBody(name string, rights []string) ([]byte, error) {
	if err := checkPolicyName(name); err != nil {
		return nil, err
	}
	if len(rights) == 0 {
		return nil, usageError{errors.New("name the permissions: --rights " + strings.Join(permissions, ","))}
	}
	for i, right := range rights {
		if !slices.Contains(permissions, right) || slices.Contains(rights[:i], right) {
			return nil, usageError{fmt.Errorf("--rights: %q; name each permission once, of %s", right, strings.Join(permissions, ", "))}
		}
	}
	return json.Marshal(map[string][]string{"rights": rights})
}

// checkPolicyName does not repeat the name: it may be a key that was put in the wrong place.
func checkPolicyName(name string) error {
	if !dps.ValidPolicyName(name) || name == "." || name == ".." {
		return usageError{errors.New("the name of an access policy is 1 to 128 letters, digits and _ - @ . and not only one or two dots")}
	}
	return nil
}

func (c *client) policies(ctx context.Context) ([]byte, []policyAnswer, error) {
	data, err := c.call(ctx, http.MethodGet, policyPath, nil, "", nil)
	if err != nil {
		return nil, nil, err
	}
	var answer struct{ AccessPolicies []policyAnswer }
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, nil, fmt.Errorf("the service's answer: %w", err)
	}
	return data, answer.AccessPolicies, nil
}

// listed finds one in the list, without its keys.
func (c *client) listed(ctx context.Context, name string) (policyAnswer, error) {
	_, all, err := c.policies(ctx)
	if err != nil {
		return policyAnswer{}, err
	}
	i := slices.IndexFunc(all, func(p policyAnswer) bool { return p.Name == name })
	if i < 0 {
		return policyAnswer{}, fmt.Errorf("there is no access policy %s; see latchkey access-policy list", name)
	}
	return all[i], nil
}

// policy sends a request about one access policy whose answer is the policy.
func (c *client) policy(ctx context.Context, method, name, action string, header http.Header, body []byte) ([]byte, policyAnswer, error) {
	if header == nil {
		header = http.Header{}
	}
	data, _, err := c.exchange(ctx, method, policyPath+"/"+url.PathEscape(name)+action, nil, header, body)
	if err != nil {
		return nil, policyAnswer{}, err
	}
	var p policyAnswer
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, policyAnswer{}, errors.New("the service's answer is no access policy") // the cause could quote a key
	}
	return data, p, nil
}

// printConnections prints connection strings to the host in use, one a line.
func (c *client) printConnections(w io.Writer, p policyAnswer, slots ...string) error {
	for _, slot := range slots {
		text := p.PrimaryKey
		if slot == "secondary" {
			text = p.SecondaryKey
		}
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(key) == 0 {
			return errors.New("the service's answer holds no key")
		}
		connection := dps.ConnectionString{HostName: c.connection.HostName, SharedAccessKeyName: p.Name, SharedAccessKey: key}
		if _, err := fmt.Fprintln(w, connection.Reveal()); err != nil {
			return err
		}
	}
	return nil
}
