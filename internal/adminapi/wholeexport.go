package adminapi

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"hash"
	"io"
	"net/http"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

var wholeExportParameters = []string{"secrets", "api-version"}

// ExportKey is the answer of GET /latchkey/v1/exportKey: what the signatures of the scope's exports are verified with.
type ExportKey struct {
	IDScope   string `json:"idScope"`
	Algorithm string `json:"algorithm"` // Ed25519
	PublicKey []byte `json:"publicKey"` // base64
}

// exportAdditions are the paths of the whole export.
func (a *API) exportAdditions() []addition {
	const read = registration.EnrollmentRead
	return []addition{
		{"export", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodGet: {"export", read | registration.RegistrationStatusRead, bodiless, false, a.exportWhole}}
		}},
		{"exportKey", func(string) map[string]endpoint {
			return map[string]endpoint{http.MethodGet: {"export-key", read, bodiless, false, a.getExportKey}}
		}},
	}
}

func (a *API) getExportKey(_ context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
	header, err := a.core.ExportHeader(by, false)
	return jsonReply(ExportKey{IDScope: header.IDScope, Algorithm: "Ed25519", PublicKey: header.PublicKey}, err)
}

// exportWhole sends all that operators see of the scope. Keys are shown to those only who could read them one by one, and the audit tells it.
func (a *API) exportWhole(_ context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	asked, err := a.parameters(call, by, wholeExportParameters)
	if err != nil {
		return web.Reply{}, err
	}
	secrets := asked.Get("secrets")
	switch secrets {
	case "", "false":
	case "true":
		if _, err := a.core.Authorize(host(call.Request), call.URL.Path, call.Header.Get("Authorization"), call.Address, registration.EnrollmentWrite, call.Arrived); err != nil {
			return web.Reply{}, err
		}
	default:
		return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "secrets must be true or false.", nil)
	}
	return web.Reply{
		Status: http.StatusOK,
		Header: map[string]string{"Content-Type": linesType, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
		Stream: func(ctx context.Context, stream *web.Stream) error {
			return a.writeExport(ctx, by, secrets == "true", stream)
		},
	}, nil
}

// exportWriter writes the lines of an export and keeps count of them.
type exportWriter struct {
	out    io.Writer
	digest hash.Hash
	lines  uint64
	buffer []byte // of the line under way
}

func (w *exportWriter) write(line []byte) error {
	w.digest.Write(line)
	w.lines++
	_, err := w.out.Write(line)
	return err
}

// writeExport writes an export. One that breaks has no end line, and is cut off in its framing too.
func (a *API) writeExport(ctx context.Context, by registration.Caller, secrets bool, out io.Writer) error {
	header, err := a.core.ExportHeader(by, secrets)
	if err != nil {
		return err
	}
	w := &exportWriter{out: out, digest: sha256.New()}
	if err := w.write(header.Encode()); err != nil {
		return err
	}
	if err := a.core.ExportAll(ctx, by, secrets, w.object); err != nil {
		return err
	}
	digest := [sha256.Size]byte(w.digest.Sum(nil))
	signature, err := a.core.SignExport(by, digest)
	if err != nil {
		return err
	}
	_, err = out.Write(dps.NewExportEnd(w.lines, digest, signature).Encode())
	return err
}

// object writes the line of an object. Whether there are keys in it is the core's to say.
func (w *exportWriter) object(x registration.Exported) error {
	const show = dps.ShowCertificates | dps.ShowKeys
	var kind string
	var value []byte
	var err error
	switch {
	case x.CA != nil:
		kind = dps.ExportCA
		value, err = json.Marshal(caCertificate(*x.CA))
	case x.Group != nil:
		kind, value = dps.ExportGroup, x.Group.EncodeShowing(show)
	case x.Enrollment != nil:
		kind, value = dps.ExportEnrollment, x.Enrollment.EncodeShowing(show)
	default:
		kind, value = dps.ExportRegistration, x.Registration.Encode()
	}
	if err != nil {
		return err
	}
	if w.buffer, err = dps.AppendExportLine(w.buffer[:0], kind, value); err != nil {
		return err
	}
	return w.write(w.buffer)
}
