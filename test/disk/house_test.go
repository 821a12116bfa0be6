package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/store/sqlite"
	"latchkey.example/latchkey/test/faults"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/softtpm"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// patience bounds every wait between processes.
const patience = 30 * time.Second

// house is a service and the devices that register on it.
type house struct {
	*rig.Service
	t       *testing.T
	devices []*faults.Device
	door    *faults.Door
	load    *faults.Load
}

func busy(t *testing.T) *house {
	t.Helper()
	s := rig.New(t, rig.Config{})
	devices, err := faults.Enroll(t.Context(), s, 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{Service: s, t: t, devices: devices, door: faults.DoorOf(s)}
	h.load = faults.Start(faults.Plan{Scope: s.IDScope, Doors: []*faults.Door{h.door}, Devices: devices, Workers: 8, Seed: 1})
	h.flows()
	return h
}

// flows wants registrations to go on.
func (h *house) flows() {
	h.t.Helper()
	if err := h.load.Await(30, patience); err != nil {
		h.t.Fatalf("%v\n%v", err, h.load)
	}
}

// path is a file of the data directory.
func (h *house) path(name string) string { return filepath.Join(h.DataDir, name) }

// eventually polls between processes.
func (h *house) eventually(what string, good func() bool) {
	h.t.Helper()
	for limit := time.Now().Add(patience); !good(); {
		if time.Now().After(limit) {
			h.t.Fatalf("never: %s\n%v\n%s", what, h.load, h.told())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// told is the log without the lines of requests, of which there are thousands.
func (h *house) told() string {
	var lines []string
	for line := range strings.Lines(h.Log()) {
		if !strings.Contains(line, `"msg":"request"`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// unserved waits until devices have been refused many times more. What they are refused with they judge themselves.
func (h *house) unserved() {
	h.t.Helper()
	before := h.load.Unserved()
	h.eventually("devices are refused", func() bool { return h.load.Unserved() >= before+40 })
}

// get reads a path of the metrics listener.
func (h *house) get(path string) (int, string) {
	h.t.Helper()
	answer, err := http.Get("http://" + h.Metrics + path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// troubled wants the trouble told wherever somebody looks: probes, metrics, operator, log.
func (h *house) troubled(sentence, advice string) {
	h.t.Helper()
	h.eventually("readyz says "+sentence, func() bool {
		status, text := h.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(text, sentence)
	})
	if status, _ := h.get("/healthz"); status != http.StatusOK {
		h.t.Errorf("healthz: %d", status)
	}
	if _, text := h.get("/metrics"); !strings.Contains(text, "\nlatchkey_store_failing 1\n") {
		h.t.Error("latchkey_store_failing is not 1")
	}
	result, err := h.add("meanwhile")
	if err == nil || !strings.Contains(result.Stderr, sentence) {
		h.t.Errorf("the operator is told %q", result.Stderr)
	}
	if !strings.Contains(h.Log(), advice) {
		h.t.Errorf("the log does not say %q", advice)
	}
}

// add enrolls one more device.
func (h *house) add(id string) (rig.Result, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	return h.Latchkey(ctx, "enroll", "add", "--registration-id", id, "--symmetric-key")
}

// healed wants everything to go on without a restart.
func (h *house) healed() {
	h.t.Helper()
	h.flows()
	if _, err := h.add("afterwards"); err != nil {
		h.t.Error(err)
	}
	h.eventually("it is ready again", func() bool { status, _ := h.get("/readyz"); return status == http.StatusOK })
	if _, text := h.get("/metrics"); !strings.Contains(text, "\nlatchkey_store_failing 0\n") {
		h.t.Error("latchkey_store_failing is not 0")
	}
}

// challenged wants a first contact answered: a challenge is derived, and needs no room.
func (h *house) challenged() {
	h.t.Helper()
	chip := softtpm.New(softtpm.ECC, 0)
	id := attest.RegistrationID(chip.EK.Bytes())
	body := dps.RegisterRequest{RegistrationID: id, TPM: &dps.TPMKeys{EndorsementKey: chip.EK.Bytes(), StorageRootKey: chip.SRK.Bytes()}}.Encode()
	request, err := http.NewRequestWithContext(h.t.Context(), http.MethodPut,
		h.URL("/"+h.IDScope+"/registrations/"+id+"/register?api-version=2021-06-01"), bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	client := h.Client()
	defer client.CloseIdleConnections()
	answer, err := client.Do(request)
	if err != nil {
		h.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	challenge, decoding := dps.DecodeChallenge(text)
	if err == nil && decoding == nil {
		_, err = chip.Open(challenge.Blob)
	}
	if err := errors.Join(err, decoding); err != nil || answer.StatusCode != http.StatusUnauthorized {
		h.t.Errorf("a first contact: %d %s %v", answer.StatusCode, text, err)
	}
}

// quiet wants the trouble told in a line a minute, however many are refused.
func (h *house) quiet() {
	h.t.Helper()
	log := h.Log()
	for _, line := range []string{`"msg":"store: cannot write"`, `"msg":"store","doing":"redeeming a challenge"`} {
		// Two kinds of trouble may meet at the edges of the fault, and a test may take longer than it should.
		if n := strings.Count(log, line); n == 0 || n > 12 {
			h.t.Errorf("%d lines %s for %d refusals", n, line, h.load.Unserved())
		}
	}
}

// holds ends the load and the service, and compares what everybody was told with what is stored.
func (h *house) holds() {
	h.t.Helper()
	h.load.Stop(patience)
	h.t.Logf("%v", h.load)
	h.fsck()
	if h.Running() {
		if err := h.Stop(); err != nil {
			h.t.Error(err)
		}
	}
	found, err := h.compare()
	if err != nil {
		h.t.Error(err)
	}
	if err := faults.Judge(append(h.load.Findings(), found...)); err != nil {
		h.t.Error(err)
	}
}

func (h *house) fsck() {
	h.t.Helper()
	programs, err := rig.Build()
	if err != nil {
		h.t.Fatal(err)
	}
	if said, err := rig.Run(h.t.Context(), rig.Command{Path: programs.Service, Args: []string{"fsck", "--data", h.DataDir}}); err != nil {
		h.t.Errorf("%v\n%s", err, said.Stdout)
	}
}

func (h *house) compare() (found []faults.Finding, err error) {
	ring, err := keyring.Open(h.path("master.key"))
	if err != nil {
		return nil, err
	}
	store, err := sqlite.Open(h.t.Context(), h.path("latchkey.db"), sqlite.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return faults.Check(h.t.Context(), store, ring, h.IDScope, h.devices)
}
