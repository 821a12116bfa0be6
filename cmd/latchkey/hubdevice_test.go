package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/rogpeppe/go-internal/testscript"

	"latchkey.example/latchkey/dps"
)

// online logs a device in with the connection string in a file, until the script's end. It answers each direct method with status and what it was asked,
// and writes the messages that it is sent to messages.out, the bag before the body.
func online(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] online FILE STATUS")
	}
	hub, id, key := deviceOf(ts, ts.ReadFile(args[0]))
	password, err := dps.NewToken(dps.KeySigner(key), hub+"/devices/"+id, time.Now().Add(time.Hour), "")
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ts.ReadFile(ts.Getenv("LATCHKEY_CA_FILE"))))
	options := mqtt.NewClientOptions().AddBroker("ssl://" + ts.Getenv("MQTT")).SetTLSConfig(&tls.Config{RootCAs: roots, ServerName: hub}).SetClientID(id).
		SetProtocolVersion(4).SetCleanSession(false).SetAutoReconnect(false).SetUsername(hub + "/" + id + "/?api-version=2021-04-12").SetPassword(password).SetOrderMatters(false)
	client := mqtt.NewClient(options)
	login := client.Connect()
	if !login.WaitTimeout(patience) || (login.Error() != nil) != neg {
		ts.Fatalf("logging in: %v", login.Error())
	}
	if neg {
		return
	}
	ts.Defer(func() { client.Disconnect(0) })
	out := ts.MkAbs("messages.out")
	for filter, handle := range map[string]mqtt.MessageHandler{
		"$iothub/methods/POST/#": func(c mqtt.Client, m mqtt.Message) {
			_, rid, _ := strings.Cut(m.Topic(), "$rid=")
			c.Publish("$iothub/methods/res/"+args[1]+"/?$rid="+rid, 0, false, fmt.Sprintf(`{"asked":%s}`, m.Payload()))
		},
		"devices/" + id + "/messages/devicebound/#": func(_ mqtt.Client, m mqtt.Message) {
			file, err := os.OpenFile(out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err == nil {
				fmt.Fprintf(file, "%s %s\n", strings.TrimPrefix(m.Topic(), "devices/"+id+"/messages/devicebound/"), m.Payload())
				file.Close()
			}
		},
	} {
		if t := client.Subscribe(filter, 1, handle); !t.WaitTimeout(patience) || t.Error() != nil {
			ts.Fatalf("subscribing to %s: %v", filter, t.Error())
		}
	}
}

// deviceOf reads a device's connection string.
func deviceOf(ts *testscript.TestScript, text string) (hub, id string, key []byte) {
	for part := range strings.SplitSeq(strings.TrimSpace(strings.SplitN(text, "\n", 2)[0]), ";") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "HostName":
			hub = value
		case "DeviceId":
			id = value
		case "SharedAccessKey":
			var err error
			key, err = base64.StdEncoding.DecodeString(value)
			ts.Check(err)
		}
	}
	return hub, id, key
}
