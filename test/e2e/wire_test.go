package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const apiVersion = "api-version=2021-06-01"

// assignLimit bounds how long a device waits to be assigned.
const assignLimit = 60 * time.Second

// hand registers by hand, request by request, so that a test can do something
// in between.
type hand struct {
	t       *testing.T
	service *rig.Service
	client  *http.Client
	tpm     *device.Identity
	token   string // of the challenge
}

// newHand is an enrolled device.
func newHand(t *testing.T, service *rig.Service, tpm simtpm.TPM) *hand {
	t.Helper()
	id := openIdentity(t, tpm)
	if err := service.Enroll(t.Context(), id.RegistrationID(), base64.StdEncoding.EncodeToString(id.EK())); err != nil {
		t.Fatal(err)
	}
	client := service.Client()
	t.Cleanup(client.CloseIdleConnections)
	return &hand{t: t, service: service, client: client, tpm: id}
}

func openIdentity(t *testing.T, tpm simtpm.TPM) *device.Identity {
	t.Helper()
	id, err := device.OpenTransport(tpm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := id.Close(); err != nil {
			t.Error(err)
		}
	})
	return id
}

// path at the service, below the device's registration.
func (h *hand) path(rest string) string {
	return h.service.URL("/" + h.service.IDScope + "/registrations/" + h.tpm.RegistrationID() + rest + "?" + apiVersion)
}

func (h *hand) send(method, url, token string, body []byte) (int, []byte, error) {
	request, err := http.NewRequestWithContext(h.t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	answer, err := h.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, text, err
}

// put registers and wants the given status.
func (h *hand) put(token string, want int) []byte {
	h.t.Helper()
	return h.putKeys(token, h.tpm.EK(), h.tpm.SRK(), want)
}

// putKeys does so in the device's name, with any keys.
func (h *hand) putKeys(token string, ek, srk []byte, want int) []byte {
	h.t.Helper()
	request := dps.RegisterRequest{RegistrationID: h.tpm.RegistrationID(),
		TPM: &dps.TPMKeys{EndorsementKey: ek, StorageRootKey: srk}}
	status, body, err := h.send(http.MethodPut, h.path("/register"), token, request.Encode())
	if err != nil || status != want {
		h.t.Fatalf("PUT register: %d, want %d; error %v; body %s", status, want, err, body)
	}
	return body
}

// prove answers the challenge and gives the operation's id.
func (h *hand) prove() string {
	h.t.Helper()
	challenge, err := dps.DecodeChallenge(h.put("", http.StatusUnauthorized))
	if err != nil {
		h.t.Fatal(err)
	}
	resource := h.service.IDScope + "/registrations/" + h.tpm.RegistrationID()
	h.token = h.sign(challenge.Blob, resource, challenge.KeyName)
	return h.operationID(h.put(h.token, http.StatusAccepted))
}

func (h *hand) operationID(body []byte) string {
	h.t.Helper()
	operation, err := dps.DecodeOperationStatus(body)
	if err != nil || operation.OperationID == "" {
		h.t.Fatalf("no operation: %v; body %s", err, body)
	}
	return operation.OperationID
}

// sign opens a blob and has the TPM make an hour's SAS token with what is in it.
func (h *hand) sign(blob []byte, resource, keyName string) string {
	h.t.Helper()
	key, err := h.tpm.Activate(blob)
	if err != nil {
		h.t.Fatal(err)
	}
	defer key.Close()
	token, err := dps.NewToken(key, resource, time.Now().Add(time.Hour), keyName)
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

// poll asks for the operation until it is assigned.
func (h *hand) poll(operation string) *dps.RegistrationState {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), assignLimit)
	defer cancel()
	state, err := rig.Poll(ctx, func() (*dps.RegistrationState, bool, error) {
		status, body, err := h.send(http.MethodGet, h.path("/operations/"+operation), h.token, nil)
		if err != nil || status != http.StatusOK && status != http.StatusAccepted {
			return nil, false, fmt.Errorf("poll: %d, error %v, body %s", status, err, body)
		}
		answer, err := dps.DecodeOperationStatus(body)
		if err != nil {
			return nil, false, err
		}
		return answer.RegistrationState, answer.Status == dps.StatusAssigned, nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return state
}

// hubToken opens the hub key and signs for the hub.
func (h *hand) hubToken(state *dps.RegistrationState) string {
	h.t.Helper()
	if state.TPM == nil {
		h.t.Fatalf("assigned without a hub key: %+v", state)
	}
	return h.sign(state.TPM.AuthenticationKey, state.AssignedHub+"/devices/"+state.DeviceID, "")
}
