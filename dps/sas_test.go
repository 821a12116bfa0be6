package dps_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
)

var testKey = []byte("0123456789abcdef0123456789abcdef")

// sign is the signature as the protocol defines it, made without the package:
// over sr and se exactly as they stand in the SAS token.
func sign(key []byte, rawResource, rawExpiry string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(rawResource + "\n" + rawExpiry))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// awkward finds an expiry whose signature has a plus sign, a slash and, as
// always, an equals sign, so that all three spellings of each are exercised.
func awkward(t testing.TB, rawResource string) (expiry, signature string) {
	t.Helper()
	for se := 1893456000; se < 1893456000+1000; se++ {
		expiry := fmt.Sprint(se)
		if sig := sign(testKey, rawResource, expiry); strings.Contains(sig, "+") && strings.Contains(sig, "/") {
			return expiry, sig
		}
	}
	t.Fatal("no signature with + and / in a thousand expiries")
	return "", ""
}

var (
	upperEscapes = strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D")
	lowerEscapes = strings.NewReplacer("+", "%2b", "/", "%2f", "=", "%3d")
	noEscapes    = strings.NewReplacer()
)

// spellings are the ways in which clients write one and the same SAS token:
// order of fields, escapes of sr, escapes of sig, skn.
var spellings = []struct {
	client, resource, format string
	escape                   *strings.Replacer
	means, keyName           string
}{
	{"node device", "0ne000AC30A%2Fregistrations%2FPress-07", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s&skn=registration",
		upperEscapes, "0ne000AC30A/registrations/Press-07", "registration"},
	{"c device", "0ne000AC30A%2fregistrations%2fPress-07", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s&skn=registration",
		lowerEscapes, "0ne000AC30A/registrations/Press-07", "registration"},
	{"java device", "0ne000AC30A/registrations/Press-07", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s&skn=",
		upperEscapes, "0ne000AC30A/registrations/Press-07", ""},
	{"rust device", "0ne000ac30a%2Fregistrations%2Fpress-07", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s&skn=registration",
		upperEscapes, "0ne000ac30a/registrations/press-07", "registration"},
	{"csharp device, colon in the id", "0ne000AC30A%2Fregistrations%2Fline%3A7", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s&skn=registration",
		upperEscapes, "0ne000AC30A/registrations/line:7", "registration"},
	{"node service", "dps.example.net", "SharedAccessSignature sr=%[1]s&sig=%[2]s&skn=provisioningserviceowner&se=%[3]s",
		upperEscapes, "dps.example.net", "provisioningserviceowner"},
	{"c service", "dps.example.net", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s&skn=provisioningserviceowner",
		lowerEscapes, "dps.example.net", "provisioningserviceowner"},
	{"policy name with an at sign", "dps.example.net", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s&skn=ops%%40north",
		upperEscapes, "dps.example.net", "ops@north"},
	{"node at the hub", "hub.example.net%2Fdevices%2Fpress-07", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s",
		upperEscapes, "hub.example.net/devices/press-07", ""},
	{"c at the hub", "hub.example.net/devices/press-07", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s",
		lowerEscapes, "hub.example.net/devices/press-07", ""},
	{"fields reversed", "s%2Fregistrations%2Fd", "SharedAccessSignature skn=x&se=%[3]s&sig=%[2]s&sr=%[1]s",
		upperEscapes, "s/registrations/d", "x"},
	{"nothing escaped in the signature", "s%2Fregistrations%2Fd", "SharedAccessSignature sr=%[1]s&sig=%[2]s&se=%[3]s",
		noEscapes, "s/registrations/d", ""},
	{"scheme in lower case, two blanks", "s%2Fregistrations%2Fd", "sharedaccesssignature  sr=%[1]s&sig=%[2]s&se=%[3]s",
		upperEscapes, "s/registrations/d", ""},
	{"scheme in upper case", "s%2Fregistrations%2Fd", "SHAREDACCESSSIGNATURE sr=%[1]s&sig=%[2]s&se=%[3]s ",
		upperEscapes, "s/registrations/d", ""},
	{"fields nobody knows", "s%2Fregistrations%2Fd", "SharedAccessSignature v=2&sr=%[1]s&v=3&sig=%[2]s&se=%[3]s&SR=other",
		upperEscapes, "s/registrations/d", ""},
}

func TestEveryClientsSpellingIsReadAndVerified(t *testing.T) {
	for _, c := range spellings {
		t.Run(c.client, func(t *testing.T) {
			se, sig := awkward(t, c.resource)
			token, err := dps.ParseToken(fmt.Sprintf(c.format, c.resource, c.escape.Replace(sig), se))
			if err != nil {
				t.Fatal(err)
			}
			if !token.Verify(testKey) {
				t.Error("the right key does not verify it")
			}
			if token.Verify(testKey[1:]) || token.Verify(nil) {
				t.Error("another key verifies it")
			}
			if token.Resource != c.means || token.KeyName != c.keyName {
				t.Errorf("resource %q, key name %q", token.Resource, token.KeyName)
			}
			if got := fmt.Sprint(token.Expiry.Unix()); got != se {
				t.Errorf("expiry %s, want %s", got, se)
			}
		})
	}
}

func TestReferenceVectorsVerify(t *testing.T) {
	for resource, sig := range map[string]string{
		"dps.example.net":               "OZ4LciwPfg9r6+onq+YppDxtSLi6tUGGSnFYEiSjt8Q=",
		"dps.example.net%2Fenrollments": "Qe68V2nuHVmxG6wEGNJ9iCcwMC1JUtjwMAUZe/cok1g=",
		"dps.example.net%2fenrollments": "S3VqYaV4Sbe71I3Cs3jiLebmHWXxwvkrdPVk2kmjOXA=",
	} {
		token, err := dps.ParseToken("SharedAccessSignature sr=" + resource + "&sig=" + upperEscapes.Replace(sig) + "&se=1893456000&skn=owner")
		if err != nil {
			t.Fatal(resource, err)
		}
		if !token.Verify(testKey) {
			t.Errorf("%s does not verify", resource)
		}
	}
}

// TestSignatureCoversTheResourceAsSpelled guards against decoding and encoding
// sr before the check: the two spellings of one resource are two texts.
func TestSignatureCoversTheResourceAsSpelled(t *testing.T) {
	sig := upperEscapes.Replace(sign(testKey, "s%2Fregistrations%2Fd", "1893456000"))
	token, err := dps.ParseToken("SharedAccessSignature sr=s%2fregistrations%2fd&sig=" + sig + "&se=1893456000")
	if err != nil {
		t.Fatal(err)
	}
	if token.Verify(testKey) {
		t.Error("a signature over another spelling verifies")
	}
}

// TestNoChangeOfASingleByteSurvives replaces every byte of a SAS token by every
// other one. What still verifies must be the same token under another spelling.
func TestNoChangeOfASingleByteSurvives(t *testing.T) {
	const resource = "s%2Fregistrations%2Fd"
	se, sig := awkward(t, resource)
	text := "SharedAccessSignature sr=" + resource + "&sig=" + upperEscapes.Replace(sig) + "&se=" + se
	original, err := dps.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	survivors := 0
	for i := range len(text) {
		for c := range 256 {
			changed := text[:i] + string([]byte{byte(c)}) + text[i+1:]
			token, err := dps.ParseToken(changed)
			if changed == text || err != nil || !token.Verify(testKey) {
				continue
			}
			survivors++
			if token.Digest() != original.Digest() {
				t.Errorf("byte %d made %q: verifies, but is another token", i, byte(c))
			}
		}
	}
	if want := len("SharedAccessSignature") + 3; survivors != want { // letter case of the scheme and of B, F, D in escapes
		t.Errorf("%d changes survive, want %d", survivors, want)
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	sig := upperEscapes.Replace(sign(testKey, "s", "1"))
	good := "SharedAccessSignature sr=s&sig=" + sig + "&se=1"
	if _, err := dps.ParseToken(good); err != nil {
		t.Fatal("the pattern of this test is refused itself:", err)
	}
	raw := sign(testKey, "s", "1")
	for name, text := range map[string]string{
		"empty":                         "",
		"scheme only":                   "SharedAccessSignature",
		"other scheme":                  "Bearer sr=s&sig=" + sig + "&se=1",
		"scheme glued on":               "SharedAccessSignaturesr=s&sig=" + sig + "&se=1",
		"no sr":                         "SharedAccessSignature sig=" + sig + "&se=1",
		"empty sr":                      "SharedAccessSignature sr=&sig=" + sig + "&se=1",
		"no sig":                        "SharedAccessSignature sr=s&se=1",
		"empty sig":                     "SharedAccessSignature sr=s&sig=&se=1",
		"no se":                         "SharedAccessSignature sr=s&sig=" + sig,
		"sr twice":                      good + "&sr=s",
		"sig twice":                     good + "&sig=" + sig,
		"se twice":                      good + "&se=1",
		"skn twice":                     good + "&skn=a&skn=a",
		"field without equals sign":     good + "&skn",
		"ends with an ampersand":        good + "&",
		"expiry with sign":              "SharedAccessSignature sr=s&sig=" + sig + "&se=+1",
		"expiry negative":               "SharedAccessSignature sr=s&sig=" + sig + "&se=-1",
		"expiry with fraction":          "SharedAccessSignature sr=s&sig=" + sig + "&se=1.5",
		"expiry hexadecimal":            "SharedAccessSignature sr=s&sig=" + sig + "&se=0x10",
		"expiry escaped":                "SharedAccessSignature sr=s&sig=" + sig + "&se=%31",
		"expiry empty":                  "SharedAccessSignature sr=s&sig=" + sig + "&se=",
		"expiry after the year 9999":    "SharedAccessSignature sr=s&sig=" + sig + "&se=253402300800",
		"expiry of thirteen digits":     "SharedAccessSignature sr=s&sig=" + sig + "&se=1893456000000",
		"expiry that overflows":         "SharedAccessSignature sr=s&sig=" + sig + "&se=99999999999999999999",
		"escape cut short":              "SharedAccessSignature sr=s%2&sig=" + sig + "&se=1",
		"escape that is none":           "SharedAccessSignature sr=s%zz&sig=" + sig + "&se=1",
		"escaped line feed in sr":       "SharedAccessSignature sr=s%0A2&sig=" + sig + "&se=1",
		"escaped zero byte in skn":      good + "&skn=a%00",
		"escaped byte outside ASCII":    "SharedAccessSignature sr=s%C3%A9&sig=" + sig + "&se=1",
		"line feed":                     good + "\n",
		"blank inside":                  "SharedAccessSignature sr=s &sig=" + sig + "&se=1",
		"letter outside ASCII":          "SharedAccessSignature sr=\u212A&sig=" + sig + "&se=1",
		"signature too short":           "SharedAccessSignature sr=s&sig=" + base64.StdEncoding.EncodeToString(make([]byte, 31)) + "&se=1",
		"signature too long":            "SharedAccessSignature sr=s&sig=" + base64.StdEncoding.EncodeToString(make([]byte, 33)) + "&se=1",
		"signature of a longer hash":    "SharedAccessSignature sr=s&sig=" + base64.StdEncoding.EncodeToString(make([]byte, 64)) + "&se=1",
		"expiry behind many zeros":      "SharedAccessSignature sr=s&sig=" + sig + "&se=0000000000001",
		"blank in a field nobody knows": good + "&v=a b",
		"signature without padding":     "SharedAccessSignature sr=s&sig=" + strings.TrimRight(raw, "=") + "&se=1",
		"signature in the URL's way":    "SharedAccessSignature sr=s&sig=" + strings.Repeat("-_", 21) + "A=&se=1",
		"signature with escaped break":  "SharedAccessSignature sr=s&sig=" + raw[:20] + "%0D%0A" + raw[20:] + "&se=1",
		"longer than 4 KB":              "SharedAccessSignature sr=" + strings.Repeat("s", 4<<10) + "&sig=" + sig + "&se=1",
	} {
		t.Run(name, func(t *testing.T) {
			token, err := dps.ParseToken(text)
			if !errors.Is(err, dps.ErrToken) {
				t.Fatalf("got %v, error %v", token, err)
			}
			if token.Verify(testKey) || token.Resource != "" {
				t.Error("a refused SAS token is not the zero one")
			}
		})
	}
}

func TestPlusSignIsNotABlank(t *testing.T) {
	token, err := dps.ParseToken("SharedAccessSignature sr=a+b%2Bc&sig=" + upperEscapes.Replace(sign(testKey, "a+b%2Bc", "1")) + "&se=1")
	if err != nil {
		t.Fatal(err)
	}
	if token.Resource != "a+b+c" {
		t.Errorf("resource %q", token.Resource)
	}
}

func TestEveryEscapeOfAPrintableLetterIsResolved(t *testing.T) {
	for c := byte('!'); c <= '~'; c++ {
		for _, form := range []string{"%%%02x", "%%%02X"} {
			if got := tokenFor(t, fmt.Sprintf(form, c)).Resource; got != string(rune(c)) {
				t.Errorf(form+" is read as %q", c, got)
			}
		}
	}
}

// TestAnEmptyKeyVerifiesNothing: a store that answers "no key" must not become
// a key that everybody has.
func TestAnEmptyKeyVerifiesNothing(t *testing.T) {
	token, err := dps.ParseToken("SharedAccessSignature sr=s&sig=" + upperEscapes.Replace(sign(nil, "s", "1")) + "&se=1")
	if err != nil {
		t.Fatal(err)
	}
	if token.Verify(nil) || token.Verify([]byte{}) {
		t.Error("signed with no key, and verifies")
	}
	if (dps.Token{}).Verify(testKey) {
		t.Error("the zero SAS token verifies")
	}
}

func tokenFor(t testing.TB, resource string) dps.Token {
	t.Helper()
	token, err := dps.ParseToken("SharedAccessSignature sr=" + resource + "&sig=" + upperEscapes.Replace(sign(testKey, resource, "1893456000")) + "&se=1893456000")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestDeviceResourceIsOneRegistration(t *testing.T) {
	const path = "0ne000AC30A/registrations/Press-07"
	for resource, want := range map[string]bool{
		"0ne000AC30A%2Fregistrations%2FPress-07":   true,
		"0ne000AC30A%2fregistrations%2fPress-07":   true,
		"0ne000AC30A/registrations/Press-07":       true,
		"0ne000ac30a%2Fregistrations%2Fpress-07":   true,
		"%30ne000AC30A/registrations/Press-07":     true,
		"/0ne000AC30A/registrations/Press-07":      false, // no client signs it
		"0ne000AC30A/registrations/Press-07/":      false,
		"0ne000AC30A/registrations/Press-0":        false,
		"0ne000AC30A/registrations/Press-077":      false,
		"0ne000AC30A/registrations":                false,
		"0ne000AC30A":                              false,
		"0ne000AC30B/registrations/Press-07":       false,
		"0ne000AC30A%252Fregistrations%252Fpress7": false,
	} {
		if got := tokenFor(t, resource).ResourceIs(path); got != want {
			t.Errorf("%s: %v", resource, got)
		}
	}
	if tokenFor(t, "0ne/registrations/k").ResourceIs("0ne/registrations/\u212A") {
		t.Error("the Kelvin sign is not the letter k")
	}
}

func TestServiceResourceCoversBySegment(t *testing.T) {
	const host = "dps.example.net"
	for _, c := range []struct {
		resource, path string
		want           bool
	}{
		{"dps.example.net", "/enrollments/a", true},
		{"dps.example.net", "/", true},
		{"DPS.Example.NET", "/enrollments/a", true},
		{"dps.example.net%2F", "/enrollments/a", true},
		{"dps.example.net%2Fenrollments", "/enrollments", true},
		{"dps.example.net%2fenrollments", "/enrollments/a", true},
		{"dps.example.net%2Fenrollments%2F", "/enrollments/a", true},
		{"dps.example.net/enrollmentgroups", "/enrollmentGroups/a", true},
		{"dps.example.net/enrollments/a", "/enrollments/a/attestationmechanism", true},
		{"dps.example.net/enrollments/a", "/enrollments/ab", false},
		{"dps.example.net/enrollments/a", "/enrollments", false},
		{"dps.example.net/enrollments", "/enrollmentsgroup", false},
		{"dps.example.net/enrollment", "/enrollments", false},
		{"dps.example.net/enrollments", "/registrations/a", false},
		{"dps.example.net//", "/enrollments", false},
		{"dps.example.net//enrollments", "/enrollments", false},
		{"dps.example.ne", "/enrollments", false},
		{"dps.example.net.evil.net", "/enrollments", false},
		{"other.example.net", "/enrollments", false},
		{"https://dps.example.net", "/enrollments", false},
	} {
		if got := tokenFor(t, c.resource).ResourceCovers(host, c.path); got != c.want {
			t.Errorf("%s over %s: %v", c.resource, c.path, got)
		}
	}
	if tokenFor(t, "/enrollments").ResourceCovers("", "/enrollments") {
		t.Error("an empty host is covered")
	}
}

// TestDigestCutsWhereTheFieldsEnd: two SAS tokens whose signed text would be the
// same bytes without the lengths are two tokens.
func TestDigestCutsWhereTheFieldsEnd(t *testing.T) {
	sig := upperEscapes.Replace(sign(testKey, "x", "1"))
	seen := make(map[[32]byte]string)
	for _, text := range []string{"sr=s1&se=23", "sr=s12&se=3", "sr=s1&se=023", "sr=S1&se=23", "sr=%731&se=23"} {
		token, err := dps.ParseToken("SharedAccessSignature " + text + "&sig=" + sig)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[token.Digest()]; ok {
			t.Errorf("%s and %s are one", text, other)
		}
		seen[token.Digest()] = text
	}
	a, _ := dps.ParseToken("SharedAccessSignature sr=s&se=1&skn=a&sig=" + sig)
	b, _ := dps.ParseToken("sharedaccesssignature sig=" + sig + "&se=1&sr=s&skn=b")
	if a.Digest() != b.Digest() {
		t.Error("what is not signed changes the digest")
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	se, sig := awkward(t, "s")
	token, err := dps.ParseToken("SharedAccessSignature sr=s&sig=" + upperEscapes.Replace(sig) + "&se=" + se + "&skn=owner")
	if err != nil {
		t.Fatal(err)
	}
	connection, err := dps.ParseConnectionString("HostName=h;SharedAccessKeyName=owner;SharedAccessKey=" + base64.StdEncoding.EncodeToString(testKey))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	for _, secret := range []any{token, &token, dps.KeySigner(testKey), connection, &connection,
		struct{ K dps.KeySigner }{testKey}, []dps.Token{token}, map[string]dps.ConnectionString{"c": connection}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o"} {
			fmt.Fprintf(&log, verb+"\n", secret)
		}
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "secret", secret)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "secret", secret)
		if text, err := json.Marshal(secret); err != nil {
			t.Error(err)
		} else {
			log.Write(text)
		}
	}
	rawSig, _ := base64.StdEncoding.DecodeString(sig)
	for _, canary := range [][]byte{testKey, rawSig} {
		for _, form := range []string{"%s", "%x", "%X", "%v", "%d", "% x", "%o"} {
			needle := strings.Trim(fmt.Sprintf(form, canary), "[]")
			if strings.Contains(log.String(), needle) {
				t.Errorf("found in the form %s", form)
			}
		}
		encoded := base64.StdEncoding.EncodeToString(canary)
		if strings.Contains(log.String(), encoded) || strings.Contains(log.String(), upperEscapes.Replace(encoded)) {
			t.Error("found as base64")
		}
	}
	if !strings.Contains(log.String(), "[redacted]") {
		t.Error("nothing was printed at all")
	}
}

func TestNewTokenIsSpelledAsNodeDoes(t *testing.T) {
	got, err := dps.NewToken(dps.KeySigner(testKey), "dps.example.net/enrollments", time.Unix(1893456000, 5e8), "owner")
	if err != nil {
		t.Fatal(err)
	}
	want := "SharedAccessSignature sr=dps.example.net%2Fenrollments&sig=Qe68V2nuHVmxG6wEGNJ9iCcwMC1JUtjwMAUZe%2Fcok1g%3D&se=1893456000&skn=owner"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got, err = dps.NewToken(dps.KeySigner(testKey), "h/devices/a:@=+'", time.Unix(1, 0), "")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got, "SharedAccessSignature sr=h%2Fdevices%2Fa%3A%40%3D%2B'&sig=") || strings.Contains(got, "skn") {
		t.Errorf("got %s", got)
	}
	token, err := dps.ParseToken(got)
	if err != nil || !token.Verify(testKey) || !token.ResourceIs("h/devices/a:@=+'") {
		t.Errorf("own SAS token is not understood: %v, %v", token, err)
	}
}

type brokenSigner struct {
	sum []byte
	err error
}

func (b brokenSigner) Sign([]byte) ([]byte, error) { return b.sum, b.err }

func TestNewTokenRefuses(t *testing.T) {
	unplugged := errors.New("the TPM does not answer")
	if _, err := dps.NewToken(brokenSigner{err: unplugged}, "s", time.Unix(1, 0), ""); !errors.Is(err, unplugged) {
		t.Errorf("the signer's error is lost: %v", err)
	}
	for name, c := range map[string]struct {
		s        dps.Signer
		resource string
		expiry   time.Time
		keyName  string
	}{
		"short signature":       {brokenSigner{sum: make([]byte, 20)}, "s", time.Unix(1, 0), ""},
		"empty key":             {dps.KeySigner(nil), "s", time.Unix(1, 0), ""},
		"empty resource":        {dps.KeySigner(testKey), "", time.Unix(1, 0), ""},
		"line feed in resource": {dps.KeySigner(testKey), "s\n1", time.Unix(1, 0), ""},
		"key name not ASCII":    {dps.KeySigner(testKey), "s", time.Unix(1, 0), "é"},
		"expiry before 1970":    {dps.KeySigner(testKey), "s", time.Unix(-1, 0), ""},
		"expiry after 9999":     {dps.KeySigner(testKey), "s", time.Unix(253402300800, 0), ""},
		"too long to be read":   {dps.KeySigner(testKey), strings.Repeat("/", 2000), time.Unix(1, 0), ""},
	} {
		if text, err := dps.NewToken(c.s, c.resource, c.expiry, c.keyName); err == nil || text != "" {
			t.Errorf("%s: got %q, error %v", name, text, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, c := range spellings {
		f.Add(fmt.Sprintf(c.format, c.resource, c.escape.Replace(sign(testKey, c.resource, "1893456000")), "1893456000"))
	}
	f.Add("SharedAccessSignature sr=%&sig=&se=")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := dps.ParseToken(text)
		if err != nil {
			if token.Verify(testKey) {
				t.Fatal("refused, yet verifies")
			}
			return
		}
		if len(text) > 4<<10 || token.Expiry.Unix() < 0 {
			t.Fatal("out of bounds, yet accepted")
		}
		// Signed anew for the same resource, it must verify and mean the same.
		again, err := dps.NewToken(dps.KeySigner(testKey), token.Resource, token.Expiry, token.KeyName)
		if err != nil {
			return // escapes can make it longer than a SAS token may be
		}
		second, err := dps.ParseToken(again)
		if err != nil || !second.Verify(testKey) || !second.ResourceIs(token.Resource) || second.KeyName != token.KeyName {
			t.Fatalf("%q became %q: %v", text, again, err)
		}
		if token.Verify(testKey) && !strings.Contains(text, "sr=") {
			t.Fatal("verifies without a resource")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	text := fmt.Sprintf(spellings[0].format, spellings[0].resource, upperEscapes.Replace(sign(testKey, spellings[0].resource, "1893456000")), "1893456000")
	b.ReportAllocs()
	for b.Loop() {
		token, err := dps.ParseToken(text)
		if err != nil || !token.Verify(testKey) {
			b.Fatal(err)
		}
	}
}
