package iothub

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func nested(levels int, inmost string) string {
	return strings.Repeat(`{"a":`, levels) + inmost + strings.Repeat("}", levels)
}

func TestWhatATwinMayHold(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                    `{}`,
		"every kind of value":        `{"b":true,"n":-1.5e3,"s":"°C","o":{"x":0},"a":[1,"x",{"y":[null]}],"empty":{}}`,
		"ten levels of objects":      nested(11, `1`),
		"the largest integer":        `{"n":4503599627370495}`,
		"the smallest integer":       `{"n":-4503599627370496}`,
		"a float beyond integers":    `{"n":1e300}`,
		"the longest text":           `{"s":"` + strings.Repeat("x", MaxString) + `"}`,
		"the longest key":            `{"` + strings.Repeat("k", MaxKey) + `":1}`,
		"text with any character":    `{"s":"\u0000. $"}`,
		"a twin as it was read":      `{"x":1,"$version":7,"$metadata":{"$lastUpdated":"2026","x":{"$lastUpdated":"2026"}},"$etag":"AA=="}`,
		"the largest section":        `{"` + strings.Repeat("k", 1000) + `":1,` + filler(MaxProperties-1000-8) + `}`,
		"a key that looks like JSON": `{"{\"":1}`,
	} {
		if _, err := (Part{}).Patch(Reported, []byte(text), noon); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// filler is members of so many bytes in all: texts of 1000 and one of the rest.
func filler(size int) string {
	var members []string
	for i := 0; size > 0; i++ {
		n := min(size, 1000)
		members = append(members, fmt.Sprintf("%q:%q", fmt.Sprintf("m%03d", i), strings.Repeat("x", max(n-4, 0))))
		size -= n
	}
	return strings.Join(members, ",")
}

func TestWhatATwinMayNotHold(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing at all":       {``, "it is not JSON"},
		"no JSON":              {`{"a":1`, "it is not JSON"},
		"two objects":          {`{}{}`, "it is not JSON"},
		"a comma too many":     {`{"a":[1,]}`, "it is not JSON"},
		"an array":             {`[1]`, "it is not a JSON object"},
		"null":                 {`null`, "it is not a JSON object"},
		"a text":               {`"a"`, "it is not a JSON object"},
		"not UTF-8":            {"{\"a\":\"\xff\"}", "it is not UTF-8"},
		"a key twice":          {`{"a":1,"a":2}`, "properties.reported.a: the key stands there twice"},
		"twice, escaped":       {`{"o":{"a":1,"\u0061":2}}`, "properties.reported.o.a: the key stands there twice"},
		"twice, within array":  {`{"o":[{"a":1,"a":2}]}`, "twice"},
		"eleven levels":        {nested(12, `1`), "deeper than 10 levels"},
		"levels of arrays":     {`{"a":` + strings.Repeat("[", 11) + strings.Repeat("]", 11) + `}`, "deeper than 10 levels"},
		"thousands of levels":  {`{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, "deeper than 10 levels"},
		"a dot in a key":       {`{"a.b":null}`, `a key has the character '.'`},
		"a dollar in a key":    {`{"a":{"$version":1}}`, `a key has the character '$'`},
		"a blank in a key":     {`{"a b":1}`, `a key has the character ' '`},
		"C0 in a key":          {`{"a\u0001":1}`, "control character"},
		"C1 in a key":          {`{"a\u0085":1}`, "control character"},
		"an empty key":         {`{"":1}`, "a key is empty"},
		"a key too long":       {`{"` + strings.Repeat("k", MaxKey+1) + `":1}`, "a key has more than 1024 bytes"},
		"a text too long":      {`{"s":"` + strings.Repeat("x", MaxString+1) + `"}`, "more than 4096 bytes"},
		"an integer too large": {`{"n":4503599627370496}`, "an integer is not between"},
		"a huge integer":       {`{"n":` + strings.Repeat("9", 1000) + `}`, "an integer is not between"},
		"a huge float":         {`{"n":1e1000}`, "larger than a 64-bit float"},
		"one byte too many":    {`{` + filler(MaxProperties+1-12) + `}`, "it would have 32769 bytes, 1 more than it may"},
		"empties without end":  {`{"a":[` + strings.Repeat(`{},`, MaxProperties/4) + `{}]}`, "more than it may"},
		"longer than any":      {`{"a":"` + strings.Repeat(" ", MaxTwinBody) + `"}`, "it has more than 262144 bytes"},
	} {
		before := Part{Values: []byte(`{"kept":1}`), Version: 3}
		after, err := before.Patch(Reported, []byte(c.text), noon)
		var refused *TwinError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if !reflect.DeepEqual(before, after) && after.Version != 0 {
			t.Errorf("%s: changed to %+v", name, after)
		}
	}
}

func TestTagsHaveASmallerLimit(t *testing.T) {
	if _, err := PatchTags(nil, []byte(`{`+filler(MaxTags)+`}`)); err != nil {
		t.Error(err)
	}
	_, err := PatchTags([]byte(`{"a":1}`), []byte(`{`+filler(MaxTags)+`}`))
	if err == nil || !strings.Contains(err.Error(), "tags: it would have 8201 bytes, 9 more than it may") {
		t.Error(err)
	}
	if tags, err := ReplaceTags([]byte(`{"a":1,"b":null,"$etag":"x"}`)); err != nil || string(tags) != `{"a":1}` {
		t.Errorf("%s, %v", tags, err)
	}
}

func TestANumberStaysAsItWasWritten(t *testing.T) {
	long := "0." + strings.Repeat("1", 500)
	p, err := Part{}.Patch(Reported, []byte(`{"a":21.50,"b":1e2,"c":`+long+`}`), noon)
	if err != nil || string(p.Values) != `{"a":21.50,"b":1e2,"c":1.111111111111111e-01}` {
		t.Errorf("%s, %v", p.Values, err)
	}
}

func TestTwinsAreShownWithMetadataToServicesAndWithoutToDevices(t *testing.T) {
	var p Part
	for i, patch := range []string{`{"fan":{"speed":3,"on":true},"led":"red"}`, `{"fan":{"speed":4},"led":null}`} {
		var err error
		if p, err = p.Patch(Desired, []byte(patch), noon.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	device, err := DeviceTwin(p, Part{})
	if want := `{"desired":{"$version":3,"fan":{"on":true,"speed":4}},"reported":{"$version":1}}`; err != nil || string(device) != want {
		t.Errorf("%s, %v", device, err)
	}
	service, err := p.ForService(Desired)
	want := `{"$metadata":{"$lastUpdated":"2026-11-24T12:01:00.000Z","$lastUpdatedVersion":3,` +
		`"fan":{"$lastUpdated":"2026-11-24T12:01:00.000Z","$lastUpdatedVersion":3,` +
		`"on":{"$lastUpdated":"2026-11-24T12:00:00.000Z","$lastUpdatedVersion":2},"speed":{"$lastUpdated":"2026-11-24T12:01:00.000Z","$lastUpdatedVersion":3}}},` +
		`"$version":3,"fan":{"on":true,"speed":4}}`
	if err != nil || string(service) != want {
		t.Errorf("%s, %v", service, err)
	}
	if empty, err := (Part{}).ForService(Reported); err != nil || string(empty) != `{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}` {
		t.Errorf("%s, %v", empty, err)
	}
}

func TestAPatchWithoutMembersChangesNothing(t *testing.T) {
	before := Part{Values: []byte(`{"a":1}`), Version: 4}
	if after, err := before.Patch(Desired, []byte(`{"$version":9}`), noon); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("%+v, %v", after, err)
	}
}

func TestADeviceIsToldWhatHasChanged(t *testing.T) {
	steps := []struct{ patch, replace, since1 string }{
		{patch: `{"a":{"x":1,"y":2},"b":1}`, since1: `{"$version":2,"a":{"x":1,"y":2},"b":1}`},
		{patch: `{"a":null}`, since1: `{"$version":3,"a":null,"b":1}`},
		{patch: `{"a":{"y":3}}`, since1: `{"$version":4,"a":{"x":null,"y":3},"b":1}`}, // a device that knows an x below a must forget it
		{replace: `{"b":2}`, since1: `{"$version":5,"a":null,"b":2}`},
		{patch: `{"b":{"c":[1]}}`, since1: `{"$version":6,"a":null,"b":{"c":[1]}}`},
	}
	var p Part
	for _, s := range steps {
		var err error
		if s.patch != "" {
			p, err = p.Patch(Desired, []byte(s.patch), noon)
		} else {
			p, err = p.Replace(Desired, []byte(s.replace), noon)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Since(1); err != nil || string(got) != s.since1 {
			t.Errorf("after %s%s: %s, %v", s.patch, s.replace, got, err)
		}
	}
}

func TestWhatIsGoneIsForgottenWithinABound(t *testing.T) {
	var p Part
	for i := range 3 * maxDead {
		for _, patch := range []string{fmt.Sprintf(`{"k%d":{"in":1},"stays":1}`, i), fmt.Sprintf(`{"k%d":null}`, i)} {
			var err error
			if p, err = p.Patch(Desired, []byte(patch), noon); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(p.Metadata) > 200*maxDead {
		t.Errorf("%d bytes of metadata for one member", len(p.Metadata))
	}
	if got, err := p.Since(1); err != nil || string(got) != fmt.Sprintf(`{"$version":%d,"stays":1}`, p.Version) {
		t.Errorf("a device that knows nothing of this is sent %s, %v", got, err)
	}
	if got, err := p.Since(p.Version - 1); err != nil || string(got) != fmt.Sprintf(`{"$version":%d,"k%d":null}`, p.Version, 3*maxDead-1) {
		t.Errorf("the last change: %s, %v", got, err)
	}
}

func TestMetadataOfTheFullestTwinIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		member  string
		members int
		refused bool
	}{
		"many members":            {`{}`, 4500, false},
		"members within members":  {nested(9, "{}"), 1900, false},
		"at a version of its own": {nested(9, "{}"), 2040, true},
	} {
		var members []string
		for i := range c.members {
			members = append(members, fmt.Sprintf(`"%03x":%s`, i, c.member))
		}
		before := Part{}
		if c.refused {
			before.Version = 1 << 62
		}
		p, err := before.Patch(Desired, []byte(`{`+strings.Join(members, ",")+`}`), noon)
		if c.refused != (err != nil) || len(p.Metadata) > maxMetadata {
			t.Errorf("%s: %d bytes, %v", name, len(p.Metadata), err)
		}
		if p, err = p.Replace(Desired, []byte(`{"only":1}`), noon); err != nil || len(p.Metadata) > 64<<10 {
			t.Errorf("%s: %d bytes are left, %v", name, len(p.Metadata), err)
		}
	}
}

func TestAnUpdateNamesPartsOfATwin(t *testing.T) {
	for body, want := range map[string]TwinUpdate{
		`{}`: {},
		`{"tags":{"a":1},"deviceId":"x","etag":"y","properties":{"reported":{"r":1}}}`:      {Tags: json.RawMessage(`{"a":1}`), Reported: json.RawMessage(`{"r":1}`)},
		`{"tags":null,"properties":{"desired":{"d":1},"reported":null,"$unknown":[1,[2]]}}`: {Desired: json.RawMessage(`{"d":1}`)},
		`{"properties":null}`: {},
	} {
		got, err := DecodeTwinUpdate([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
	for body, want := range map[string]string{
		`[]`:                                    "twin: it is not a JSON object",
		`{"tags":{}`:                            "twin: it is not a JSON object",
		`{"properties":1}`:                      "properties: it is not a JSON object",
		`{"tags":{},"tags":{}}`:                 "twin.tags: the key stands there twice",
		strings.Repeat(" ", MaxTwinBody) + `{}`: "twin: it has more than 262144 bytes",
	} {
		if _, err := DecodeTwinUpdate([]byte(body)); err == nil || err.Error() != want {
			t.Errorf("%.40s: %v", body, err)
		}
	}
}

func TestAnETagIsTheVersion(t *testing.T) {
	if got := TwinETag(7); got != "AAAAAAAAAAc=" {
		t.Error(got)
	}
}

// naive is RFC 7386 as it stands there.
func naive(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	result := map[string]any{}
	if old, ok := target.(map[string]any); ok {
		for k, v := range old {
			result[k] = v
		}
	}
	for k, v := range changes {
		if v == nil {
			delete(result, k)
		} else {
			result[k] = naive(result[k], v)
		}
	}
	return result
}

// anyObject draws a small object over few keys, so that patches meet what is there.
func anyObject(t *rapid.T, depth int) map[string]any {
	object := map[string]any{}
	for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID).Draw(t, "keys") {
		kind := rapid.IntRange(0, 4).Draw(t, "kind")
		switch {
		case kind == 0:
			object[key] = nil
		case kind <= 2 && depth > 0:
			object[key] = anyObject(t, depth-1)
		case kind == 3:
			object[key] = []any{"x", nil}
		default:
			object[key] = json.Number(fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "n")))
		}
	}
	return object
}

func decoded(t interface{ Fatal(...any) }, text []byte) map[string]any {
	object, err := stored(text)
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// Whatever is patched and replaced, a part is what RFC 7386 says it is; and a device that knew it at any version, and merges what Since says, has it as it
// is now.
func TestAnyPatchesAgreeWithTheRFCAndAnyDeviceKeepsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p Part
		model := any(map[string]any{})
		known := map[uint64]any{1: model}
		for range rapid.IntRange(1, 12).Draw(t, "writes") {
			change := anyObject(t, 3)
			before := p
			var err error
			if rapid.IntRange(0, 3).Draw(t, "way") > 0 {
				model = naive(model, change)
				p, err = p.Patch(Desired, encode(change), noon)
			} else {
				model = naive(map[string]any{}, change)
				p, err = p.Replace(Desired, encode(change), noon)
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Version != before.version() && p.Version != before.version()+1 {
				t.Fatalf("version %d after %d", p.Version, before.Version)
			}
			known[p.Version] = model
			if diff := cmp.Diff(model, any(decoded(t, p.Values))); diff != "" {
				t.Fatal(diff)
			}
			for version, at := range known {
				patch, err := p.Since(version)
				if err != nil {
					t.Fatal(err)
				}
				merged := naive(at, any(decoded(t, patch))).(map[string]any)
				delete(merged, "$version")
				if diff := cmp.Diff(model, any(merged)); diff != "" {
					t.Fatalf("from version %d by %s: %s", version, patch, diff)
				}
			}
		}
	})
}

// Two services write without knowing of each other: the order in which their patches come decides, and nothing else.
func TestVersionsRiseByOneWithEachWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Part{Version: uint64(rapid.IntRange(0, 9).Draw(t, "version"))}
		writes := rapid.SliceOf(rapid.IntRange(0, 9)).Draw(t, "writes")
		for _, n := range writes {
			var err error
			if p, err = p.Patch(Reported, fmt.Appendf(nil, `{"n":%d}`, n), noon); err != nil {
				t.Fatal(err)
			}
		}
		if len(writes) > 0 && string(p.Values) != fmt.Sprintf(`{"n":%d}`, writes[len(writes)-1]) {
			t.Fatalf("%s", p.Values)
		}
	})
}

// FuzzTwinPatch: whatever comes is refused with a bounded sentence and changes nothing, or gives a part within its limits that can be shown, patched again and
// told to a device.
func FuzzTwinPatch(f *testing.F) {
	for _, seed := range []string{`{"a":{"b":null,"c":[1,{"d":2}]}}`, `{"a":1e400}`, `{"a":1,"a":2}`, `{"$version":{"x":[[]]}}`, nested(12, "1"), `{"\ud800":"\udc00"}`, `{"a":00}`} {
		f.Add([]byte(`{"a":{"b":1},"x":"y"}`), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var p Part
		for _, patch := range [][]byte{first, second} {
			after, err := p.Patch(Desired, patch, noon)
			var refused *TwinError
			if errors.As(err, &refused) {
				if len(err.Error()) > 300 {
					t.Errorf("a sentence of %d bytes", len(err.Error()))
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(after.Values) == 0 { // nothing was written yet
				continue
			}
			if size(decoded(t, after.Values)) > MaxProperties || !json.Valid(after.Values) || !json.Valid(after.Metadata) {
				t.Fatalf("%.200s", after.Values)
			}
			if again, err := after.Replace(Desired, after.Values, noon); err != nil || string(again.Values) != string(after.Values) {
				t.Fatalf("what was stored is not taken back: %v\n%.200s\n%.200s", err, after.Values, again.Values)
			}
			for _, show := range []func() ([]byte, error){
				func() ([]byte, error) { return after.Since(1) },
				func() ([]byte, error) { return after.ForService(Desired) },
				func() ([]byte, error) { return DeviceTwin(after, after) },
			} {
				if text, err := show(); err != nil || !json.Valid(text) {
					t.Fatalf("%v: %.200s", err, text)
				}
			}
			p = after
		}
		_, _ = DecodeTwinUpdate(first)
	})
}
