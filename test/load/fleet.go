package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/softtpm"
)

// fleetSize is how many devices take turns to register.
const fleetSize = 20

// fleet is devices with software TPMs.
type fleet struct {
	service *rig.Service
	client  *http.Client
	chips   []*softtpm.TPM
	turn    int
}

// enrollFleet makes the devices, half of them with RSA keys as far as there are any, and enrolls them.
func enrollFleet(ctx context.Context, s *rig.Service) (*fleet, error) {
	f := &fleet{service: s, client: s.Client()}
	var lines strings.Builder
	for i := range fleetSize {
		alg, chip := softtpm.ECC, i
		if i < softtpm.MaxRSAChips {
			alg = softtpm.RSA
		}
		tpm := softtpm.New(alg, chip)
		f.chips = append(f.chips, tpm)
		fmt.Fprintf(&lines, `{"endorsementKey":"%s"}`+"\n", base64.StdEncoding.EncodeToString(tpm.EK.Bytes()))
	}
	_, err := s.LatchkeyReading(ctx, strings.NewReader(lines.String()), "enroll", "import", "-")
	return f, err
}

// next has one device register from challenge to hub key.
func (f *fleet) next() error {
	tpm := f.chips[f.turn%len(f.chips)]
	f.turn++
	id := attest.RegistrationID(tpm.EK.Bytes())
	request := dps.RegisterRequest{RegistrationID: id, TPM: &dps.TPMKeys{EndorsementKey: tpm.EK.Bytes(), StorageRootKey: tpm.SRK.Bytes()}}
	body, err := f.send(http.MethodPut, id, "/register", "", request.Encode(), http.StatusUnauthorized)
	if err != nil {
		return err
	}
	challenge, err := dps.DecodeChallenge(body)
	if err != nil {
		return err
	}
	key, err := tpm.Open(challenge.Blob)
	if err != nil {
		return err
	}
	token, err := dps.NewToken(dps.KeySigner(key), f.service.IDScope+"/registrations/"+id, time.Now().Add(time.Hour), challenge.KeyName)
	if err != nil {
		return err
	}
	if body, err = f.send(http.MethodPut, id, "/register", token, request.Encode(), http.StatusAccepted); err != nil {
		return err
	}
	operation, err := dps.DecodeOperationStatus(body)
	if err != nil {
		return err
	}
	return f.poll(tpm, id, token, operation.OperationID)
}

func (f *fleet) poll(tpm *softtpm.TPM, id, token, operation string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	state, err := rig.Poll(ctx, func() (*dps.RegistrationState, bool, error) {
		body, err := f.send(http.MethodGet, id, "/operations/"+operation, token, nil, http.StatusOK, http.StatusAccepted)
		if err != nil {
			return nil, false, err
		}
		answer, err := dps.DecodeOperationStatus(body)
		return answer.RegistrationState, answer.Status == dps.StatusAssigned, err
	})
	if err != nil {
		return err
	}
	if state == nil || state.TPM == nil {
		return fmt.Errorf("%s: assigned without a hub key", id)
	}
	_, err = tpm.Open(state.TPM.AuthenticationKey)
	return err
}

// send wants one of some statuses.
func (f *fleet) send(method, id, rest, token string, body []byte, want ...int) ([]byte, error) {
	url := f.service.URL("/" + f.service.IDScope + "/registrations/" + id + rest + "?api-version=2021-06-01")
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	answer, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	for _, status := range want {
		if answer.StatusCode == status {
			return text, err
		}
	}
	return nil, fmt.Errorf("%s %s: %s, %w: %.300s", method, rest, answer.Status, err, text)
}
