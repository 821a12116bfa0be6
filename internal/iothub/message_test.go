package iothub

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever properties pass the check, a topic can have their bag, and a client reads them back.
func TestAnyPropertiesComeThroughATopic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := MessageProperties{
			ContentType: rapid.StringN(0, 20, 100).Draw(t, "type"), ContentEncoding: rapid.StringN(0, 20, 100).Draw(t, "encoding"),
			Application: rapid.MapOfN(rapid.StringN(0, 10, 40), rapid.StringN(0, 10, 40), 0, 5).Draw(t, "properties"),
		}
		if p.Check() != nil {
			return
		}
		bag := p.Encode()
		if err := CheckBag(bag); err != nil {
			t.Fatalf("%s: %v", bag, err)
		}
		if strings.ContainsAny(string(bag), "+#/ \x00") {
			t.Fatalf("%s: not for a topic", bag)
		}
		got := MessageProperties{Application: map[string]string{}}
		for field := range strings.SplitSeq(string(bag), "&") {
			if field == "" {
				continue
			}
			name, value, _ := strings.Cut(field, "=")
			name, _ = url.PathUnescape(name)
			value, _ = url.PathUnescape(value)
			switch name {
			case "$.ct":
				got.ContentType = value
			case "$.ce":
				got.ContentEncoding = value
			default:
				got.Application[name] = value
			}
		}
		if got.ContentType != p.ContentType || got.ContentEncoding != p.ContentEncoding || len(got.Application) != len(p.Application) {
			t.Fatalf("%s: %+v, was %+v", bag, got, p)
		}
		for name, value := range p.Application {
			if got.Application[name] != value {
				t.Fatalf("%s: %q is %q", bag, name, got.Application[name])
			}
		}
	})
}

func TestPropertiesThatNoMessageMayHave(t *testing.T) {
	many := map[string]string{}
	for i := range maxMessageProperties + 1 {
		many[strings.Repeat("a", i+1)] = ""
	}
	for name, p := range map[string]MessageProperties{
		"too many":                {Application: many},
		"without a name":          {Application: map[string]string{"": "x"}},
		"a name of the hub":       {Application: map[string]string{"$.mid": "x"}},
		"the hub's feedback":      {Application: map[string]string{"IoTHub-Ack": "full"}},
		"a zero byte":             {Application: map[string]string{"a": "\x00"}},
		"not UTF-8":               {Application: map[string]string{"\xff": ""}},
		"a content type too long": {ContentType: strings.Repeat("a", MaxSystemProperty+1)},
	} {
		if p.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestALifeIsBounded(t *testing.T) {
	for after, good := range map[time.Duration]bool{0: false, -time.Second: false, time.Second: true, 48 * time.Hour: true, 48*time.Hour + 1: false} {
		if (CheckLife(noon, noon.Add(after)) == nil) != good {
			t.Errorf("%v: %v", after, !good)
		}
	}
}
