package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/softtpm"
)

// contact is the device's side of a script, at the service that the script's environment names.
type contact struct {
	ts     *testscript.TestScript
	host   string
	client *http.Client
	body   []byte
	path   string // of the registration
}

func newContact(ts *testscript.TestScript, id string) *contact {
	connection, err := dps.ParseConnectionString(ts.Getenv("LATCHKEY_CONNECTION_STRING"))
	ts.Check(err)
	pem, err := os.ReadFile(ts.Getenv("LATCHKEY_CA_FILE"))
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	address := ts.Getenv("LATCHKEY_CONNECT")
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	ts.Defer(transport.CloseIdleConnections)
	c := &contact{ts: ts, host: connection.HostName, client: &http.Client{Transport: transport, Timeout: patience}, path: ts.Getenv("SCOPE") + "/registrations/" + id}
	request := dps.RegisterRequest{RegistrationID: id, TPM: &dps.TPMKeys{EndorsementKey: decode(ts, ts.Getenv("EK")), StorageRootKey: decode(ts, ts.Getenv("SRK"))}}
	c.body = request.Encode()
	return c
}

func decode(ts *testscript.TestScript, text string) []byte {
	raw, err := base64.StdEncoding.DecodeString(text)
	ts.Check(err)
	return raw
}

// ask sends one request and wants a status; if that is 200, again as long as the service is not done (202).
func (c *contact) ask(method, rest, token string, want int) []byte {
	status, text := c.send(method, rest, token)
	for limit := time.Now().Add(patience); status == http.StatusAccepted && want == http.StatusOK && time.Now().Before(limit); {
		time.Sleep(20 * time.Millisecond) // another process is at work
		status, text = c.send(method, rest, token)
	}
	if status != want {
		c.ts.Fatalf("%s %s: %d, want %d: %s", method, rest, status, want, text)
	}
	return text
}

func (c *contact) send(method, rest, token string) (status int, text []byte) {
	request, err := http.NewRequest(method, "https://"+c.host+"/"+c.path+rest+"?api-version=2021-06-01", bytes.NewReader(c.body))
	c.ts.Check(err)
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	answer, err := c.client.Do(request)
	c.ts.Check(err)
	defer answer.Body.Close()
	text, err = io.ReadAll(answer.Body)
	c.ts.Check(err)
	return answer.StatusCode, text
}

func stranger(ts *testscript.TestScript, _ bool, args []string) {
	refusal, err := dps.DecodeError(newContact(ts, args[0]).ask(http.MethodPut, "/register", "", http.StatusNotFound))
	ts.Check(err)
	ts.Setenv("TRACKING", refusal.TrackingID)
}

func register(ts *testscript.TestScript, _ bool, _ []string) {
	c := newContact(ts, ts.Getenv("ID"))
	challenge, err := dps.DecodeChallenge(c.ask(http.MethodPut, "/register", "", http.StatusUnauthorized))
	ts.Check(err)
	key, err := softtpm.New(softtpm.ECC, 0).Open(challenge.Blob)
	ts.Check(err)
	token, err := dps.NewToken(dps.KeySigner(key), c.path, time.Now().Add(time.Hour), challenge.KeyName)
	ts.Check(err)
	accepted, err := dps.DecodeOperationStatus(c.ask(http.MethodPut, "/register", token, http.StatusAccepted))
	ts.Check(err)
	c.ask(http.MethodGet, "/operations/"+accepted.OperationID, token, http.StatusOK)
	fmt.Fprintf(ts.Stdout(), "registered %s\n", ts.Getenv("ID"))
}
