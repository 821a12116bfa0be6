package iothub_test

import (
	"encoding/json"
	"testing"

	"latchkey.example/latchkey/internal/iothub"
)

func TestAQueryIsJudgedByTwoTruthValues(t *testing.T) {
	var twin map[string]any
	if err := json.Unmarshal([]byte(`{"deviceId":"d","tags":{"n":5,"s":"b","yes":true,"nil":null,"o":{"x":1},"my tag":"t","a'b":1},"where":1}`), &twin); err != nil {
		t.Fatal(err)
	}
	for condition, want := range map[string]bool{
		"tags.n = 5": true, "tags.n = 5.0": true, "tags.n = '5'": false, "tags.n != '5'": true, "tags.n <> 5": false, "tags.n < 6": true, "tags.n <= 5": true, "tags.n > 5": false, "tags.n >= -5e0": true,
		"tags.s > 'a'": true, "tags.s < 'a'": false, "tags.s > 1": false, "tags.yes = true": true, "tags.yes = TRUE": true, "tags.yes = 'true'": false, "tags.yes > false": false,
		"tags.nil = null": true, "tags.none = null": false, "tags.none != null": true, "tags.none != 1": true, "tags.none < 1": false, "NOT tags.none < 1": true, "tags.none NIN [1]": true, "tags.none IN [1]": false,
		"tags.o = 1": false, "tags.o != 1": true, "tags.o.x = 1": true, "tags.o.x.y = 1": false, "is_defined(tags.o)": true, "IS_DEFINED(tags.o.z)": false, "is_defined(tags.nil)": true,
		"tags.[[my tag]] = 't'": true, "tags.[[a'b]] = 1": true, "[[where]] = 1": true, "devices.deviceId = 'd'": true,
		"startswith(deviceId, '')": true, "startswith(tags.n, '5')": false, "contains(tags.s, 'b') AND endswith(tags.s, 'b')": true,
		"tags.n = 1 OR tags.n = 5 AND tags.s = 'x'": false, "(tags.n = 1 OR tags.n = 5) AND tags.s = 'b'": true, "NOT (NOT tags.n = 5)": true, "NOT NOT tags.n = 5": true,
		`tags.s = "b"`: true, `tags.s IN ("a", 'b')`: true, `deviceId = 'd\'`: false,
	} {
		q, err := iothub.ParseQuery("SELECT * FROM devices WHERE " + condition)
		if condition == `deviceId = 'd\'` {
			if err == nil {
				t.Errorf("%s: a text without an end was taken", condition)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", condition, err)
			continue
		}
		if got := q.Matches(twin); got != want {
			t.Errorf("%s: %t", condition, got)
		}
	}
	q, err := iothub.ParseQuery(" select\t*\nfrom DEVICES ")
	if err != nil || !q.Matches(nil) {
		t.Errorf("a query without a condition: %v", err)
	}
}
