package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

func exportCommand() *cobra.Command {
	var secrets bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Export the whole scope as one signed file: CA certificates, groups, enrollments, registrations",
		Long: `Export the whole scope as one signed file: CA certificates, enrollment groups, enrollments and registrations, one JSON object a line.

Symmetric keys are in it with --secrets only, which needs an access policy with EnrollmentWrite and which the audit log notes. Hub keys, access
policies and the audit log are never in it. The file is written whole or not at all, and verified while it comes. 'latchkey export verify'
verifies it later, on any machine; docs/export-format.md shows how to do that without Latchkey.`,
		Args: noArgs,
	}
	connect := clientFlags(cmd)
	output := fileFlag(cmd, "file to write, readable by its owner only; default: standard output")
	cmd.Flags().BoolVar(&secrets, "secrets", false, "with the symmetric keys of enrollments and groups")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if secrets && *output == "" && device(cmd.OutOrStdout()) {
			return usageError{errors.New("symmetric keys are not printed to a terminal: name a file with --output, or redirect standard output")}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		query := url.Values{}
		if secrets {
			query.Set("secrets", "true")
		}
		if *output == "" {
			return c.fetchExport(cmd.Context(), query, cmd.OutOrStdout(), io.Discard)
		}
		return writeWhole(*output, func(w io.Writer) error { return c.fetchExport(cmd.Context(), query, w, cmd.ErrOrStderr()) })
	}
	cmd.AddCommand(exportVerify(connect), exportKey(connect))
	return cmd
}

// fetchExport copies an export and verifies it on its way; what is said of its progress goes to a terminal only.
func (c *client) fetchExport(ctx context.Context, query url.Values, w, say io.Writer) error {
	answer, err := c.open(ctx, http.MethodGet, "/latchkey/v1/export", query, "", nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	progress := watch(answer.Body, 0, say)
	defer progress.end()
	_, err = readExport(io.TeeReader(progress, w), ignoredObject)
	return err
}

func exportKey(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Print the public key that verifies the scope's exports, in base64",
		Long: `Print the public key that verifies the scope's exports, in base64. It is the same as long as the scope is there: keep it where you would verify an
export without the service.`,
		Args: noArgs,
	}
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := connect()
		if err != nil {
			return err
		}
		shown, data, err := c.exportKey(cmd.Context())
		switch {
		case err != nil:
			return err
		case *asJSON:
			return printJSON(cmd.OutOrStdout(), data)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(shown))
		return err
	}
	return cmd
}

// exportKey asks the service for its key, and gives the answer as it came too.
func (c *client) exportKey(ctx context.Context) (ed25519.PublicKey, []byte, error) {
	data, err := c.call(ctx, http.MethodGet, "/latchkey/v1/exportKey", nil, "", nil)
	if err != nil {
		return nil, nil, err
	}
	var shown struct {
		Algorithm string
		PublicKey []byte
	}
	if err := json.Unmarshal(data, &shown); err != nil || shown.Algorithm != "Ed25519" || len(shown.PublicKey) != ed25519.PublicKeySize {
		return nil, nil, errors.New("the service's answer holds no Ed25519 key")
	}
	return shown.PublicKey, data, nil
}

func exportVerify(connect func() (*client, error)) *cobra.Command {
	var given string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify that an export is whole, unchanged, and signed by the scope; FILE - is standard input",
		Long: `Verify that an export is whole, unchanged, and signed by the scope. With --public-key no service is asked; without it the service of the
connection string says what its key is, so that must be the scope that made the export.

The key that stands in the file is not trusted: whoever changes a file can put a key of his own there. Exit code 1: the file is not what the
scope exported, and must not be used.`,
		Args: oneArg("file, or - for standard input"),
	}
	cmd.Flags().StringVar(&given, "public-key", "", "the scope's key, as 'latchkey export key' prints it")
	asJSON := jsonFlag(cmd, "print what was verified as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		trusted, from, err := trustedKey(cmd, given, connect)
		if err != nil {
			return err
		}
		in := cmd.InOrStdin()
		if args[0] != "-" {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		}
		counts := map[string]int{}
		header, err := readExport(in, func(kind string, _ json.RawMessage) error { counts[kind]++; return nil })
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", args[0], err)
		case !bytes.Equal(header.PublicKey, trusted):
			return fmt.Errorf("%s: it is signed with the key %s, which is not %s, %s: another scope made it, or somebody forged it", args[0],
				base64.StdEncoding.EncodeToString(header.PublicKey), from, base64.StdEncoding.EncodeToString(trusted))
		}
		return printVerified(cmd.OutOrStdout(), header, counts, from, *asJSON)
	}
	return cmd
}

// trustedKey is the key given, or that of the service; from says which.
func trustedKey(cmd *cobra.Command, given string, connect func() (*client, error)) (key ed25519.PublicKey, from string, err error) {
	if given != "" {
		key, err := base64.StdEncoding.Strict().DecodeString(given)
		if err != nil || len(key) != ed25519.PublicKeySize {
			return nil, "", usageError{errors.New("--public-key must be the 44 characters that 'latchkey export key' prints")}
		}
		return key, "the given key", nil
	}
	c, err := connect()
	if err != nil {
		return nil, "", err
	}
	key, _, err = c.exportKey(cmd.Context())
	return key, "the key of the service at " + c.connection.HostName, err
}

// printVerified says what an export is that was found good.
func printVerified(w io.Writer, h dps.ExportHeader, counts map[string]int, from string, asJSON bool) error {
	objects := map[string]int{}
	for _, kind := range dps.ExportKinds() {
		objects[kind] = counts[kind]
	}
	if asJSON {
		data, err := json.Marshal(struct {
			Verified bool             `json:"verified"`
			Header   dps.ExportHeader `json:"header"`
			Objects  map[string]int   `json:"objects"`
		}{true, h, objects})
		if err != nil {
			return err
		}
		return printJSON(w, data)
	}
	secrets := "none"
	if h.Secrets {
		secrets = "the symmetric keys of enrollments and groups"
	}
	_, err := fmt.Fprintf(w, `Verified: whole, in order, unchanged, and signed with %s
ID scope         %s
Hosts            %s
Begun            %s
CA certificates  %d
Groups           %d
Enrollments      %d
Registrations    %d
Secrets          %s
`, from, printable(h.IDScope), printable(strings.Join(h.Hosts, ", ")), printable(h.Created), objects[dps.ExportCA], objects[dps.ExportGroup], objects[dps.ExportEnrollment], objects[dps.ExportRegistration], secrets)
	return err
}
