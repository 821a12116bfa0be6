package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/rogpeppe/go-internal/testscript"

	"latchkey.example/latchkey/dps"
)

// sendTelemetry logs a device in with the connection string in a file, sends one message with a property bag, and returns when it is acknowledged.
func sendTelemetry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: telemetry FILE BAG BODY")
	}
	hub, id, key := deviceOf(ts, ts.ReadFile(args[0]))
	password, err := dps.NewToken(dps.KeySigner(key), hub+"/devices/"+id, time.Now().Add(time.Hour), "")
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ts.ReadFile(ts.Getenv("LATCHKEY_CA_FILE"))))
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + ts.Getenv("MQTT")).SetTLSConfig(&tls.Config{RootCAs: roots, ServerName: hub}).SetClientID(id).
		SetProtocolVersion(4).SetCleanSession(false).SetAutoReconnect(false).SetUsername(hub + "/" + id + "/?api-version=2021-04-12").SetPassword(password))
	defer client.Disconnect(0)
	for _, do := range []func() mqtt.Token{client.Connect, func() mqtt.Token { return client.Publish("devices/"+id+"/messages/events/"+args[1], 1, false, args[2]) }} {
		if token := do(); !token.WaitTimeout(patience) || token.Error() != nil {
			ts.Fatalf("telemetry: %v", token.Error())
		}
	}
}

func TestWhatADeviceSendsIsOneLineThatDoesNothingToTheTerminal(t *testing.T) {
	at := time.Date(2026, 11, 24, 6, 0, 0, 123e6, time.UTC)
	local := at.Local().Format("15:04:05.000")
	for name, c := range map[string]struct {
		event map[string]any
		want  string
	}{
		"JSON":       {map[string]any{"body": map[string]any{"t": 1}}, "dev  7 B  {\"t\":1}"},
		"text":       {map[string]any{"bodyBase64": []byte("hello")}, "dev  5 B  hello"},
		"bytes":      {map[string]any{"bodyBase64": []byte{0, 0xff}}, "dev  2 B  00ff"},
		"many bytes": {map[string]any{"bodyBase64": bytes.Repeat([]byte{1}, 100)}, "dev  100 B  " + strings.Repeat("01", 64) + "…"},
		"nothing":    {map[string]any{"bodyBase64": []byte{}}, "dev  0 B  "},
		"properties": {map[string]any{"body": 1, "properties": map[string]string{"b": "2", "a": "\x1b[31m"}, "systemProperties": map[string]string{"messageId": "m"}},
			"dev  1 B  messageId=m  a=\uFFFD[31m  b=2  1"},
		"a C1 control in JSON": {map[string]any{"body": "\u009b31m"}, "dev  7 B  \"\uFFFD31m\""},
	} {
		t.Run(name, func(t *testing.T) {
			c.event["id"], c.event["time"], c.event["deviceId"] = "1", at.Format(time.RFC3339Nano), "dev"
			line, err := json.Marshal(c.event)
			if err != nil {
				t.Fatal(err)
			}
			var out, complaints bytes.Buffer
			m := &monitor{out: &out, complain: &complaints}
			if err := m.line(line); err != nil || m.line(line) != nil { // the second time it is known
				t.Fatal(err)
			}
			if got, want := out.String(), local+"  "+c.want+"\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			m.colours, m.last = true, nil
			out.Reset()
			if err := m.line(line); err != nil || !strings.HasPrefix(out.String(), fmt.Sprintf("\x1b[2m%s\x1b[0m  \x1b[36mdev\x1b[0m  ", local)) {
				t.Errorf("%q, %v", out.String(), err)
			}
			if complaints.Len() > 0 {
				t.Errorf("said %q", complaints.String())
			}
		})
	}
}

func TestWhoMissedMessagesIsTold(t *testing.T) {
	var out, complaints bytes.Buffer
	m := &monitor{out: &out, complain: &complaints}
	if err := m.line([]byte(`{"missed":12}`)); err != nil || out.Len() > 0 || complaints.String() != "latchkey: 12 messages were missed: the terminal or the connection is too slow\n" {
		t.Errorf("%v; %q, %q", err, out.String(), complaints.String())
	}
	m.json = true
	if err := m.line([]byte(`{"missed":12}`)); err != nil || out.String() != "{\"missed\":12}\n" {
		t.Errorf("%v; %q", err, out.String())
	}
	if err := m.line([]byte(`{"heartbeat":"2026-03-01T12:00:00Z"}`)); err != nil || strings.Contains(out.String(), "heartbeat") {
		t.Errorf("%v; %q", err, out.String())
	}
	if err := m.line([]byte(`garbage`)); err == nil {
		t.Error("garbage is an event")
	}
}
