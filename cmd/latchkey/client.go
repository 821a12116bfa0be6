package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/iothub"
)

const (
	apiVersion   = "2021-10-01"
	callTime     = 30 * time.Second
	tokenLife    = 5 * time.Minute
	answerLimit  = 8 << 20 // a page of a query is 4 MiB of stored documents, on the wire somewhat more
	manageHelp   = "connection string of an access policy (LATCHKEY_CONNECTION_STRING; better there than on a command line that others can list)"
	connectHelp  = "address to dial in place of the connection string's host (LATCHKEY_CONNECT)"
	caHelp       = "PEM file of the CA to trust, in place of the system's (LATCHKEY_CA_FILE)"
	hintNoString = "give the connection string that `latchkey init` printed, in LATCHKEY_CONNECTION_STRING, with --connection-string, or in a profile (--profile)"
)

// client speaks the management API.
type client struct {
	connection dps.ConnectionString
	http       *http.Client
	connect    string // address to dial in place of the host; empty: the host
	prefix     string // of the flags that made it
}

// clientFlags adds the flags that every remote command has.
func clientFlags(cmd *cobra.Command) func() (*client, error) {
	var asked profile
	flags := cmd.PersistentFlags()
	flags.StringVar(&asked.ConnectionString, "connection-string", "", manageHelp)
	flags.StringVar(&asked.Connect, "connect", "", connectHelp)
	flags.StringVar(&asked.CAFile, "ca-file", "", caHelp)
	name := flags.String("profile", "", profileHelp)
	return func() (*client, error) {
		p, err := asked.complete(*name, os.Getenv)
		switch {
		case err != nil:
			return nil, err
		case p.ConnectionString == "":
			return nil, usageError{errors.New(hintNoString)}
		}
		return newClient(p.ConnectionString, p.Connect, p.CAFile)
	}
}

func newClient(text, connect, caFile string) (*client, error) {
	connection, err := dps.ParseConnectionString(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("the connection string: %s", strings.TrimPrefix(err.Error(), "connection string: "))}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("the CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the CA file %s holds no PEM certificate", caFile)
		}
	}
	transport := &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment}
	if connect != "" {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, connect)
		}
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // no service sends its operators elsewhere
	return &client{connection: connection, http: &http.Client{Transport: transport, Timeout: callTime, CheckRedirect: stay}, connect: connect}, nil
}

// call sends one request and gives the body of a good answer.
func (c *client) call(ctx context.Context, method, path string, query url.Values, ifMatch string, body []byte) ([]byte, error) {
	header := http.Header{}
	if ifMatch != "" {
		header.Set("If-Match", ifMatch)
	}
	data, _, err := c.exchange(ctx, method, path, query, header, body)
	return data, err
}

// exchange is call with headers both ways.
func (c *client) exchange(ctx context.Context, method, path string, query url.Values, header http.Header, body []byte) ([]byte, http.Header, error) {
	if len(body) > 0 && header.Get("Content-Type") == "" {
		if header = header.Clone(); header == nil {
			header = http.Header{}
		}
		header.Set("Content-Type", "application/json; charset=utf-8")
	}
	answer, err := c.request(ctx, c.http, method, path, query, header, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	data, err := readAnswer(answer.Body)
	return data, answer.Header, err
}

// open begins a request whose body and answer may take any time. The answer is a good one, to be read and closed by the caller.
func (c *client) open(ctx context.Context, method, path string, query url.Values, media string, body io.Reader) (*http.Response, error) {
	header := http.Header{}
	if media != "" {
		header.Set("Content-Type", media)
	}
	patient := *c.http
	patient.Timeout = 0
	return c.request(ctx, &patient, method, path, query, header, body)
}

// request signs a request and sends it. The answer is a good one, to be read and closed by the caller.
func (c *client) request(ctx context.Context, via *http.Client, method, path string, query url.Values, header http.Header, body io.Reader) (*http.Response, error) {
	target := url.URL{Scheme: "https", Host: c.connection.HostName, RawPath: path, RawQuery: query.Encode()}
	var err error
	if target.Path, err = url.PathUnescape(path); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, err
	}
	token, err := dps.NewToken(c.connection.Signer(), c.connection.HostName, time.Now().Add(tokenLife), c.connection.SharedAccessKeyName)
	if err != nil {
		return nil, err
	}
	if header != nil {
		request.Header = header.Clone()
	}
	request.Header.Set("Authorization", token)
	answer, err := via.Do(request)
	if err != nil {
		return nil, c.unreached(err)
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close()
	data, err := readAnswer(answer.Body)
	if err != nil {
		return nil, err
	}
	return nil, refusal(answer, data)
}

// readAnswer reads an answer of at most answerLimit bytes; a longer one is an error and never cut.
func readAnswer(body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, answerLimit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case len(data) > answerLimit:
		return nil, fmt.Errorf("the answer is longer than %d bytes", answerLimit)
	}
	return data, nil
}

// refused is an error answer of the service.
type refused struct {
	status     int
	body       dps.ErrorBody
	name       string        // of the error, if it is a hub's
	retryAfter time.Duration // negative: no advice
}

func (r *refused) Error() string {
	if r.body.ErrorCode == 0 { // no answer of a Latchkey, nor of what it imitates
		return "the service answered " + printable(r.body.Message)
	}
	message, advice := printable(r.body.Message), "" // a terminal does what an answer says
	switch {
	case r.status == http.StatusUnauthorized:
		advice = "; the connection string may be of another installation, this machine's clock may be wrong, or its access policy lacks the permission that this needs (an owner can ask `latchkey why`)"
	case dps.Code(r.body.ErrorCode) == dps.CodeEnrollmentExists:
		message = "Enrollment already exists. To change it, use `latchkey enroll set`."
	case dps.Code(r.body.ErrorCode) == dps.CodeGroupExists:
		message = "EnrollmentGroup already exists. To change it, use `latchkey group set`."
	}
	message = strings.Replace(message, "send its etag or * in If-Match", "use `"+r.changes()+"`", 1)
	code := fmt.Sprintf("errorCode %d", r.body.ErrorCode)
	if r.name != "" {
		code = printable(r.name)
	}
	return fmt.Sprintf("the service refused: %s (%s)%s\nlatchkey why %s", message, code, advice, printable(r.body.TrackingID))
}

// changes is the command that changes what is there already.
func (r *refused) changes() string {
	if r.name != "" {
		return "latchkey hub devices set"
	}
	return "latchkey hub set"
}

func refusal(answer *http.Response, data []byte) error {
	r := &refused{status: answer.StatusCode, retryAfter: retryAfter(answer.Header)}
	if json.Unmarshal(data, &r.body) == nil && r.body.ErrorCode != 0 {
		return r
	}
	r.body = dps.ErrorBody{Message: answer.Status}
	if h := iothub.DecodeError(answer.StatusCode, answer.Header.Get(iothub.ErrorHeader), data); h.Name != "" && h.TrackingID != "" {
		r.name = h.Name
		r.body = dps.ErrorBody{ErrorCode: answer.StatusCode * 1000, Message: h.Message, TrackingID: strings.TrimSuffix(h.TrackingID, "-G:0")}
	}
	return r
}

func versioned() url.Values { return url.Values{"api-version": {apiVersion}} }

func (c *client) enrollment(ctx context.Context, id string) ([]byte, error) {
	return c.call(ctx, http.MethodGet, "/enrollments/"+url.PathEscape(id), versioned(), "", nil)
}
