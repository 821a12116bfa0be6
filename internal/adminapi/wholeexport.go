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
	asked := call.URL.Query() // judged before
	secrets, known := truth(asked.Get("secrets"))
	if !known {
		return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "secrets must be true or false.", nil)
	}
	right := registration.EnrollmentRead | registration.RegistrationStatusRead
	if secrets {
		right |= registration.EnrollmentWrite
	}
	x := &exporting{api: a, by: by, secrets: secrets, authorize: a.again(call, right), digest: sha256.New()}
	if err := x.authorize(); err != nil {
		return web.Reply{}, err
	}
	header := map[string]string{"Content-Type": linesType, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
	return web.Reply{Status: http.StatusOK, Header: header, Stream: x.run}, nil
}

// exporting is one export under way.
type exporting struct {
	api       *API
	by        registration.Caller
	secrets   bool
	authorize func() error

	out    io.Writer
	digest hash.Hash
	lines  uint64
	buffer []byte // of the line under way
}

// run writes an export. One that breaks has no end line, and is cut off in its framing too.
func (x *exporting) run(ctx context.Context, stream *web.Stream) error {
	x.out = stream
	header, err := x.api.core.ExportHeader(x.by, x.secrets)
	if err != nil {
		return err
	}
	if err := x.write(header.Encode()); err != nil {
		return err
	}
	if err := x.api.core.ExportAll(ctx, x.by, x.secrets, x.object); err != nil {
		return err
	}
	digest := [sha256.Size]byte(x.digest.Sum(nil))
	signature, err := x.api.core.SignExport(x.by, digest)
	if err != nil {
		return err
	}
	_, err = stream.Write(dps.NewExportEnd(x.lines, digest, signature).Encode())
	return err
}

// write counts and sends a line.
func (x *exporting) write(line []byte) error {
	if x.lines%judgedLines == judgedLines-1 {
		if err := x.authorize(); err != nil {
			return err
		}
	}
	x.digest.Write(line)
	x.lines++
	_, err := x.out.Write(line)
	return err
}

// object writes the line of an object. Whether there are keys in it is the core's to say.
func (x *exporting) object(o registration.Exported) error {
	const show = dps.ShowCertificates | dps.ShowKeys
	var kind string
	var value []byte
	var err error
	switch {
	case o.CA != nil:
		kind = dps.ExportCA
		value, err = json.Marshal(caCertificate(*o.CA))
	case o.Group != nil:
		kind, value = dps.ExportGroup, o.Group.EncodeShowing(show)
	case o.Enrollment != nil:
		kind, value = dps.ExportEnrollment, o.Enrollment.EncodeShowing(show)
	default:
		kind, value = dps.ExportRegistration, o.Registration.Encode()
	}
	if err != nil {
		return err
	}
	if x.buffer, err = dps.AppendExportLine(x.buffer[:0], kind, value); err != nil {
		return err
	}
	return x.write(x.buffer)
}
