package dps_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey.example/latchkey/dps"
)

// certificate makes one for any key.
func certificate(t testing.TB, public, private any, change func(*x509.Certificate)) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(0xABC), Subject: pkix.Name{CommonName: "press-7", Organization: []string{"Plant"}},
		NotBefore: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), NotAfter: time.Date(2049, 1, 2, 3, 4, 5, 0, time.UTC)}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ecdsaCertificate(t testing.TB, change func(*x509.Certificate)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certificate(t, key.Public(), key, change)
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func x509Body(member string, certificate any) []byte {
	body, err := json.Marshal(map[string]any{"attestation": map[string]any{"type": "x509", "x509": map[string]any{member: map[string]any{"primary": certificate}}}})
	if err != nil {
		panic(err)
	}
	return body
}

func TestACertificateIsReadInEveryFormThatClientsSend(t *testing.T) {
	der := ecdsaCertificate(t, nil)
	encode := base64.StdEncoding.EncodeToString
	sum := sha256.Sum256(der)
	for name, text := range map[string]string{
		"base64 of DER":             encode(der),
		"base64 of DER in lines":    strings.Join([]string{encode(der)[:64], encode(der)[64:]}, "\r\n"),
		"PEM in base64, as C sends": encode(pemOf(der)),
		"PEM, as Node's sample":     string(pemOf(der)),
		"PEM with a comment":        "subject=press-7\n" + string(pemOf(der)),
	} {
		e, err := dps.DecodeEnrollment("press-7", x509Body("clientCertificates", map[string]any{"certificate": text, "info": map[string]any{"sha256Thumbprint": "read-only"}}))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := e.Attestation.X509.Client.Primary
		if !bytes.Equal(got.DER, der) || !strings.EqualFold(got.Info.SHA256Thumbprint, hex.EncodeToString(sum[:])) {
			t.Errorf("%s: %+v", name, got.Info)
		}
	}
}

func TestTheInfoOfACertificateIsThatOfTheImitatedService(t *testing.T) {
	c, err := dps.ParseCertificate(ecdsaCertificate(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	i := c.Info
	if i.SubjectName != "CN=press-7,O=Plant" || i.IssuerName != i.SubjectName || i.SerialNumber != "0ABC" || i.Version != 3 ||
		len(i.SHA1Thumbprint) != 40 || len(i.SHA256Thumbprint) != 64 || strings.ToUpper(i.SHA256Thumbprint) != i.SHA256Thumbprint {
		t.Errorf("%+v", i)
	}
	if text := string(i.Encode()); !strings.Contains(text, `"notBeforeUtc":"2020-01-02T03:04:05Z"`) || !strings.Contains(text, `"version":3`) {
		t.Error(text)
	}
}

func TestKeysOfCertificates(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		der  []byte
		says string
	}{
		"RSA 1024": {certificate(t, weak.Public(), weak, nil), "RSA key of 1024 bits"},
		"RSA 2048": {certificate(t, good.Public(), good, nil), ""},
		"Ed25519":  {certificate(t, public, private, nil), ""},
		"too long": {ecdsaCertificate(t, func(c *x509.Certificate) { c.Subject.Organization = []string{strings.Repeat("x", 17<<10)} }), "longer than"},
		"cut":      {ecdsaCertificate(t, nil)[:100], "not an X.509 certificate"},
	} {
		_, err := dps.ParseCertificate(c.der)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestMechanismsThatAreRefused(t *testing.T) {
	der := ecdsaCertificate(t, nil)
	encoded := base64.StdEncoding.EncodeToString(der)
	x509Of := func(inside string) string { return `{"attestation":{"type":"x509","x509":` + inside + `}}` }
	pair := `{"primary":{"certificate":"` + encoded + `"}}`
	symmetric := func(inside string) string {
		return `{"attestation":{"type":"symmetricKey","symmetricKey":` + inside + `}}`
	}
	const fine = ""
	for name, c := range map[string]struct{ body, individual, group string }{
		"client certificates":        {x509Of(`{"clientCertificates":` + pair + `}`), fine, "signingCertificates or caReferences"},
		"signing certificates":       {x509Of(`{"signingCertificates":` + pair + `}`), "must hold clientCertificates", fine},
		"CA references":              {x509Of(`{"caReferences":{"primary":"a","secondary":"b"}}`), "must hold clientCertificates", fine},
		"both ways of a group":       {x509Of(`{"signingCertificates":` + pair + `,"caReferences":{"primary":"a"}}`), "must hold clientCertificates", "either"},
		"client and signing":         {x509Of(`{"clientCertificates":` + pair + `,"signingCertificates":` + pair + `}`), "nothing else", "either"},
		"x509 null":                  {x509Of(`null`), "the member that its type names", "the member that its type names"},
		"x509 empty":                 {x509Of(`{}`), "clientCertificates", "signingCertificates"},
		"pair of nulls":              {x509Of(`{"clientCertificates":{"primary":null,"secondary":null}}`), "clientCertificates", "signingCertificates"},
		"secondary alone":            {x509Of(`{"clientCertificates":{"secondary":{"certificate":"` + encoded + `"}}}`), "primary: is missing", "primary: is missing"},
		"certificate not text":       {x509Of(`{"clientCertificates":{"primary":{"certificate":1}}}`), "must be a string", "must be a string"},
		"two in one PEM":             {string(x509Body("clientCertificates", map[string]string{"certificate": string(pemOf(der)) + string(pemOf(der))})), "more than one", "more than one"},
		"a key in PEM":               {x509Of(`{"clientCertificates":{"primary":{"certificate":"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"}}}`), "not an X.509", "not an X.509"},
		"info without thumbprint":    {x509Of(`{"clientCertificates":{"primary":{"info":{"subjectName":"CN=a"}}}}`), "sha256Thumbprint", "sha256Thumbprint"},
		"thumbprint of 63 digits":    {x509Of(`{"clientCertificates":{"primary":{"info":{"sha256Thumbprint":"` + strings.Repeat("a", 63) + `"}}}}`), "64 hex digits", "64 hex digits"},
		"name that is none":          {x509Of(`{"caReferences":{"primary":"a/b"}}`), "ASCII", "ASCII"},
		"secondary name alone":       {x509Of(`{"caReferences":{"secondary":"a"}}`), "primary: is missing", "primary: is missing"},
		"misspelt":                   {x509Of(`{"ClientCertificates":` + pair + `}`), "clientCertificates", "clientCertificates"},
		"symmetric keys empty":       {symmetric(`{"primaryKey":"","secondaryKey":null}`), fine, fine},
		"symmetric keys absent":      {`{"attestation":{"type":"symmetricKey"}}`, fine, fine},
		"symmetric keys null":        {symmetric(`null`), fine, fine},
		"15 bytes":                   {symmetric(`{"primaryKey":"` + base64.StdEncoding.EncodeToString(make([]byte, 15)) + `"}`), "16 to 64", "16 to 64"},
		"16 and 64 bytes":            {symmetric(`{"primaryKey":"` + base64.StdEncoding.EncodeToString(make([]byte, 16)) + `","secondaryKey":"` + base64.StdEncoding.EncodeToString(make([]byte, 64)) + `"}`), fine, fine},
		"65 bytes":                   {symmetric(`{"secondaryKey":"` + base64.StdEncoding.EncodeToString(make([]byte, 65)) + `"}`), "16 to 64", "16 to 64"},
		"symmetric key not base64":   {symmetric(`{"primaryKey":"` + strings.Repeat("?", 24) + `"}`), "16 to 64", "16 to 64"},
		"symmetric key with a break": {symmetric(`{"primaryKey":"AAAAAAAAAAAA\nAAAAAAAAAA=="}`), "16 to 64", "16 to 64"},
		"key beside a certificate":   {`{"attestation":{"type":"x509","x509":{"clientCertificates":` + pair + `},"symmetricKey":{}}}`, "no other mechanism", "no other mechanism"},
		"tpm":                        {`{"attestation":{"type":"tpm","tpm":{"endorsementKey":"AToA"}}}`, fine, "individual enrollments"},
		"type in another case":       {`{"attestation":{"type":"X509"}}`, "must be one of", "must be one of"},
	} {
		_, err := dps.DecodeEnrollment("a", []byte(c.body))
		wantRefusal(t, name, err, c.individual)
		_, err = dps.DecodeGroup("a", []byte(c.body))
		wantRefusal(t, name+", group", err, c.group)
	}
}

func wantRefusal(t *testing.T, name string, err error, says string) {
	t.Helper()
	var field *dps.FieldError
	switch {
	case says == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case says != "" && (!errors.As(err, &field) || !strings.Contains(err.Error(), says)):
		t.Errorf("%s: %v, want %q", name, err, says)
	}
}

func TestAnswersHideKeysAndCertificates(t *testing.T) {
	der := ecdsaCertificate(t, nil)
	c, err := dps.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("sixteen secret b")
	encoded := base64.StdEncoding.EncodeToString
	keyed := dps.Attestation{Type: "symmetricKey", SymmetricKey: &dps.SymmetricKeys{Primary: secret, Secondary: secret}}
	signed := dps.Attestation{Type: "x509", X509: &dps.X509Attestation{Signing: &dps.CertificatePair{Primary: c}}}
	for show, want := range map[dps.Show][2]bool{0: {}, dps.ShowKeys: {true, false}, dps.ShowCertificates: {false, true}, dps.ShowKeys | dps.ShowCertificates: {true, true}} {
		if got := strings.Contains(string(keyed.EncodeShowing(show)), encoded(secret)); got != want[0] {
			t.Errorf("show %d: keys %t", show, got)
		}
		if got := strings.Contains(string(signed.EncodeShowing(show)), encoded(der)); got != want[1] {
			t.Errorf("show %d: certificates %t", show, got)
		}
	}
	if got := string(keyed.EncodeShowing(0)); got != `{"type":"symmetricKey"}` {
		t.Error(got)
	}
	g := dps.EnrollmentGroup{GroupID: "g", Attestation: keyed, ProvisioningStatus: "enabled"}
	if got := string(dps.EncodeGroups([]dps.EnrollmentGroup{g})); got != `[{"enrollmentGroupId":"g","attestation":{"type":"symmetricKey"},"provisioningStatus":"enabled"}]` {
		t.Error(got)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("keys", "keys", *keyed.SymmetricKey)
	for _, text := range []string{log.String(), fmt.Sprintf("%v %+v %#v %s", *keyed.SymmetricKey, *keyed.SymmetricKey, *keyed.SymmetricKey, *keyed.SymmetricKey)} {
		if strings.Contains(text, string(secret)) || strings.Contains(text, "115 105 120") || strings.Contains(text, encoded(secret)) {
			t.Errorf("a key is shown: %s", text)
		}
	}
}

// What is stored is read back as the same, whatever it holds.
func TestWhatIsEncodedWholeIsReadBackTheSame(t *testing.T) {
	pool := []*dps.Certificate{nil}
	for range 3 {
		c, err := dps.ParseCertificate(ecdsaCertificate(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		bare := *c
		bare.DER = nil
		pool = append(pool, c, &bare)
	}
	rapid.Check(t, func(rt *rapid.T) {
		key := func(name string) []byte {
			return rapid.SampledFrom([][]byte{nil, bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 64)}).Draw(rt, name)
		}
		pair := &dps.CertificatePair{Primary: rapid.SampledFrom(pool[1:]).Draw(rt, "primary"), Secondary: rapid.SampledFrom(pool).Draw(rt, "secondary")}
		group := rapid.Bool().Draw(rt, "group")
		attestation := rapid.SampledFrom([]dps.Attestation{
			{Type: "symmetricKey", SymmetricKey: &dps.SymmetricKeys{Primary: key("first"), Secondary: key("second")}},
			{Type: "x509", X509: &dps.X509Attestation{Client: pair}},
			{Type: "x509", X509: &dps.X509Attestation{Signing: pair}},
			{Type: "x509", X509: &dps.X509Attestation{CAReferences: &dps.CAReferences{Primary: "a", Secondary: rapid.SampledFrom([]string{"", "b"}).Draw(rt, "reference")}}},
		}).Draw(rt, "attestation")
		const whole = dps.ShowKeys | dps.ShowCertificates
		if group {
			g := dps.EnrollmentGroup{GroupID: "Line-4", Attestation: attestation, ProvisioningStatus: "disabled", Capabilities: &dps.Capabilities{IotEdge: true}}
			first := g.EncodeShowing(whole)
			again, err := dps.DecodeGroup("line-4", first)
			if attestation.X509 != nil && attestation.X509.Client != nil {
				if err == nil {
					rt.Fatal("a group with client certificates")
				}
				return
			}
			if err != nil || string(again.EncodeShowing(whole)) != string(first) {
				rt.Fatalf("%v\n%s\n%s", err, first, again.EncodeShowing(whole))
			}
			return
		}
		e := dps.IndividualEnrollment{RegistrationID: "Press-7", Attestation: attestation, ProvisioningStatus: "enabled"}
		first := e.EncodeShowing(whole)
		again, err := dps.DecodeEnrollment("press-7", first)
		if attestation.X509 != nil && attestation.X509.Client == nil {
			if err == nil {
				rt.Fatal("a device with CAs")
			}
			return
		}
		if err != nil || string(again.EncodeShowing(whole)) != string(first) {
			rt.Fatalf("%v\n%s\n%s", err, first, again.EncodeShowing(whole))
		}
	})
}

// The vector of the imitated service's documentation: the device's key is HMAC-SHA256 of its id under the group's.
func TestDerivedKey(t *testing.T) {
	group, err := base64.StdEncoding.DecodeString("8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==")
	if err != nil {
		t.Fatal(err)
	}
	if got := base64.StdEncoding.EncodeToString(dps.DeriveKey(group, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6")); got != "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=" {
		t.Errorf("derived %s", got)
	}
	if bytes.Equal(dps.DeriveKey(group, "a"), dps.DeriveKey(group, "A")) {
		t.Error("the id counts as it is spelled")
	}
}

func TestBulkOfGroupsIsReadAsBulkOfEnrollments(t *testing.T) {
	bulk, err := dps.DecodeBulkGroups([]byte(`{"enrollmentGroups":[{"enrollmentGroupId":"a","etag":"x","attestation":{"type":"symmetricKey"}},{"enrollmentGroupId":"b"}],"mode":"Update"}`))
	if err != nil || bulk.Mode != dps.BulkUpdate || len(bulk.Items) != 2 || bulk.Items[0].ETag != "x" || bulk.Items[0].Group.GroupID != "a" || bulk.Items[0].Err != nil || bulk.Items[1].Err == nil {
		t.Errorf("%+v, %v", bulk, err)
	}
	for body, says := range map[string]string{
		`{"enrollments":[],"mode":"create"}`: "enrollmentGroups: is missing", `{"enrollmentGroups":[{"registrationId":"a"}],"mode":"create"}`: "enrollmentGroupId: is missing",
		`{"enrollmentGroups":[{"enrollmentGroupId":"a"},{"enrollmentGroupId":"A"}],"mode":"create"}`: "earlier item",
	} {
		_, err := dps.DecodeBulkGroups([]byte(body))
		wantRefusal(t, body, err, says)
	}
}

func TestAGroupIgnoresWhatIsOfOneDevice(t *testing.T) {
	g, err := dps.DecodeGroup("g", []byte(`{"registrationId":"x","deviceId":"a/b","optionalDeviceInformation":1,"registrationState":{},"etag":"e","attestation":{"type":"symmetricKey"}}`))
	if err != nil || string(g.Encode()) != `{"enrollmentGroupId":"g","attestation":{"type":"symmetricKey"},"provisioningStatus":"enabled"}` {
		t.Errorf("%s, %v", g.Encode(), err)
	}
	_, err = dps.DecodeGroup("g", []byte(`{"EnrollmentGroupId":"g","attestation":{"type":"symmetricKey"}}`))
	wantRefusal(t, "misspelt", err, "enrollmentGroupId")
}

func TestBodiesOfAdditions(t *testing.T) {
	der := ecdsaCertificate(t, nil)
	c, err := dps.DecodeCertificate([]byte(`{"certificate":"` + base64.StdEncoding.EncodeToString(der) + `"}`))
	if err != nil || !bytes.Equal(c.DER, der) {
		t.Errorf("%v", err)
	}
	for _, body := range []string{``, `{}`, `{"certificate":null}`, `{"Certificate":"x"}`, `{"certificate":"x"}`} {
		if _, err := dps.DecodeCertificate([]byte(body)); err == nil {
			t.Errorf("%s: taken", body)
		}
	}
	if hosts, err := dps.DecodeHosts([]byte(`{"hosts":["a.example.net","b.example.net"]}`)); err != nil || len(hosts) != 2 {
		t.Errorf("%q, %v", hosts, err)
	}
	for _, body := range []string{`{}`, `{"hosts":[]}`, `{"hosts":null}`, `{"hosts":["a b"]}`, `{"hosts":"a"}`, `{"Hosts":["a.b"]}`} {
		if _, err := dps.DecodeHosts([]byte(body)); err == nil {
			t.Errorf("%s: taken", body)
		}
	}
}

func FuzzDecodeGroup(f *testing.F) {
	der := base64.StdEncoding.EncodeToString(ecdsaCertificate(f, nil))
	f.Add([]byte(`{"enrollmentGroupId":"g","attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAA=="}}}`))
	f.Add([]byte(`{"attestation":{"type":"x509","x509":{"signingCertificates":{"primary":{"certificate":"` + der + `"}}}}}`))
	f.Add([]byte(`{"attestation":{"type":"x509","x509":{"caReferences":{"primary":"a"}}},"iotHubs":["a.b"],"allocationPolicy":"static"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		g, err := dps.DecodeGroup("g", body)
		if err != nil {
			var field *dps.FieldError
			if !errors.As(err, &field) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		const whole = dps.ShowKeys | dps.ShowCertificates
		first := g.EncodeShowing(whole)
		again, err := dps.DecodeGroup("g", first)
		if err != nil || string(again.EncodeShowing(whole)) != string(first) {
			t.Fatalf("%v\n%s\n%s", err, first, again.EncodeShowing(whole))
		}
	})
}

func FuzzParseCertificate(f *testing.F) {
	f.Add(ecdsaCertificate(f, nil))
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := dps.ParseCertificate(der)
		if err != nil {
			return
		}
		if _, ok := c.Info.Fingerprint(); !ok || !json.Valid(c.Info.Encode()) {
			t.Fatalf("%s", c.Info.Encode())
		}
	})
}
