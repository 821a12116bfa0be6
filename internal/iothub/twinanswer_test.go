package iothub_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey.example/latchkey/internal/iothub"
)

func TestTwinsAsHubsAnswerThem(t *testing.T) {
	for body, want := range map[string]iothub.TwinAnswer{
		`{"deviceId":"a","etag":"AAAAAAAAAAE="}`:                                                       {DeviceID: "a", ETag: "AAAAAAAAAAE="},
		` {"deviceId":"a","etag":"x","tags":null,"properties":null,"capabilities":null,"modelId":""} `: {DeviceID: "a", ETag: "x"},
		`{"deviceId":"a","etag":"x","status":"enabled","version":2,"tags":{"$etag":"1","place":{"$hall":1,"n":[ 1,{"$x":2.50}]}},"capabilities":{"iotEdge":true},
			"properties":{"desired":{"$metadata":{"$lastUpdated":"2023"},"$version":2,"a \"b\"":"<é>"},"reported":{"$version":1}}}`: {DeviceID: "a", ETag: "x", IoTEdge: true,
			Tags: json.RawMessage(`{"place":{"$hall":1,"n":[ 1,{"$x":2.50}]}}`), Desired: json.RawMessage(`{"a \"b\"":"<é>"}`), Reported: json.RawMessage(`{}`)},
	} {
		got, err := iothub.DecodeTwinAnswer([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
	for body, says := range map[string]string{
		``:                                      "not valid JSON",
		`[]`:                                    "must be a JSON object",
		`{"etag":"x"}`:                          "deviceId: is missing",
		`{"deviceId":"a"}`:                      "etag: is missing",
		`{"deviceId":7,"etag":"x"}`:             "deviceId: must be a string",
		`{"deviceId":"a","etag":"x","tags":[]}`: "tags: must be an object",
		`{"deviceId":"a","etag":"x","properties":{"desired":1}}`:                                         "properties.desired: must be an object",
		`{"deviceId":"a","etag":"x","properties":{"reported":{"a":1,"a":2}}}`:                            "names a member twice",
		`{"deviceId":"a","etag":"x","capabilities":{"iotEdge":1}}`:                                       "must be true or false",
		`{"deviceId":"a","etag":"x","tags":{"a":"` + strings.Repeat("x", 4*iothub.MaxProperties) + `"}}`: "tags: is larger than hubs let it be",
		`{"deviceId":"a","etag":"x","y":"` + strings.Repeat("x", iothub.MaxTwinAnswer) + `"}`:            "longer than",
	} {
		if _, err := iothub.DecodeTwinAnswer([]byte(body)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: %v, want %q", body, err, says)
		}
	}
}
