package dps_test

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
)

func TestRegistrationIDs(t *testing.T) {
	for id, want := range map[string]bool{
		"a": true, "7": true, "-": true, "a-": true, "Line4:Press.07_x": true, strings.Repeat("a", 128): true, "_a": true, ":a": true,
		"": false, strings.Repeat("a", 129): false, "a.": false, "a_": false, "a:": false, ".": false, "..": false,
		"a b": false, "a/b": false, "a%2Fb": false, "é": false, "a\x00": false, "a+b": false, "\u212A": false, "a@b": false,
	} {
		if got := dps.ValidRegistrationID(id); got != want {
			t.Errorf("%q: %v", id, got)
		}
	}
	for _, c := range [][2]string{{"Press-07", "press-07"}, {"press-07", "press-07"}, {"", ""}, {"ABCÉ", "abcÉ"}, {"\u212A", "\u212A"}} {
		if got := dps.FoldID(c[0]); got != c[1] {
			t.Errorf("%q folds to %q", c[0], got)
		}
	}
}

func TestDeviceIDs(t *testing.T) {
	for id, want := range map[string]bool{
		"a": true, "-.%_*?!(),:=@$'": true, strings.Repeat("Z", 128): true, "a.": true, "...": true,
		"": false, strings.Repeat("Z", 129): false, ".": false, "..": false,
		"a/b": false, "a+b": false, "a#": false, "a b": false, "a&b": false, "a;b": false, "ä": false, "a\n": false, `a"`: false,
	} {
		if got := dps.ValidDeviceID(id); got != want {
			t.Errorf("%q: %v", id, got)
		}
	}
}

func TestIDScopes(t *testing.T) {
	for s, want := range map[string]bool{
		"0ne000AC30A": true, "factory-4": true, "a": true, "a.b_c": true, strings.Repeat("a", 64): true, "enrollment": true,
		"": false, strings.Repeat("a", 65): false, "-a": false, "a-": false, ".": false, "..": false, "a/b": false, "a%20": false,
		"$iothub": false, "a:b": false, "é": false,
		"enrollments": false, "Enrollments": false, "enrollmentGroups": false, "enrollmentgroups": false, "registrations": false,
		"devices": false, "TWINS": false, "latchkey": false, "statistics": false, "Messages": false, "jobs": false, "configurations": false, "digitaltwins": false,
	} {
		if got := dps.ValidIDScope(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestAPIVersions(t *testing.T) {
	for _, v := range []string{"2017-08-31-preview", "2017-11-15", "2018-04-01", "2018-09-01-preview", "2019-03-31", "2021-06-01",
		"2021-10-01", "2025-07-01-preview", "2026-04-01", "2026-07-01-preview", "2026-11-01", "2026-11-02-preview", "2026-11-15-preview"} {
		if !dps.KnownAPIVersion(v) {
			t.Errorf("%s is not known", v)
		}
	}
	for _, v := range []string{"", "2019-03-31 ", "2019-03-31-preview", "2016-01-01", "latest", "2021-04-12"} {
		if dps.KnownAPIVersion(v) {
			t.Errorf("%q is known", v)
		}
	}
}

func TestETagsHaveTheShapeOnTheWire(t *testing.T) {
	inner := regexp.MustCompile(`^"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"$`)
	seen := make(map[string]int64)
	for _, revision := range []int64{0, 1, 2, 1<<48 - 1, 1 << 48, 1<<63 - 1, -1} {
		etag := dps.ETag(revision)
		text, err := base64.StdEncoding.DecodeString(etag)
		if err != nil || !inner.Match(text) {
			t.Errorf("%d: %s, %s, %v", revision, etag, text, err)
		}
		if other, ok := seen[etag]; ok {
			t.Errorf("%d and %d have one etag", revision, other)
		}
		seen[etag] = revision
	}
}

func TestIfMatch(t *testing.T) {
	etag := dps.ETag(7)
	for header, want := range map[string]bool{
		etag: true, `"` + etag + `"`: true, ` "` + etag + `" `: true, `W/"` + etag + `"`: true, "W/" + etag: true,
		"*": true, `"*"`: true, " * ": true,
		"": false, `""`: false, `"`: false, dps.ETag(8): false, `""` + etag + `""`: false, `"` + etag: false, etag + `"`: false,
		strings.ToLower(etag): false, etag + ", " + etag: false, "**": false,
	} {
		if got := dps.MatchETag(header, etag); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
	if dps.MatchETag("", "") || dps.MatchETag(`""`, "") {
		t.Error("no etag matches no etag")
	}
}

func TestConnectionStrings(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(testKey)
	for name, text := range map[string]string{
		"as the portal gives it": "HostName=dps.example.net;SharedAccessKeyName=owner;SharedAccessKey=" + key,
		"other order and case":   " sharedaccesskey=" + key + ";hostname=dps.example.net;SHAREDACCESSKEYNAME=owner;\n",
	} {
		c, err := dps.ParseConnectionString(text)
		if err != nil {
			t.Fatal(name, err)
		}
		if c.HostName != "dps.example.net" || c.SharedAccessKeyName != "owner" || string(c.SharedAccessKey) != string(testKey) {
			t.Errorf("%s: %s", name, c.Reveal())
		}
		if want, _ := dps.NewToken(dps.KeySigner(testKey), "h", moment, ""); want == "" {
			t.Error("no SAS token")
		} else if got, err := dps.NewToken(c.Signer(), "h", moment, ""); got != want || err != nil {
			t.Errorf("%s: signs differently: %v", name, err)
		}
		if c.Reveal() != "HostName=dps.example.net;SharedAccessKeyName=owner;SharedAccessKey="+key {
			t.Errorf("%s: %s", name, c.Reveal())
		}
		if c.String() != "HostName=dps.example.net;SharedAccessKeyName=owner;SharedAccessKey=[redacted]" {
			t.Errorf("%s: %s", name, c)
		}
	}
	if c, err := dps.ParseConnectionString("HostName=localhost:8443;SharedAccessKeyName=a;SharedAccessKey=AA=="); err != nil || c.HostName != "localhost:8443" {
		t.Error("a port is refused:", err)
	}
}

func TestConnectionStringsThatAreRefused(t *testing.T) {
	const secret = "c2VjcmV0"
	good := "HostName=h;SharedAccessKeyName=a;SharedAccessKey=" + secret
	for text, want := range map[string]string{
		"":                                                      "HostName is missing",
		"HostName=h;SharedAccessKey=" + secret:                  "SharedAccessKeyName is missing",
		"HostName=h;SharedAccessKeyName=a":                      "SharedAccessKey is missing",
		"SharedAccessKeyName=a;SharedAccessKey=":                "SharedAccessKey is not base64",
		good + ";HostName=h":                                    "HostName is given twice",
		good + ";SharedAccessKeyName=a":                         "SharedAccessKeyName is given twice",
		good + ";SharedAccessKey=" + secret:                     "SharedAccessKey is given twice",
		good + ";DeviceId=" + secret:                            "are known",
		"HostName=h;SharedAccessKeyName=a;SharedAccessKey=AB==": "SharedAccessKey is not base64",
		"HostName=h;SharedAccessKeyName=a;SharedAccessKey=" + base64.StdEncoding.EncodeToString(make([]byte, 65)): "SharedAccessKey is not base64",
		"HostName=h;SharedAccessKeyName=" + strings.Repeat("a", 129):                                              "SharedAccessKeyName may hold",
		"HostName=.h":                           "HostName is not a host name",
		good + "!":                              "SharedAccessKey is not base64",
		"HostName=" + secret + "/x":             "HostName is not a host name",
		"HostName=h;SharedAccessKeyName=a b":    "SharedAccessKeyName may hold",
		"HostName=" + strings.Repeat("h", 5000): "too long",
	} {
		_, err := dps.ParseConnectionString(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the value: %v", err)
		}
	}
}

func TestCatalogueIsClosedAndFitForThePublic(t *testing.T) {
	codes := dps.Codes()
	if len(codes) != 27 {
		t.Errorf("%d codes", len(codes))
	}
	statuses := map[int]bool{400: true, 401: true, 403: true, 404: true, 405: true, 408: true, 409: true, 412: true, 413: true, 415: true, 429: true, 500: true, 503: true}
	for i, c := range codes {
		if i > 0 && codes[i-1] >= c {
			t.Error("not in ascending order")
		}
		if !statuses[c.Status()] || c.Status() != int(c)/1000 {
			t.Errorf("%d has status %d", c, c.Status())
		}
		m := c.Message()
		if m == "" || !strings.HasSuffix(m, ".") || strings.ContainsAny(m, "%{}\n\"") || len(m) > 120 {
			t.Errorf("%d says %q", c, m)
		}
		if failed := c == 400207 || c == 400208 || c == 400209; failed != c.FailedRegistration() {
			t.Errorf("%d: failed registration %v", c, c.FailedRegistration())
		}
	}
	if dps.Code(999999).Message() != dps.CodeInternal.Message() {
		t.Error("a code outside the catalogue says something of its own")
	}
}
