package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/softtpm"
)

// contested is a target with one enrollment, which somebody else changes whenever it was read.
type contested struct {
	t      *testing.T
	mu     sync.Mutex
	etag   string
	stored []byte
}

func (c *contested) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Error(err)
	}
	match := r.Header.Get("If-Match")
	switch {
	case r.Method == http.MethodGet:
		_, _ = w.Write(c.stored)
		c.etag = "another"
	case match == "":
		refuseWith(http.StatusConflict, dps.CodeEnrollmentExists)(w, r)
	case match != "*" && match != c.etag:
		refuseWith(http.StatusPreconditionFailed, dps.CodePreconditionFailed)(w, r)
	default:
		c.stored = body
	}
}

// --replace replaces what was compared, and nothing that came after.
func TestReplaceLeavesWhatSomebodyElseWrote(t *testing.T) {
	ek := base64.StdEncoding.EncodeToString(softtpm.New(softtpm.ECC, 0).EK.Bytes())
	entry := func(device string) string {
		return `{"registrationId":"a","deviceId":"` + device + `","etag":"first","attestation":{"type":"tpm","tpm":{"endorsementKey":"` + ek + `"}}}`
	}
	there := &contested{t: t, etag: "first", stored: []byte(entry("theirs"))}
	m := &mover{flags: &moveFlags{replace: true}, target: &patientClient{client: clientOf(t, there.ServeHTTP)}, report: newMoveReport(false), meter: newMeter(io.Discard)}
	if err := m.run(t.Context(), fileSource{strings.NewReader(entry("ours"))}); err != nil {
		t.Fatal(err)
	}
	var held struct{ DeviceID string }
	if err := json.Unmarshal(there.stored, &held); err != nil {
		t.Fatal(err)
	}
	if held.DeviceID != "theirs" || len(m.report.CannotMove) != 1 || m.report.Replaced.String() != "0" {
		t.Errorf("the target holds %q, the report says %+v", held.DeviceID, m.report)
	}
}
