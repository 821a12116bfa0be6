package broker

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

func TestSettingsHaveDefaultsOfAnIoTHub(t *testing.T) {
	s, err := ParseSettings([]byte(`{"product":"rabbitmq","managementUrl":"https://b:15671","managementUser":"latchkey"}`))
	if err != nil {
		t.Fatal(err)
	}
	if s.VirtualHost != "/" || time.Duration(s.CheckEvery) != time.Minute || time.Duration(s.ListDelay) != 7*time.Second ||
		strings.Join(s.Publish, " ") != "devices/{deviceId}/messages/events/#" || strings.Join(s.Subscribe, " ") != "devices/{deviceId}/messages/devicebound/#" {
		t.Errorf("settings are %+v", s)
	}
	s, err = ParseSettings([]byte(`{"product":"mosquitto","publish":[],"subscribe":["a/{deviceId}"],"checkEvery":"30s"}`))
	if err != nil || s.Publish == nil || len(s.Publish) != 0 || time.Duration(s.CheckEvery) != 30*time.Second {
		t.Errorf("an empty list means nothing, got %+v, %v", s, err)
	}
}

func TestSettingsThatCannotWorkAreRefusedWithWhatToDo(t *testing.T) {
	for text, says := range map[string]string{
		`{}`:                     "give one of rabbitmq",
		`{"product":"hivemq"}`:   "give one of",
		`{"product":"rabbitmq"}`: "managementUrl is missing",
		`{"product":"rabbitmq","managementUrl":"https://b"}`:                                           "managementUser is missing",
		`{"product":"rabbitmq","managementUrl":"b:15671","managementUser":"u"}`:                        "not a URL",
		`{"product":"rabbitmq","managementUrl":"https://u:p@b","managementUser":"u"}`:                  "belong into managementUser",
		`{"product":"rabbitmq","managementUrl":"http://broker:15672","managementUser":"u"}`:            "in the clear",
		`{"product":"rabbitmq","managementUrl":"ftp://b","managementUser":"u"}`:                        "https://",
		`{"product":"rabbitmq","managementUrl":"https://b?x=1","managementUser":"u"}`:                  "?",
		`{"product":"rabbitmq","managementUrl":"https://b","managementUser":"a:b"}`:                    "colon",
		`{"product":"rabbitmq","managementUrl":"https://b","managementUser":"u","ca":"x"}`:             "PEM",
		`{"product":"rabbitmq","managementUrl":"https://b","managementUser":"u","publish":["v1.0/#"]}`: "dot",
		`{"product":"mosquitto","managementUrl":"https://b"}`:                                          "no management API",
		`{"product":"mosquitto","virtualHost":"x"}`:                                                    "virtualHost",
		`{"product":"mosquitto","checkEvery":"1s"}`:                                                    "5s to 1h",
		`{"product":"mosquitto","listDelay":"1h"}`:                                                     "1s to 2m",
		`{"product":"mosquitto","checkEvery":"soon"}`:                                                  "cannot be read",
		`{"product":"mosquitto","subscribe":["a/{id}"]}`:                                               "{deviceId}",
		`{"product":"mosquitto","password":"x"}`:                                                       "password",
		`{"product":"mosquitto"} {}`:                                                                   "follows",
		`{"product":"mosquitto","publish":["` + strings.Repeat(`a","`, maxTemplates) + `a"]}`:          "more than 64",
		`{"product":"mosquitto","publish":["` + strings.Repeat("a", maxSettings) + `"]}`:               "larger",
	} {
		if _, err := ParseSettings([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want a sentence with %q", clip(text), err, says)
		}
	}
	for _, fine := range []string{
		`{"product":"rabbitmq","managementUrl":"http://127.0.0.1:15672","managementUser":"u"}`, `{"product":"rabbitmq","managementUrl":"http://[::1]:15672/","managementUser":"u"}`,
		`{"product":"emqx","managementUrl":"http://broker:18083","managementUser":"u","plainManagement":true}`, `{"product":"vernemq","managementUrl":"https://b:8888"}`,
		`{"product":"nanomq"}`, `{"product":"generic","publish":["up/{deviceId}"]}`,
	} {
		if _, err := ParseSettings([]byte(fine)); err != nil {
			t.Errorf("%s: %v", fine, err)
		}
	}
}

func TestSecretsAreJudgedAndNeverRepeated(t *testing.T) {
	const canary = "canary-of-a-secret!"
	for _, text := range []string{
		`{"sharedSecret":"` + canary + `","managementPassword":"x"}`, `{"sharedSecret":"short","managementPassword":"` + canary + `"}`, `{"sharedSecret":"0123456789abcdef"}`,
		`{"sharedSecret":"0123456789abcdef","other":"` + canary + `"}`, canary,
	} {
		_, err := ParseSecret([]byte(text), RabbitMQ)
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", text, err)
		}
	}
	s, err := ParseSecret([]byte(`{"sharedSecret":"0123456789abcdef"}`), Mosquitto)
	if err != nil || s.String() != "[secret]" || s.GoString() != "[secret]" {
		t.Errorf("%v, %v", s, err)
	}
}

// The files beside the pages of docs/hubs are settings and secrets, but for their names. Who forgets to put a secret of his own in place of the one that all the world can
// read there is told so.
func TestTheDocumentedSettingsAreSettings(t *testing.T) {
	for _, product := range []Product{RabbitMQ, EMQX, VerneMQ, NanoMQ, Mosquitto} {
		folder := "../../../docs/hubs/" + string(product)
		settings, err := os.ReadFile(folder + "/settings.json")
		if err != nil {
			t.Fatal(err)
		}
		secret, err := os.ReadFile(folder + "/secret.json")
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseSettings(settings)
		if err != nil || s.Product != product {
			t.Errorf("%s: %+v, %v", product, s, err)
		}
		if _, err := ParseSecret(secret, product); err == nil || !strings.Contains(err.Error(), "sharedSecret must have 16") {
			t.Errorf("%s: the secret of the page is taken: %v", product, err)
		}
		own := bytes.ReplaceAll(secret, []byte("SHARED-SECRET"), []byte("0123456789abcdef"))
		if _, err := ParseSecret(own, product); err != nil {
			t.Errorf("%s: %v", product, err)
		}
	}
}
