package daemon

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/softtpm"
)

const apiVersion = "?api-version=2021-06-01"

// chip is a device with a software TPM. Its methods return errors, so that several can work beside the test.
type chip struct {
	r      *running
	client *http.Client
	tpm    *softtpm.TPM
	id     string

	challengeKey, hubKey []byte
	token                string // that the challenge key signed
	operation            string
	assigned             *dps.RegistrationState
}

// device is the chip of a number at a service; each number is another device.
func (r *running) device(number int) *chip {
	tpm := softtpm.New(softtpm.ECC, number)
	return &chip{r: r, client: r.client(), tpm: tpm, id: attest.RegistrationID(tpm.EK.Bytes())}
}

// moved is the same device at another run of the service.
func (c *chip) moved(r *running) *chip {
	d := *c
	d.r, d.client = r, r.client()
	return &d
}

func (c *chip) enroll() error {
	e := dps.IndividualEnrollment{RegistrationID: c.id, ProvisioningStatus: dps.EnrollmentEnabled,
		Attestation: dps.Attestation{Type: dps.AttestationTPM, TPM: &dps.TPMKeys{EndorsementKey: c.tpm.EK.Bytes()}}}
	status, body, err := c.r.manage(c.client, http.MethodPut, "/enrollments/"+c.id+apiVersion, e.Encode())
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("enroll: %d %s %w", status, body, err)
	}
	return nil
}

func (c *chip) path(rest string) string {
	return "https://" + host + "/" + c.r.made.IDScope + "/registrations/" + c.id + rest + apiVersion
}

// put is a register request.
func (c *chip) put(token string) (int, []byte, error) {
	return ask(c.client, http.MethodPut, c.path("/register"), token, c.body())
}

func (c *chip) body() []byte {
	return dps.RegisterRequest{RegistrationID: c.id, TPM: &dps.TPMKeys{EndorsementKey: c.tpm.EK.Bytes(), StorageRootKey: c.tpm.SRK.Bytes()}}.Encode()
}

// prove is challenge and proof, to the 202.
func (c *chip) prove() error {
	status, body, err := c.put("")
	if err != nil || status != http.StatusUnauthorized {
		return fmt.Errorf("challenge: %d %s %w", status, body, err)
	}
	if err := c.answer(body); err != nil {
		return err
	}
	if status, body, err = c.put(c.token); err != nil || status != http.StatusAccepted {
		return fmt.Errorf("proof: %d %s %w", status, body, err)
	}
	return c.accepted(body)
}

// answer opens a challenge and signs the token that proves it.
func (c *chip) answer(body []byte) error {
	challenge, err := dps.DecodeChallenge(body)
	if err != nil {
		return err
	}
	if c.challengeKey, err = c.tpm.Open(challenge.Blob); err != nil {
		return err
	}
	resource := c.r.made.IDScope + "/registrations/" + c.id
	c.token, err = dps.NewToken(dps.KeySigner(c.challengeKey), resource, time.Now().Add(time.Hour), challenge.KeyName)
	return err
}

// accepted notes the operation of a 202.
func (c *chip) accepted(body []byte) error {
	accepted, err := dps.DecodeOperationStatus(body)
	c.operation = accepted.OperationID
	return err
}

// poll asks once; the embedded hub has assigned by then.
func (c *chip) poll() error {
	status, body, err := ask(c.client, http.MethodGet, c.path("/operations/"+c.operation), c.token, nil)
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("poll: %d %s %w", status, body, err)
	}
	answer, err := dps.DecodeOperationStatus(body)
	if err != nil || answer.Status != dps.StatusAssigned || answer.RegistrationState.TPM == nil {
		return fmt.Errorf("poll: not assigned: %s %w", body, err)
	}
	c.assigned = answer.RegistrationState
	c.hubKey, err = c.tpm.Open(c.assigned.TPM.AuthenticationKey)
	return err
}

// register is the whole registration of an enrolled device.
func (c *chip) register() error {
	if err := c.prove(); err != nil {
		return err
	}
	return c.poll()
}

// password is the device's SAS token for its hub.
func (c *chip) password() (string, error) {
	return dps.NewToken(dps.KeySigner(c.hubKey), c.assigned.AssignedHub+"/devices/"+c.assigned.DeviceID, time.Now().Add(time.Hour), "")
}

// login connects to the hub over MQTT as a device SDK does.
func (c *chip) login(password string) (paho.Client, error) {
	o := paho.NewClientOptions()
	o.Servers = []*url.URL{{Scheme: "tls", Host: c.r.mqtt}}
	o.SetTLSConfig(c.r.tls()).SetClientID(c.id).SetUsername(host + "/" + c.id + "/?api-version=2021-04-12").SetPassword(password)
	o.SetProtocolVersion(4).SetCleanSession(false).SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(patience)
	client := paho.NewClient(o)
	if err := settled(client.Connect()); err != nil {
		return nil, err
	}
	return client, nil
}

func settled(token paho.Token) error {
	if !token.WaitTimeout(patience) {
		return fmt.Errorf("the hub has not answered within %v", patience)
	}
	return token.Error()
}

// send logs in with the hub key, sends one message and leaves.
func (c *chip) send(text string) error {
	password, err := c.password()
	if err != nil {
		return err
	}
	client, err := c.login(password)
	if err != nil {
		return err
	}
	defer client.Disconnect(0)
	return settled(client.Publish("devices/"+c.id+"/messages/events/", 1, false, text))
}

// begin sends the header of a register request, and a part of its body once the service reads it.
func (c *chip) begin(conn io.ReadWriter) error { return c.beginWith(conn, "") }

func (c *chip) beginWith(conn io.ReadWriter, header string) error {
	_, err := fmt.Fprintf(conn, "PUT /%s/registrations/%s/register%s HTTP/1.1\r\nHost: %s\r\n%sContent-Type: application/json\r\nConnection: close\r\n"+
		"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", c.r.made.IDScope, c.id, apiVersion, host, header, len(c.body()))
	if err != nil {
		return err
	}
	continued := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(conn, continued); err != nil {
		return err
	}
	_, err = conn.Write(c.body()[:100])
	return err
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
