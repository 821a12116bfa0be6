package main

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
)

const scope = "0ne00000000"

// service assigns every device that proves itself to one hub.
type service struct {
	*httptest.Server
	caFile string
	hubKey []byte

	foreignEK []byte // if set, it seals for this one instead of the device's

	challengeKey []byte
	register     dps.RegisterRequest
}

func newService(t *testing.T) *service {
	s := &service{hubKey: make([]byte, 32), challengeKey: make([]byte, 32)}
	rand.Read(s.hubKey)
	rand.Read(s.challengeKey)
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	s.caFile = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(s.caFile, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	token, err := dps.ParseToken(r.Header.Get("Authorization"))
	switch {
	case strings.Contains(r.URL.Path, "stranger"):
		write(w, 404, dps.EncodeError(dps.CodeNotEnrolled, "", "t-404", time.Now()))
	case r.Header.Get("Authorization") == "":
		if s.register, err = dps.DecodeRegister(body); err != nil {
			write(w, 400, []byte(err.Error()))
			return
		}
		write(w, 401, dps.EncodeChallenge("t-401", s.seal(s.challengeKey), time.Now()))
	case err != nil || !token.Verify(s.challengeKey):
		write(w, 401, dps.EncodeError(dps.CodeUnauthorized, "", "t", time.Now()))
	case r.Method == http.MethodPut:
		write(w, 202, []byte(`{"operationId":"op-1","status":"assigning"}`))
	default:
		key, _ := json.Marshal(s.seal(s.hubKey))
		write(w, 200, fmt.Appendf(nil, `{"operationId":"op-1","status":"assigned","registrationState":{"registrationId":%q,"status":"assigned",
			"assignedHub":"hub.example","deviceId":"device-1","substatus":"initialAssignment","tpm":{"authenticationKey":%s}}}`, s.register.RegistrationID, key))
	}
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body)
}

func (s *service) seal(key []byte) []byte {
	ekPublic := s.register.TPM.EndorsementKey
	if s.foreignEK != nil {
		ekPublic = s.foreignEK
	}
	ek, err := attest.ParseEK(ekPublic)
	if err != nil {
		panic(err)
	}
	srk, err := attest.ParseSRK(s.register.TPM.StorageRootKey)
	if err != nil {
		panic(err)
	}
	blob, err := attest.Seal(rand.Reader, ek, srk, key)
	if err != nil {
		panic(err)
	}
	return blob
}
