package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

const caPath = "/latchkey/v1/caCertificates"

// caAnswer is a CA certificate as the service tells it.
type caAnswer struct {
	Name             string
	Verified         bool
	VerificationCode string
	Info             struct{ SubjectName, SHA256Thumbprint, NotAfterUtc string }
}

func (a caAnswer) state() string {
	if a.Verified {
		return "verified"
	}
	return "not verified"
}

func caCommand() *cobra.Command {
	cmd := group("ca", "CA certificates that enrollment groups may refer to by name")
	cmd.Long = `CA certificates that enrollment groups may refer to by name. One counts once it is verified: 'ca add' prints a code, and 'ca verify' takes a
certificate whose common name is that code, signed with the CA's private key.`
	connect := clientFlags(cmd)
	cmd.AddCommand(caSend(connect, "add", "Add a CA certificate and print its verification code", http.MethodPut, "", "file with the CA certificate, PEM or DER"),
		caSend(connect, "verify", "Show that the CA's private key is held", http.MethodPost, "/verify", "file with the certificate for the verification code, PEM or DER"),
		caList(connect), caRemove(connect))
	return cmd
}

// caSend makes the two commands that send a certificate.
func caSend(connect func() (*client, error), use, short, method, below, help string) *cobra.Command {
	cmd := &cobra.Command{Use: use + " NAME --certificate FILE", Short: short, Args: oneArg("name of a CA certificate")}
	file := cmd.Flags().String("certificate", "", help)
	asJSON := jsonFlag(cmd, "print it as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *file == "" {
			return usageError{fmt.Errorf("%s needs --certificate FILE", nameOf(cmd))}
		}
		certificate, err := readCertificate(*file)
		if err != nil {
			return err
		}
		body, err := json.Marshal(map[string][]byte{"certificate": certificate.DER})
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		data, err := c.call(cmd.Context(), method, caPath+"/"+url.PathEscape(args[0])+below, nil, "", body)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), data)
		}
		var ca caAnswer
		if err := json.Unmarshal(data, &ca); err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		if ca.Verified {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Verified %s\n", ca.Name)
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), `Added %s, not verified yet. Sign a certificate with the CA's key whose common name is
%s
and send it: latchkey ca verify %s --certificate FILE
`, ca.Name, ca.VerificationCode, ca.Name)
		return err
	}
	return cmd
}

func caList(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the CA certificates of the scope", Args: noArgs}
	return showAnswer(cmd, connect, at(caPath), nil, printCAs)
}

func printCAs(w io.Writer, data []byte) error {
	var all struct{ CACertificates []caAnswer }
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("the service's answer: %w", err)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tSUBJECT\tCERTIFICATE\tENDS")
	for _, ca := range all.CACertificates {
		row(t, ca.Name, ca.state(), ca.Info.SubjectName, thumbprint(ca.Info.SHA256Thumbprint), shortTime(ca.Info.NotAfterUtc))
	}
	return t.Flush()
}

func caRemove(connect func() (*client, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "remove NAME", Short: "Remove a CA certificate that no group refers to", Args: oneArg("name of a CA certificate")}
	return takeAway(cmd, connect, caPath+"/", nil, "Remove the CA certificate %s?", "Removed %s")
}
