package dps_test

import (
	"encoding/hex"
	"errors"
	"testing"

	"latchkey.example/latchkey/dps"
)

func TestTheLinesOfAnExportHaveOneForm(t *testing.T) {
	header := dps.ExportHeader{LatchkeyExport: 1, IDScope: "0lkOne", Hosts: []string{"one.example.net", "two.example.net"}, Created: "2026-03-01T12:00:00Z", Secrets: true, PublicKey: make([]byte, 32)}
	if got, want := string(header.Encode()), `{"latchkeyExport":1,"idScope":"0lkOne","hosts":["one.example.net","two.example.net"],"createdUtc":"2026-03-01T12:00:00Z","secrets":true,"publicKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`+"\n"; got != want {
		t.Errorf("header %s", got)
	}
	end := dps.NewExportEnd(1<<40, [32]byte{0xab}, []byte{1, 2, 3})
	if got, want := string(end.Encode()), `{"kind":"end","lines":1099511627776,"sha256":"ab00000000000000000000000000000000000000000000000000000000000000","signature":"AQID"}`+"\n"; got != want {
		t.Errorf("end %s", got)
	}
	if got, want := hex.EncodeToString(dps.ExportMessage([32]byte{0xab})), "6c617463686b6579206578706f727420763100ab"+hex.EncodeToString(make([]byte, 31)); got != want {
		t.Errorf("message %s", got)
	}
	line, err := dps.AppendExportLine([]byte("before\n"), dps.ExportEnrollment, []byte("{\n \"registrationId\" : \"P<&>\\u2028\",\t\"a\":[ ] }"))
	if want := "before\n" + `{"kind":"enrollment","value":{"registrationId":"P<&>\u2028","a":[]}}` + "\n"; err != nil || string(line) != want {
		t.Errorf("line %q, %v", line, err)
	}
	if kept, err := dps.AppendExportLine([]byte("before\n"), dps.ExportEnrollment, []byte(`{"a":`)); err == nil || string(kept) != "before\n" {
		t.Errorf("no JSON leaves %q, %v", kept, err)
	}
}

func TestLinesAreTakenApartAgain(t *testing.T) {
	for line, want := range map[string]dps.ExportObject{
		`{"kind":"caCertificate","value":{"name":"Plant"}}`:                 {Kind: "caCertificate", Place: 0, ID: "plant"},
		`{"kind":"enrollmentGroup","value":{"enrollmentGroupId":"Line-4"}}`: {Kind: "enrollmentGroup", Place: 1, ID: "line-4"},
		`{"kind":"enrollment","value":{"x":{},"registrationId":"a"}}`:       {Kind: "enrollment", Place: 2, ID: "a"},
		`{"kind":"registration","value":{"registrationId":"a"}}`:            {Kind: "registration", Place: 3, ID: "a"},
	} {
		got, err := dps.ParseExportLine([]byte(line))
		if err != nil || got.Kind != want.Kind || got.Place != want.Place || got.ID != want.ID {
			t.Errorf("%s: %+v, %v", line, got, err)
		}
	}
	for line, want := range map[string]error{
		``:                                                                dps.ErrExportLine,
		`{"kind":"enrollment","value":}`:                                  dps.ErrExportLine,
		`{"kind":"enrollment","value":{}}`:                                dps.ErrExportLine,
		`{"kind":"enrollment","value":[]}`:                                dps.ErrExportLine,
		`{"kind":"enrollment","value":null}`:                              dps.ErrExportLine,
		`{"value":{},"kind":"enrollment"}`:                                dps.ErrExportLine,
		`{"kind":"enrollment","value":{"registrationId":7}}`:              dps.ErrExportLine,
		`{"kind":"enrollment","value":{"registrationId":null}}`:           dps.ErrExportLine,
		`{"kind":"enrollment","value":{"registrationId":"a"},"value":{}}`: dps.ErrExportLine,
		`{"kind":"enrollment","value":{"registrationId":"a"}} `:           dps.ErrExportLine,
		`{"kind":"end","value":{"registrationId":"a"}}`:                   dps.ErrExportKind,
		`{"kind":"Enrollment","value":{"registrationId":"a"}}`:            dps.ErrExportKind,
	} {
		if _, err := dps.ParseExportLine([]byte(line)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", line, err, want)
		}
	}
}
