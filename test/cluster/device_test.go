package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/softtpm"
)

// comesFrom is the address of the devices: one of this machine, but not the load balancer's.
const comesFrom = "127.0.0.9"

// patience is what a device has for each thing that it wants.
const patience = 30 * time.Second

// device registers request by request, each on a connection of its own.
type device struct {
	t       *testing.T
	service *rig.Access
	client  *http.Client
	tpm     *softtpm.TPM
	id      string

	challenge dps.Challenge
	token     string
	operation string
	state     *dps.RegistrationState // once assigned
}

// newDevice is the enrolled device of a number.
func newDevice(t *testing.T, service *rig.Access, chip int) *device {
	t.Helper()
	tpm := softtpm.New(softtpm.ECC, chip)
	d := &device{t: t, service: service, client: service.Client(), tpm: tpm, id: attest.RegistrationID(tpm.EK.Bytes())}
	transport := d.client.Transport.(*http.Transport)
	transport.DisableKeepAlives = true
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(comesFrom)}}
		return dialer.DialContext(ctx, network, d.service.HTTPS)
	}
	if err := service.Enroll(t.Context(), d.id, base64.StdEncoding.EncodeToString(tpm.EK.Bytes())); err != nil {
		t.Fatal(err)
	}
	return d
}

// reply is an answer of the service.
type reply struct {
	status   int
	header   http.Header
	body     []byte
	tracking string
	resumed  bool // on a TLS session of an earlier connection
}

func (d *device) send(method, rest, token string, body []byte) (reply, error) {
	url := d.service.URL("/" + d.service.IDScope + "/registrations/" + d.id + rest + "?api-version=2021-06-01")
	request, err := http.NewRequestWithContext(d.t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	answer, err := d.client.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return reply{answer.StatusCode, answer.Header, text, answer.Header.Get("x-ms-request-id"), answer.TLS.DidResume}, err
}

// ask sends until the answer has one of the statuses, as a client does that meets a node which is going: a connection that breaks and a 503 are
// tried again.
func (d *device) ask(method, rest, token string, body []byte, want ...int) reply {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	got, err := rig.Poll(ctx, func() (reply, bool, error) {
		got, err := d.send(method, rest, token, body)
		for _, status := range want {
			if err == nil && got.status == status {
				return got, true, nil
			}
		}
		if err == nil && got.status != http.StatusServiceUnavailable {
			return got, false, fmt.Errorf("%s %s: status %d, want %v: %s", method, rest, got.status, want, got.body)
		}
		return got, false, nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return got
}

func (d *device) body() []byte {
	keys := &dps.TPMKeys{EndorsementKey: d.tpm.EK.Bytes(), StorageRootKey: d.tpm.SRK.Bytes()}
	return dps.RegisterRequest{RegistrationID: d.id, TPM: keys}.Encode()
}

// contact asks for a challenge. It returns the tracking id of the answer, as the next two do.
func (d *device) contact() string {
	d.t.Helper()
	got := d.ask(http.MethodPut, "/register", "", d.body(), http.StatusUnauthorized)
	challenge, err := dps.DecodeChallenge(got.body)
	if err != nil {
		d.t.Fatal(err)
	}
	d.challenge = challenge
	d.token = d.sign(challenge.Blob, d.service.IDScope+"/registrations/"+d.id, challenge.KeyName)
	return got.tracking
}

// sign opens a blob and makes a SAS token with the key in it.
func (d *device) sign(blob []byte, resource, keyName string) string {
	d.t.Helper()
	key, err := d.tpm.Open(blob)
	if err != nil {
		d.t.Fatal(err)
	}
	token, err := dps.NewToken(dps.KeySigner(key), resource, time.Now().Add(time.Hour), keyName)
	if err != nil {
		d.t.Fatal(err)
	}
	return token
}

// prove answers the challenge.
func (d *device) prove() string {
	d.t.Helper()
	got := d.ask(http.MethodPut, "/register", d.token, d.body(), http.StatusAccepted)
	operation, err := dps.DecodeOperationStatus(got.body)
	if err != nil || d.operation != "" && operation.OperationID != d.operation {
		d.t.Fatalf("operation %q after %q, %v", operation.OperationID, d.operation, err)
	}
	d.operation = operation.OperationID
	return got.tracking
}

// poll asks for the operation, once or until it is assigned.
func (d *device) poll() (tracking string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	state, err := rig.Poll(ctx, func() (*dps.RegistrationState, bool, error) {
		got := d.ask(http.MethodGet, "/operations/"+d.operation, d.token, nil, http.StatusOK, http.StatusAccepted)
		tracking = got.tracking
		answer, err := dps.DecodeOperationStatus(got.body)
		return answer.RegistrationState, answer.Status == dps.StatusAssigned, err
	})
	if err != nil || state == nil || state.TPM == nil {
		d.t.Fatalf("not assigned with a key: %+v, %v", state, err)
	}
	d.state = state
	return tracking
}

// register does all of it, and returns the tracking ids.
func (d *device) register() []string {
	d.t.Helper()
	d.operation = ""
	return []string{d.contact(), d.prove(), d.poll()}
}

// session is a device at its hub.
type session struct {
	client mqtt.Client
	lost   chan struct{} // closed when the hub ends it
}

// login connects to the hub with the key that came with the assignment. It comes again while the load balancer does not see that the hub's owner
// is back.
func (d *device) login() *session {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	var last error
	s, err := rig.Poll(ctx, func() (s *session, there bool, err error) {
		s, last = d.connect(d.hubToken())
		return s, last == nil, nil
	})
	if err != nil {
		d.t.Fatalf("%s is not let in at the hub: %v", d.id, last)
	}
	d.t.Cleanup(func() { s.client.Disconnect(0) })
	return s
}

// hub is the resource of a token for it.
func (d *device) hub() string { return d.state.AssignedHub + "/devices/" + d.state.DeviceID }

func (d *device) hubToken() string { return d.sign(d.state.TPM.AuthenticationKey, d.hub(), "") }

func (d *device) connect(password string) (*session, error) {
	s := &session{lost: make(chan struct{})}
	options := mqtt.NewClientOptions().
		AddBroker("ssl://" + d.service.MQTT).
		SetTLSConfig(d.service.TLS()).
		SetProtocolVersion(4).
		SetClientID(d.state.DeviceID).
		SetUsername(strings.Replace(d.hub(), "/devices", "", 1) + "/?api-version=2021-04-12").
		SetPassword(password).
		SetAutoReconnect(false).
		SetConnectionLostHandler(func(mqtt.Client, error) { close(s.lost) }).
		SetConnectTimeout(patience)
	s.client = mqtt.NewClient(options)
	token := s.client.Connect()
	if !token.WaitTimeout(patience) {
		return nil, fmt.Errorf("the hub has not answered within %v", patience)
	}
	return s, token.Error()
}
