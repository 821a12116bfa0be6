package adminapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// CACertificate is a CA certificate that groups may refer to by name once it is verified.
type CACertificate struct {
	Name             string          `json:"name"`
	Verified         bool            `json:"verified"`
	VerificationCode string          `json:"verificationCode,omitempty"` // until it is verified
	Certificate      string          `json:"certificate"`                // base64 of DER
	Info             json.RawMessage `json:"info"`
	ETag             string          `json:"etag"`
	Created          string          `json:"createdDateTimeUtc"`
	LastUpdated      string          `json:"lastUpdatedDateTimeUtc"`
}

// CACertificates is the answer of GET /latchkey/v1/caCertificates, in order of the names.
type CACertificates struct {
	CACertificates []CACertificate `json:"caCertificates"`
}

// caAdditions are the paths of CA certificates. Who may write groups may say which CAs they trust.
func (a *API) caAdditions() []addition {
	const read, write = registration.EnrollmentRead, registration.EnrollmentWrite
	return []addition{
		{"caCertificates", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodGet: {"ca-certificate-list", read, bodiless, false, a.listCAs}}
		}},
		{"caCertificates/{name}", func(name string) map[string]endpoint {
			return map[string]endpoint{
				http.MethodGet:    {"ca-certificate-get", read, bodiless, false, a.getCA(name)},
				http.MethodPut:    {"ca-certificate-put", write, message, false, a.withCertificate(name, a.core.PutCA)},
				http.MethodDelete: {"ca-certificate-delete", write, bodiless, false, a.deleteCA(name)},
			}
		}},
		{"caCertificates/{name}/verify", func(name string) map[string]endpoint {
			return map[string]endpoint{http.MethodPost: {"ca-certificate-verify", write, message, false, a.withCertificate(name, a.core.VerifyCA)}}
		}},
	}
}

func caCertificate(ca registration.CA) CACertificate {
	return CACertificate{Name: ca.Name, Verified: ca.Verified, VerificationCode: ca.Code, Certificate: base64.StdEncoding.EncodeToString(ca.DER),
		Info: ca.Info.Encode(), ETag: ca.ETag, Created: dps.FormatTime(ca.Created), LastUpdated: dps.FormatTime(ca.Updated)}
}

func jsonReply(answer any, err error) (web.Reply, error) {
	if err != nil {
		return web.Reply{}, err
	}
	body, err := json.Marshal(answer)
	return web.Reply{Status: http.StatusOK, Body: body}, err
}

func (a *API) listCAs(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
	list, err := a.core.CAs(ctx, by)
	answer := CACertificates{CACertificates: make([]CACertificate, 0, len(list))}
	for _, ca := range list {
		answer.CACertificates = append(answer.CACertificates, caCertificate(ca))
	}
	return jsonReply(answer, err)
}

func (a *API) getCA(name string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		ca, err := a.core.CA(ctx, by, name)
		if err != nil {
			return web.Reply{}, err
		}
		return jsonReply(caCertificate(ca), nil)
	}
}

// withCertificate handles the two requests that carry a certificate.
func (a *API) withCertificate(name string, do func(context.Context, registration.Caller, string, []byte) (registration.CA, error)) handler {
	return func(ctx context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.validID(by, name); err != nil {
			return web.Reply{}, err
		}
		certificate, err := dps.DecodeCertificate(call.Body)
		if err != nil {
			return web.Reply{}, a.refuseEntry(by, registration.ReasonBadCA, err)
		}
		ca, err := do(ctx, by, name, certificate.DER)
		if err != nil {
			return web.Reply{}, err
		}
		return jsonReply(caCertificate(ca), nil)
	}
}

func (a *API) deleteCA(name string) handler {
	return func(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
		if err := a.core.DeleteCA(ctx, by, name); err != nil {
			return web.Reply{}, err
		}
		return web.Reply{Status: http.StatusNoContent}, nil
	}
}
