package main

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"latchkey.example/latchkey/dps"
	fixture "latchkey.example/latchkey/test/fixture/dps"
)

// source is the script command of that name: it starts a service of the imitated kind and sets LATCHKEY_FROM_* to reach it.
//
//	source            what the reference's examples hold: each mechanism, registrations, things that cannot move
//	source endless    gives the same continuation for ever
//	source breaks N   cuts every connection after N requests
func source(ts *testscript.TestScript, _ bool, args []string) {
	server := examples(ts)
	switch {
	case len(args) == 1 && args[0] == "endless":
		server.Endless = true
	case len(args) == 2 && args[0] == "breaks":
		n, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		server.BreakAfter = n
	case len(args) > 0:
		ts.Fatalf("usage: source [endless | breaks N]")
	}
	running := server.Start()
	running.Config.ErrorLog = nil
	ts.Defer(running.Close)
	ca := ts.MkAbs("source.crt")
	ts.Check(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: running.Certificate().Raw}), 0o600))
	ts.Setenv("LATCHKEY_FROM_CONNECTION_STRING", "HostName=example.com;SharedAccessKeyName=reader;SharedAccessKey="+base64.StdEncoding.EncodeToString(make([]byte, 32)))
	ts.Setenv("LATCHKEY_FROM_CONNECT", strings.TrimPrefix(running.URL, "https://"))
	ts.Setenv("LATCHKEY_FROM_CA_FILE", ca)
}

func examples(ts *testscript.TestScript) *fixture.Server {
	tpm := func(ek string) string {
		return `{"type":"tpm","tpm":{"endorsementKey":"` + ts.Getenv(ek) + `"}}`
	}
	key := func(b byte) string {
		k := make([]byte, 64)
		for i := range k {
			k[i] = b
		}
		encoded := base64.StdEncoding.EncodeToString(k)
		return `{"type":"symmetricKey","symmetricKey":{"primaryKey":"` + encoded + `","secondaryKey":"` + encoded + `"}}`
	}
	info := func(file string) string {
		c, err := dps.ParseCertificate(pemOf(ts, file))
		ts.Check(err)
		return fmt.Sprintf(`{"primary":{"info":%s}}`, c.Info.Encode())
	}
	const hidden = `{"type":"symmetricKey"}`
	return &fixture.Server{
		BusyEvery: 5,
		Enrollments: []fixture.Entry{
			{ID: "line4-press-07", Attestation: tpm("EK"), Shown: `,"deviceId":"press-07","provisioningStatus":null,"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true},"initialTwin":{"tags":{"site":"north","version":3},"properties":{"desired":{"rate":5}}}`},
			{ID: "line4-press-08", Attestation: tpm("EK2"), Shown: `,"provisioningStatus":"disabled","capabilities":{"iotEdge":false}`,
				State: `{"registrationId":"line4-press-08","status":"assigned","assignedHub":"hub-a.example.net","deviceId":"press-08-at-hub"}`},
			{ID: "valve", Attestation: hidden, Keys: key(7), Shown: `,"provisioningStatus":"enabled"`},
			{ID: "locked", Attestation: hidden, Shown: `,"provisioningStatus":"enabled"`},
			{ID: "camera", Attestation: `{"type":"x509","x509":{"clientCertificates":` + info("camera.crt") + `}}`, Shown: `,"provisioningStatus":"enabled"`},
			{ID: "pinned", Attestation: tpm("EK"), Shown: `,"provisioningStatus":"enabled","allocationPolicy":"static","iotHubs":["hub-a.example.net"]`},
			{ID: "chosen", Attestation: tpm("EK"), Shown: `,"provisioningStatus":"enabled","allocationPolicy":"custom","customAllocationDefinition":{"webhookUrl":"https://alloc.example.net/pick?code=secret","apiVersion":"2021-10-01"}`},
			{ID: "old-sample", Attestation: `{"type":"tpm","tpm":{"endorsementKey":"YQ=="}}`, Shown: `,"provisioningStatus":"enabled"`},
		},
		Groups: []fixture.Entry{
			{ID: "valves", Attestation: hidden, Keys: key(9), Shown: `,"provisioningStatus":"enabled"`},
			{ID: "plant", Attestation: `{"type":"x509","x509":{"signingCertificates":` + info("plant.crt") + `}}`, Shown: `,"provisioningStatus":"enabled"`},
			{ID: "named", Attestation: `{"type":"x509","x509":{"caReferences":{"primary":"Plant-CA"}}}`, Shown: `,"provisioningStatus":"enabled"`},
		},
		Registrations: map[string][]string{"valves": {"v1", "v2", "v3"}},
	}
}
