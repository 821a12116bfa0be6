package broker

import (
	"fmt"
	"strings"
	"testing"
)

func mustCompile(t testing.TB, product Product, texts ...string) []template {
	t.Helper()
	templates, err := compileAll("publish", texts, product)
	if err != nil {
		t.Fatal(err)
	}
	return templates
}

func TestADeviceReachesItsOwnTopicsAlone(t *testing.T) {
	events := "devices/{deviceId}/messages/events/#"
	for _, c := range []struct {
		template, device, topic string
		filter, want            bool
	}{
		{events, "a", "devices/a/messages/events/", false, true},
		{events, "a", "devices/a/messages/events", false, true},
		{events, "a", "devices/a/messages/events/x=1&y=2", false, true},
		{events, "a", "devices/a/messages/eventsx", false, false},
		{events, "a", "devices/b/messages/events/", false, false},
		{events, "a", "devices/A/messages/events/", false, false},
		{events, "a", "devices/a/messages", false, false},
		{events, "a", "/devices/a/messages/events/", false, false},
		{events, "a", "devices//a/messages/events/", false, false},
		{events, "a", "devices/a/messages/events/\x00", false, false},
		{events, "a", "", false, false},
		{events, "a", "devices/a/messages/events/" + strings.Repeat("x", maxTopic), false, false},
		// Wildcards: none in a topic, and in a filter only within those of the template.
		{events, "a", "devices/a/messages/events/#", false, false},
		{events, "a", "devices/+/messages/events/", false, false},
		{events, "a", "devices/a/messages/events/#", true, true},
		{events, "a", "devices/a/messages/events/+/x", true, true},
		{events, "a", "devices/a/messages/+/x", true, false},
		{events, "a", "devices/a/#", true, false},
		{events, "a", "devices/+/messages/events/#", true, false},
		{events, "a", "#", true, false},
		{events, "a", "+/+/+/+/#", true, false},
		{events, "a", "devices/a/messages/events/#/x", true, false},
		{events, "a", "devices/a/messages/events/x#", true, false},
		{events, "a", "devices/a/messages/events/x+", true, false},
		{events, "a", "$share/group/devices/a/messages/events/#", true, false},
		{"fleet/+/news", "a", "fleet/x/news", true, true},
		{"fleet/+/news", "a", "fleet/+/news", true, true},
		{"fleet/+/news", "a", "fleet/#", true, false},
		{"fleet/+/news", "a", "fleet/x/y/news", true, false},
		{"fleet/+", "a", "fleet/#", true, false},
		// A device id is text, whatever stands in it.
		{"{deviceId}/up", "$SYS", "$SYS/up", false, false},
		{"{deviceId}/#", "$share", "$share/g/devices/b/#", true, false},
		{"up/{deviceId}/#", "a*", "up/ab/x", false, false},
		{"up/{deviceId}/#", "a*", "up/a*/x", false, true},
		{"up/{deviceId}", "{deviceId}", "up/{deviceId}", false, true}, // that no device can be called so is not its matter
		{"#", "a", "anything/at/all", false, true},
		{"#", "a", "$SYS/broker", true, false},
		{"+/x", "a", "$SYS/x", true, false},
		{"$iothub/twin/res/#", "a", "$iothub/twin/res/#", true, true},
	} {
		if got := allows(mustCompile(t, Generic, c.template), c.device, c.topic, c.filter); got != c.want {
			t.Errorf("template %s, device %s, %q (filter %v): allowed %v", c.template, c.device, clip(c.topic), c.filter, got)
		}
	}
}

func TestTemplatesThatMeanSomethingElseThanTheySayAreRefused(t *testing.T) {
	for text, product := range map[string]Product{
		"": Generic, "a/#/b": Generic, "a/b#": Generic, "a/b+": Generic, "a+/b": Generic, "dev-{deviceId}/x": Generic, "{deviceid}/x": Generic, "{client}/x": Generic,
		"a\x00/b": Generic, "v1.0/{deviceId}/#": RabbitMQ, "a/*/{deviceId}": RabbitMQ, strings.Repeat("a/", maxTopic): Generic,
	} {
		if _, err := compile(text, product); err == nil {
			t.Errorf("the template %q was taken for %s", clip(text), product)
		}
	}
	if _, err := compile("v1.0/{deviceId}/#", EMQX); err != nil {
		t.Errorf("a dot means itself elsewhere: %v", err)
	}
}

// matches is MQTT 3.1.1, 4.7, written another way: does a topic without wildcards match a filter?
func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") != strings.HasPrefix(filter, "$") {
		return false
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i := range f {
		if f[i] == "#" {
			return true
		}
		if i >= len(t) || f[i] != "+" && f[i] != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}

// Whatever is allowed: every topic that the filter can match lies within a template, written out for the device.
func FuzzFilterNeverReachesBeyondItsTemplate(f *testing.F) {
	for _, s := range [][4]string{
		{"devices/{deviceId}/messages/devicebound/#", "dev-1", "devices/dev-1/messages/devicebound/#", "x/y"}, {"a/+/#", "d", "a/+/+/#", "b"},
		{"{deviceId}/#", "$SYS", "$SYS/#", "broker"}, {"#", "d", "+/+", "x"}, {"a/+", "d", "a/#", ""}, {"a//{deviceId}", "d", "a//d", "q"}, {"a/#", "x", "a", ""},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	f.Fuzz(func(t *testing.T, text, device, filter, filling string) {
		compiled, err := compile(text, Generic)
		if err != nil || !validDeviceID(device) || !allows([]template{compiled}, device, filter, true) {
			return
		}
		written := strings.ReplaceAll(text, devicePlaceholder, device)
		filling = strings.Map(func(r rune) rune {
			if strings.ContainsRune("+#\x00", r) {
				return -1
			}
			return r
		}, filling)
		segment := strings.ReplaceAll(filling, "/", "")
		for _, tail := range []string{"", segment, filling, "x/y/z"} {
			topic := strings.ReplaceAll(filter, "+", segment)
			if rest, ok := strings.CutSuffix(topic, "#"); ok {
				topic = rest + tail
				if tail == "" { // the parent itself
					topic = strings.TrimSuffix(rest, "/")
				}
			}
			if matches(filter, topic) && !matches(written, topic) {
				t.Fatalf("the filter %q was allowed under %q and reaches %q", filter, written, topic)
			}
			if matches(filter, topic) && topic != "" && len(topic) <= maxTopic && !allows([]template{compiled}, device, topic, false) {
				t.Fatalf("the filter %q was allowed under %q, the topic %q not", filter, written, topic)
			}
		}
	})
}

// For RabbitMQ, the same in the words of AMQP: two devices never share a topic under a template that names the device.
func TestNoDeviceOfRabbitMQSpeaksAsAnother(t *testing.T) {
	l := &link{settings: Settings{Product: RabbitMQ}}
	for _, id := range []string{"a.b", "*", "a*", "."} {
		if l.nameable(id) {
			t.Errorf("%q can be a device at RabbitMQ, where it means something else", id)
		}
	}
	if (&link{settings: Settings{Product: NanoMQ}}).nameable("a,b") || !(&link{settings: Settings{Product: EMQX}}).nameable("a.b,c*") {
		t.Error("ids are judged by the words of another product")
	}
	templates := mustCompile(t, RabbitMQ, "devices/{deviceId}/messages/events/#")
	for a := range 3 {
		for b := range 3 {
			if got := allows(templates, fmt.Sprint("d", a), fmt.Sprintf("devices/d%d/messages/events/t", b), false); got != (a == b) {
				t.Errorf("device %d publishes as %d: %v", a, b, got)
			}
		}
	}
}
