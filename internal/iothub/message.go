package iothub

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"latchkey.example/latchkey/dps"
)

// Bounds of a message from the cloud to a device, after the imitated hub's quotas and its rules for messages.
const (
	MaxMessage           = 64 << 10 // bytes of body and properties together
	MaxSystemProperty    = 128      // bytes of messageId, correlationId and userId
	MaxMessageLife       = 48 * time.Hour
	DefaultMessageLife   = time.Hour
	MaxWaitingMessages   = 50 // of one device
	MaxDeliveries        = 10 // of one message
	MaxMethodName        = 100
	MaxMethodPayload     = 128 << 10
	maxMessageProperties = 100
)

// MessageProperties are those of a message, beside what the hub itself keeps of it. Names and values are any text.
type MessageProperties struct {
	ContentType, ContentEncoding string
	Application                  map[string]string
}

// Encode is the property bag as it stands in a topic: name=value&…, each percent-encoded, names in order. Empty for no properties.
func (p MessageProperties) Encode() []byte {
	var fields []string
	for _, system := range [][2]string{{"$.ct", p.ContentType}, {"$.ce", p.ContentEncoding}} {
		if system[1] != "" {
			fields = append(fields, BagField(system[0], system[1]))
		}
	}
	names := make([]string, 0, len(p.Application))
	for name := range p.Application {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fields = append(fields, BagField(name, p.Application[name]))
	}
	return []byte(strings.Join(fields, "&"))
}

// Check refuses properties that a device could not be sent, or would take for the hub's. The error may be shown to the sender.
func (p MessageProperties) Check() error {
	if len(p.Application) > maxMessageProperties {
		return refuse("properties", "has more than %d members", maxMessageProperties)
	}
	for name, value := range p.Application {
		switch {
		case name == "" || name[0] == '$' || strings.EqualFold(name, "iothub-ack"):
			return refuse("properties", "has a name that is empty or one of the hub's")
		case !plainText(name) || !plainText(value):
			return refuse("properties", "has a text that is not UTF-8, or has a zero byte")
		}
	}
	if !plainText(p.ContentType) || !plainText(p.ContentEncoding) || len(p.ContentType) > MaxSystemProperty || len(p.ContentEncoding) > MaxSystemProperty {
		return refuse("contentType", "and contentEncoding must be texts of at most %d bytes", MaxSystemProperty)
	}
	return nil
}

func plainText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// BagField is one property of a bag. Everything but letters, digits and -._~ is percent-encoded, which every client undoes.
func BagField(name, value string) string { return EscapeText(name) + "=" + EscapeText(value) }

// EscapeText percent-encodes everything but letters, digits and -._~, as topics have it.
func EscapeText(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// CheckBag refuses an encoded bag that is none.
func CheckBag(bag []byte) error {
	for field := range strings.SplitSeq(string(bag), "&") {
		name, value, _ := strings.Cut(field, "=")
		for _, part := range []string{name, value} {
			if text, err := url.PathUnescape(part); err != nil || !plainText(text) || strings.ContainsAny(part, "+#\x00") {
				return refuse("properties", "is no property bag that a topic can have")
			}
		}
	}
	return nil
}

// CheckMethodName refuses a name that no topic can have.
func CheckMethodName(name string) error {
	if name == "" || len(name) > MaxMethodName {
		return refuse("methodName", "must have 1 to %d characters", MaxMethodName)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("/+#?%", c) >= 0 {
			return refuse("methodName", "must be of printable ASCII characters other than / + # ? %%")
		}
	}
	return nil
}

// CheckMethodPayload refuses what is no JSON, or too much of it. None is good too.
func CheckMethodPayload(payload []byte) error {
	if len(payload) > MaxMethodPayload {
		return refuse("payload", "has more than %d bytes", MaxMethodPayload)
	}
	if len(payload) > 0 && !json.Valid(payload) {
		return refuse("payload", "is not JSON")
	}
	return nil
}

// MessageError is a message, a method name or a payload that no device could be sent: its text may be shown to the sender.
type MessageError = dps.FieldError

// CheckSystemProperty refuses an id that no message may have.
func CheckSystemProperty(name, value string) error {
	if len(value) > MaxSystemProperty || !plainText(value) {
		return refuse(name, "must be a text of at most %d bytes", MaxSystemProperty)
	}
	return nil
}

// CheckAck refuses a kind of feedback that there is none of.
func CheckAck(ack string) error {
	if !slices.Contains([]string{"", "none", "positive", "negative", "full"}, ack) {
		return refuse("ack", "must be one of none, positive, negative and full")
	}
	return nil
}

// CheckLife refuses an expiry that is past or too far ahead.
func CheckLife(now, expires time.Time) error {
	if !expires.After(now) || expires.Sub(now) > MaxMessageLife {
		return refuse("expiryTimeUtc", "must lie ahead, by at most %s", fmt.Sprintf("%.0f hours", MaxMessageLife.Hours()))
	}
	return nil
}
