package steps

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/httpapi"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// overHTTP has the node answer devices through its HTTP API.
func (n *node) overHTTP() *node {
	server := web.NewServer("device", n.core, slog.New(slog.DiscardHandler), web.NewMetrics(prometheus.NewRegistry()), web.NewShared(web.DefaultLimits))
	n.api = httpapi.New(n.core, server)
	return n
}

func (n *node) register(ctx context.Context, r registration.Request) (registration.Answer, error) {
	if n.api == nil {
		return n.core.Register(ctx, r)
	}
	body := map[string]any{"registrationId": r.ID}
	if r.Body.TPM != nil {
		encode := base64.StdEncoding.EncodeToString
		body["tpm"] = map[string]string{"endorsementKey": encode(r.Body.TPM.EndorsementKey), "storageRootKey": encode(r.Body.TPM.StorageRootKey)}
	}
	return n.http(ctx, http.MethodPut, "/"+r.Scope+"/registrations/"+r.ID+"/register", r.Authorization, body)
}

func (n *node) poll(ctx context.Context, r registration.Request, operation string) (registration.Answer, error) {
	if n.api == nil {
		return n.core.Poll(ctx, r, operation)
	}
	return n.http(ctx, http.MethodGet, "/"+r.Scope+"/registrations/"+r.ID+"/operations/"+operation, r.Authorization, nil)
}

func (n *node) lookup(ctx context.Context, r registration.Request) (registration.Answer, error) {
	if n.api == nil {
		return n.core.Lookup(ctx, r)
	}
	return n.http(ctx, http.MethodPost, "/"+r.Scope+"/registrations/"+r.ID, r.Authorization, map[string]any{"registrationId": r.ID})
}

// http sends a request and reads its answer as a device does.
func (n *node) http(ctx context.Context, method, path, authorization string, body map[string]any) (registration.Answer, error) {
	n.Helper()
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body) // of strings alone
	}
	request := httptest.NewRequestWithContext(ctx, method, path+"?api-version=2021-06-01", bytes.NewReader(text))
	request.Header.Set("Content-Type", "application/json")
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response := httptest.NewRecorder()
	n.api.ServeHTTP(response, request)
	return n.read(response)
}

func (n *node) read(response *httptest.ResponseRecorder) (registration.Answer, error) {
	n.Helper()
	var a registration.Answer
	wait, _ := strconv.Atoi(response.Header().Get("Retry-After"))
	a.RetryAfter = time.Duration(wait) * time.Second
	if response.Code < 300 {
		a.Status = new(dps.OperationStatus)
		if err := json.Unmarshal(response.Body.Bytes(), a.Status); err != nil || a.Status.RegistrationState == nil {
			n.Fatalf("an answer that cannot be read: %v\n%s", err, response.Body)
		}
		return a, nil
	}
	var said struct {
		dps.ErrorBody
		AuthenticationKey []byte `json:"authenticationKey"`
	}
	if err := json.Unmarshal(response.Body.Bytes(), &said); err != nil {
		n.Fatalf("an error that cannot be read: %v\n%s", err, response.Body)
	}
	if said.AuthenticationKey != nil {
		a.Challenge = said.AuthenticationKey
		return a, nil
	}
	fault := &registration.Fault{Code: dps.Code(said.ErrorCode), RetryAfter: a.RetryAfter, TrackingID: said.TrackingID}
	if fault.Code.Status() != response.Code || len(fault.TrackingID) != 36 || said.Message != fault.Code.Message() || response.Code == http.StatusServiceUnavailable && a.RetryAfter == 0 {
		n.Errorf("status %d with the body %s and Retry-After %s", response.Code, response.Body, a.RetryAfter)
	}
	return registration.Answer{}, fault
}
