package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/rogpeppe/go-internal/testscript"

	"latchkey.example/latchkey/dps"
)

// keep is the script command keep.
func keep(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSuffix(ts.ReadFile(args[1]), "\n"))
}

// damage is the script command damage.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	changed := strings.Replace(text, `"deviceId":"press"`, `"deviceId":"prest"`, 1)
	if changed == text {
		ts.Fatalf("%s has no device id to change", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(changed), 0o600))
}

// The signing key of the exports that tests make.
var signer = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// madeExport is an export, line by line, each with its end.
func madeExport(key ed25519.PrivateKey) []string {
	header := dps.ExportHeader{LatchkeyExport: dps.ExportFormat, IDScope: "0lkOne", Hosts: []string{"one.example.net"}, Created: "2026-03-01T12:00:00Z", PublicKey: key.Public().(ed25519.PublicKey)}
	return sealExport(key, []string{
		string(header.Encode()),
		`{"kind":"caCertificate","value":{"name":"plant","verified":true}}` + "\n",
		`{"kind":"enrollmentGroup","value":{"enrollmentGroupId":"valves"}}` + "\n",
		`{"kind":"enrollment","value":{"registrationId":"Press","deviceId":"four"}}` + "\n",
		`{"kind":"enrollment","value":{"registrationId":"pump"}}` + "\n",
		`{"kind":"registration","value":{"registrationId":"Press","status":"assigned"}}` + "\n",
	})
}

// sealExport puts the end line behind lines.
func sealExport(key ed25519.PrivateKey, lines []string) []string {
	digest := sha256.Sum256([]byte(strings.Join(lines, "")))
	return append(lines, string(dps.NewExportEnd(uint64(len(lines)), digest, ed25519.Sign(key, dps.ExportMessage(digest))).Encode()))
}

// readText reads an export and gives the objects that were seen as "kind id".
func readText(text string) (seen []string, err error) {
	_, err = readExport(iotest.OneByteReader(strings.NewReader(text)), func(kind string, value json.RawMessage) error {
		seen = append(seen, kind+" "+string(value))
		return nil
	})
	return seen, err
}

func TestAnExportIsReadInItsOrder(t *testing.T) {
	var seen []string
	header, err := readExport(strings.NewReader(strings.Join(madeExport(signer), "")), func(kind string, value json.RawMessage) error {
		seen = append(seen, kind+" "+string(value))
		return nil
	})
	if err != nil || header.IDScope != "0lkOne" || !bytes.Equal(header.PublicKey, signer.Public().(ed25519.PublicKey)) {
		t.Fatalf("header %+v, %v", header, err)
	}
	if len(seen) != 5 || seen[0] != `caCertificate {"name":"plant","verified":true}` || seen[4] != `registration {"registrationId":"Press","status":"assigned"}` {
		t.Errorf("%q", seen)
	}
	if _, err := readText(strings.Join(madeExport(signer), "")); err != nil {
		t.Errorf("byte by byte: %v", err)
	}
	empty := sealExport(signer, madeExport(signer)[:1])
	if seen, err := readText(strings.Join(empty, "")); err != nil || seen != nil {
		t.Errorf("an empty scope: %q, %v", seen, err)
	}
	own := errors.New("own")
	if _, err := readExport(strings.NewReader(strings.Join(madeExport(signer), "")), func(string, json.RawMessage) error { return own }); !errors.Is(err, own) {
		t.Errorf("the caller's error is %v", err)
	}
	broken := io.MultiReader(strings.NewReader(madeExport(signer)[0]), iotest.ErrReader(own))
	if _, err := readExport(broken, nil); !errors.Is(err, own) {
		t.Errorf("the reader's error is %v", err)
	}
}

// What happened to an export is said, each in its own words.
func TestAnExportThatWasChangedIsRefused(t *testing.T) {
	swap := func(lines []string, i, j int) []string { lines[i], lines[j] = lines[j], lines[i]; return lines }
	without := func(lines []string, i int) []string { return append(lines[:i:i], lines[i+1:]...) }
	replace := func(lines []string, i int, old, new string) []string {
		changed := strings.Replace(lines[i], old, new, 1)
		if changed == lines[i] {
			t.Fatalf("line %d has no %s", i+1, old)
		}
		lines[i] = changed
		return lines
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	encode := base64.StdEncoding.EncodeToString
	for name, c := range map[string]struct {
		change func(lines []string) []string
		says   string
	}{
		"a value changed":                {func(l []string) []string { return replace(l, 3, "four", "five") }, "its bytes are not those that were signed"},
		"an id changed, still in order":  {func(l []string) []string { return replace(l, 4, "pump", "quarry") }, "its bytes are not those that were signed"},
		"an id changed, out of order":    {func(l []string) []string { return replace(l, 4, "pump", "apple") }, "line 5 is not in its order, or there twice"},
		"white space put in a value":     {func(l []string) []string { return replace(l, 4, `{"reg`, `{ "reg`) }, "its bytes are not those that were signed"},
		"white space put around a value": {func(l []string) []string { return replace(l, 4, `"value":`, `"value": `) }, "line 5: it is not the line of an object"},
		"CRLF":                           {func(l []string) []string { return replace(l, 4, "\n", "\r\n") }, "line 5: it is not the line of an object"},
		"a blank line":                   {func(l []string) []string { return replace(l, 4, "\n", "\n\n") }, "line 6: it is not the line of an object"},
		"no JSON":                        {func(l []string) []string { return replace(l, 4, `"pump"`, `pump`) }, "line 5: it is not the line of an object"},
		"an object without its id":       {func(l []string) []string { return replace(l, 4, "registrationId", "registrationID") }, "line 5: it is not the line of an object"},
		"another kind":                   {func(l []string) []string { return replace(l, 4, "enrollment", "secret") }, "line 5: it is of a kind that this format does not have"},
		"one kind made another":          {func(l []string) []string { return replace(l, 4, "enrollment", "registration") }, "line 6 is not in its order"},
		"a line dropped":                 {func(l []string) []string { return without(l, 3) }, "it has 5 lines before its end line, which says 6"},
		"the last object dropped":        {func(l []string) []string { return without(l, 5) }, "it has 5 lines before its end line, which says 6"},
		"a line added":                   {func(l []string) []string { return replace(l, 4, "\n", "\n"+strings.Replace(l[4], "pump", "q", 1)) }, "it has 7 lines before its end line, which says 6"},
		"a line twice":                   {func(l []string) []string { return replace(l, 4, "\n", "\n"+l[4]) }, "line 6 is not in its order, or there twice"},
		"two lines swapped":              {func(l []string) []string { return swap(l, 3, 4) }, "line 5 is not in its order"},
		"two kinds swapped":              {func(l []string) []string { return swap(l, 2, 3) }, "line 4 is not in its order"},
		"the header dropped":             {func(l []string) []string { return l[1:] }, "it does not begin with the header"},
		"two headers":                    {func(l []string) []string { return append(l[:1:1], l...) }, "line 2: it is not the line of an object"},
		"the scope changed":              {func(l []string) []string { return replace(l, 0, "0lkOne", "0lkTwo") }, "its bytes are not those that were signed"},
		"the key in the header changed": {func(l []string) []string {
			return replace(l, 0, encode(signer.Public().(ed25519.PublicKey)), encode(other.Public().(ed25519.PublicKey)))
		}, "its bytes are not those that were signed"},
		"the key in the header cut":       {func(l []string) []string { return replace(l, 0, encode(signer.Public().(ed25519.PublicKey)), "AAAA") }, "its header was changed"},
		"a member put in the header":      {func(l []string) []string { return replace(l, 0, `"secrets"`, `"x":1,"secrets"`) }, "its header was changed"},
		"another version":                 {func(l []string) []string { return replace(l, 0, `Export":1`, `Export":2`) }, "later version of the format"},
		"the end line dropped":            {func(l []string) []string { return l[:len(l)-1] }, "it was cut off after 6 lines"},
		"cut in the end line":             {func(l []string) []string { l[6] = l[6][:50]; return l }, "it was cut off after 6 lines"},
		"the last byte cut":               {func(l []string) []string { return replace(l, 6, "\n", "") }, "it was cut off after 6 lines"},
		"cut in a line":                   {func(l []string) []string { l[3] = l[3][:9]; return l[:4] }, "it was cut off after 3 lines"},
		"cut in the header":               {func(l []string) []string { return []string{l[0][:20]} }, "it was cut off after 0 lines"},
		"a byte behind the end":           {func(l []string) []string { return append(l, "\n") }, "something follows its end line"},
		"a line behind the end":           {func(l []string) []string { return append(l, l[5]) }, "something follows its end line"},
		"the count changed":               {func(l []string) []string { return replace(l, 6, `"lines":6`, `"lines":7`) }, "it has 6 lines before its end line, which says 7"},
		"the count spelled otherwise":     {func(l []string) []string { return replace(l, 6, `"lines":6`, `"lines":6.0`) }, "its end line was changed"},
		"white space put in the end line": {func(l []string) []string { return replace(l, 6, `,"sha256"`, `, "sha256"`) }, "its end line was changed"},
		"a member put in the end line":    {func(l []string) []string { return replace(l, 6, `,"sha256"`, `,"x":1,"sha256"`) }, "its end line was changed"},
		"the digest in capitals":          {func(l []string) []string { sum := digestOf(l); return replace(l, 6, sum, strings.ToUpper(sum)) }, "its bytes are not those that were signed"},
		"the digest changed":              {func(l []string) []string { sum := digestOf(l); return replace(l, 6, sum, sum[1:]+sum[:1]) }, "its bytes are not those that were signed"},
		"a value and its digest changed": {func(l []string) []string {
			old := digestOf(l)
			l = replace(l, 3, "four", "five")
			return replace(l, 6, old, digestOf(l))
		}, "its signature is not good"},
		"signed by somebody else":          {func(l []string) []string { return sealExport(other, l[:6]) }, "its signature is not good"},
		"the digest signed without a text": {func(l []string) []string { return bareSigned(l[:6]) }, "its signature is not good"},
		"a line that never ends":           {func(l []string) []string { return append(l[:1:1], strings.Repeat("x", 2*maxExportLine)) }, "line 2 is longer than the 1048576 bytes"},
		"empty":                            {func([]string) []string { return nil }, "it is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readText(strings.Join(c.change(madeExport(signer)), ""))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %q", err, c.says)
			}
		})
	}
}

// digestOf is the digest of all lines but the end.
func digestOf(lines []string) string {
	sum := sha256.Sum256([]byte(strings.Join(lines[:6], "")))
	return hex.EncodeToString(sum[:])
}

func bareSigned(lines []string) []string {
	digest := sha256.Sum256([]byte(strings.Join(lines, "")))
	return append(lines, string(dps.NewExportEnd(uint64(len(lines)), digest, ed25519.Sign(signer, digest[:])).Encode()))
}

// Whatever byte is changed, taken out or doubled, the export is refused.
func TestNoByteOfAnExportCanChange(t *testing.T) {
	good := strings.Join(madeExport(signer), "")
	for i := range len(good) {
		for bit := range 8 {
			changed := []byte(good)
			changed[i] ^= 1 << bit
			if _, err := readExport(bytes.NewReader(changed), ignoredObject); err == nil {
				t.Errorf("bit %d of byte %d flipped, and nobody minds: %q", bit, i, changed)
			}
		}
		for what, text := range map[string]string{"taken out": good[:i] + good[i+1:], "doubled": good[:i+1] + good[i:], "the end": good[:i]} {
			if _, err := readExport(strings.NewReader(text), ignoredObject); err == nil {
				t.Errorf("byte %d %s, and nobody minds", i, what)
			}
		}
	}
}

// The example of docs/export-format.md is an export, and the page names its key.
func TestTheDocumentedExampleIsWhole(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "export-format.md"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join("..", "..", "docs", "export-example.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	objects := 0
	header, err := readExport(file, func(string, json.RawMessage) error { objects++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf("verified: %d objects of scope %s, exported %s\n", objects, header.IDScope, header.Created)
	if key := base64.StdEncoding.EncodeToString(header.PublicKey); !bytes.Contains(page, []byte("`"+key+"`")) || !bytes.Contains(page, []byte(said)) {
		t.Errorf("the page has not the key %s or not %q", key, said)
	}
}

// A device like a screen is refused before anything is asked for.
func TestKeysAreNotPrintedToATerminal(t *testing.T) {
	screen, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"export", "--secrets"}, screen, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "not printed to a terminal") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}

// FuzzReadExport: whatever is read, what is taken for whole can be written in no other way.
func FuzzReadExport(f *testing.F) {
	f.Add(strings.Join(madeExport(signer), ""))
	f.Add(madeExport(signer)[0])
	f.Fuzz(func(t *testing.T, text string) {
		var again strings.Builder
		lines := 1
		header, err := readExport(strings.NewReader(text), func(kind string, value json.RawMessage) error {
			if !json.Valid(value) {
				t.Errorf("%s: %q is no JSON", kind, value)
			}
			fmt.Fprintf(&again, "{\"kind\":%q,\"value\":%s}\n", kind, value)
			lines++
			return nil
		})
		if err != nil {
			return
		}
		if head := string(header.Encode()) + again.String(); !strings.HasPrefix(text, head) || strings.Count(text, "\n") != lines+1 {
			t.Errorf("%q was read as %q", text, head)
		}
	})
}
