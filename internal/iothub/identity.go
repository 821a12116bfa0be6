package iothub

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// Words of an identity.
const (
	Enabled  = "enabled"
	Disabled = "disabled"

	Connected    = "Connected"
	Disconnected = "Disconnected"

	SAS                  = "sas"
	SelfSigned           = "selfSigned" // by the thumbprint of the client certificate
	CertificateAuthority = "certificateAuthority"
	NoAuthentication     = "none"
)

// Bounds of an identity.
const (
	MaxIdentity     = 32 << 10 // bytes of JSON
	MaxStatusReason = 128      // bytes
	maxOpaque       = 512      // etag, generationId, deviceScope
	maxParents      = 16
	minKey, maxKey  = dps.MinSymmetricKey, dps.MaxSymmetricKey
)

// Device is a device identity. In a request only DeviceID, Status, StatusReason, Authentication, IoTEdge, DeviceScope and ParentScopes count;
// the hub sets the others. Zero times stand for "never".
type Device struct {
	DeviceID     string
	GenerationID string // opaque; tells apart two identities that had the same id after each other
	ETag         string // opaque, without quotes
	Status       string // Enabled or Disabled
	StatusReason string // free text of the operator, empty if there is none

	ConnectionState                                     string // Connected or Disconnected
	StatusUpdated, ConnectionStateUpdated, LastActivity time.Time
	CloudToDeviceMessageCount                           int

	Authentication Authentication
	IoTEdge        bool
	DeviceScope    string   // of IoT Edge; kept so that a PUT of what was read changes nothing
	ParentScopes   []string // likewise
}

// Authentication is how a device proves itself at the hub. Keys are secrets, and nil when absent or not shown.
type Authentication struct {
	Type                                   string // SAS, SelfSigned, CertificateAuthority or NoAuthentication
	PrimaryKey, SecondaryKey               []byte // 16 to 64 bytes
	PrimaryThumbprint, SecondaryThumbprint string // hex in upper case: 64 digits (SHA-256) or 40 (SHA-1); empty if absent
}

// LogValue hides the keys.
func (a Authentication) LogValue() slog.Value { return slog.StringValue(a.String()) }

// String hides the keys.
func (a Authentication) String() string { return "[authentication " + a.Type + "]" }

// GoString hides the keys.
func (a Authentication) GoString() string { return a.String() }

// DecodeDevice reads an identity, as a hub answers it or as a client PUTs it. Null counts as absent and unknown members are passed over.
// An absent status is Enabled, an absent authentication type follows from what is there. Errors are *dps.FieldError.
func DecodeDevice(body []byte) (Device, error) {
	if err := dps.CheckObject(body, MaxIdentity); err != nil {
		return Device{}, err
	}
	return decodeDevice(bytes.TrimSpace(body))
}

func decodeDevice(object []byte) (Device, error) {
	d := Device{Status: Enabled, ConnectionState: Disconnected, Authentication: Authentication{Type: SAS}}
	if err := objectMembers("", object, d.member); err != nil {
		return Device{}, err
	}
	if d.DeviceID == "" {
		return Device{}, refuse("deviceId", "is missing")
	}
	return d, nil
}

func (d *Device) member(name string, value []byte) (err error) {
	switch name {
	case "deviceId":
		if d.DeviceID, err = textOf(name, value, 128); err == nil && !dps.ValidDeviceID(d.DeviceID) {
			err = refuse(name, "must be 1 to 128 letters, digits and - . %% _ * ? ! ( ) , : = @ $ '")
		}
	case "generationId":
		d.GenerationID, err = textOf(name, value, maxOpaque)
	case "etag":
		d.ETag, err = etagOf(name, value)
	case "status":
		d.Status, err = wordOf(name, value, Enabled, Disabled)
	case "statusReason":
		d.StatusReason, err = textOf(name, value, MaxStatusReason)
	case "connectionState":
		d.ConnectionState, err = wordOf(name, value, Connected, Disconnected)
	case "statusUpdatedTime":
		d.StatusUpdated, err = timeOf(name, value)
	case "connectionStateUpdatedTime":
		d.ConnectionStateUpdated, err = timeOf(name, value)
	case "lastActivityTime":
		d.LastActivity, err = timeOf(name, value)
	case "cloudToDeviceMessageCount":
		d.CloudToDeviceMessageCount, err = countOf(name, value)
	case "authentication":
		d.Authentication, err = decodeAuthentication(value)
	case "capabilities":
		d.IoTEdge, err = decodeCapabilities(value)
	case "deviceScope":
		d.DeviceScope, err = textOf(name, value, maxOpaque)
	case "parentScopes":
		d.ParentScopes, err = scopesOf(name, value)
	default:
		err = misspelt(name)
	}
	return err
}

// misspelt refuses what is meant for a member that counts but for its letter case: passed over in silence, "Status" would leave a device enabled.
func misspelt(name string) error {
	for _, known := range []string{"deviceId", "status", "statusReason", "authentication", "capabilities"} {
		if strings.EqualFold(name, known) {
			return refuse(known, "must be spelled in exactly these letters")
		}
	}
	return nil
}

func decodeAuthentication(value []byte) (Authentication, error) {
	var a Authentication
	err := objectMembers("authentication", value, func(name string, value []byte) (err error) {
		switch name {
		case "type":
			a.Type, err = wordOf("authentication.type", value, SAS, SelfSigned, CertificateAuthority, NoAuthentication)
		case "symmetricKey":
			err = a.decodeKeys(value)
		case "x509Thumbprint":
			err = a.decodeThumbprints(value)
		}
		return err
	})
	if err != nil {
		return Authentication{}, err
	}
	if a.Type == "" {
		a.Type = SAS
		if a.PrimaryThumbprint != "" || a.SecondaryThumbprint != "" {
			a.Type = SelfSigned
		}
	}
	return a, nil
}

func (a *Authentication) decodeKeys(value []byte) error {
	const member = "authentication.symmetricKey"
	return objectMembers(member, value, func(name string, value []byte) (err error) {
		switch name {
		case "primaryKey":
			a.PrimaryKey, err = keyOf(member+"."+name, value)
		case "secondaryKey":
			a.SecondaryKey, err = keyOf(member+"."+name, value)
		}
		return err
	})
}

func (a *Authentication) decodeThumbprints(value []byte) error {
	const member = "authentication.x509Thumbprint"
	return objectMembers(member, value, func(name string, value []byte) (err error) {
		switch name {
		case "primaryThumbprint":
			a.PrimaryThumbprint, err = thumbprintOf(member+"."+name, value)
		case "secondaryThumbprint":
			a.SecondaryThumbprint, err = thumbprintOf(member+"."+name, value)
		}
		return err
	})
}

// keyOf takes an empty text for an absent key.
func keyOf(member string, value []byte) ([]byte, error) {
	text, err := textOf(member, value, base64.StdEncoding.EncodedLen(maxKey))
	if err != nil || text == "" {
		return nil, err
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(key) < minKey || len(key) > maxKey || strings.ContainsAny(text, "\r\n") {
		return nil, refuse(member, "must be base64 of %d to %d bytes", minKey, maxKey)
	}
	return key, nil
}

func thumbprintOf(member string, value []byte) (string, error) {
	text, err := textOf(member, value, 64)
	if err != nil || text == "" {
		return "", err
	}
	if _, err := hex.DecodeString(text); err != nil || len(text) != 40 && len(text) != 64 {
		return "", refuse(member, "must be hex of a certificate's SHA-256 (64 digits) or SHA-1 (40 digits)")
	}
	return strings.ToUpper(text), nil
}

func decodeCapabilities(value []byte) (edge bool, err error) {
	err = objectMembers("capabilities", value, func(name string, value []byte) (err error) {
		if name == "iotEdge" {
			edge, err = boolOf("capabilities.iotEdge", value)
		}
		return err
	})
	return edge, err
}

// etagOf reads an etag, and drops quotes: some hubs write them inside the JSON text too.
func etagOf(member string, value []byte) (string, error) {
	s, err := textOf(member, value, maxOpaque)
	if err != nil {
		return "", err
	}
	s = strings.TrimPrefix(s, "W/")
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '"' {
			return "", refuse(member, "must be printable and without quotes")
		}
	}
	return s, nil
}

// neverTime is how a hub writes a time that has not been.
const neverTime = "0001-01-01T00:00:00"

// timeOf reads a time of the hub: UTC, with or without a mark of the zone. The year 1 gives the zero time.
func timeOf(member string, value []byte) (time.Time, error) {
	s, err := textOf(member, value, 64)
	if err != nil || s == "" || strings.HasPrefix(s, neverTime) {
		return time.Time{}, err
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil && t.UTC().Year() >= 1 && t.UTC().Year() <= 9999 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, refuse(member, "must be a time such as 2030-01-02T03:04:05.678Z")
}

// FormatTime writes a time as identities and twins do.
func FormatTime(t time.Time) string {
	if t.IsZero() {
		return neverTime + "Z"
	}
	return dps.FormatTime(t)
}

func countOf(member string, value []byte) (int, error) {
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil || n < 0 {
		return 0, refuse(member, "must be a number that counts something")
	}
	return int(n), nil
}

func scopesOf(member string, value []byte) ([]string, error) {
	if value[0] != '[' {
		return nil, refuse(member, "must be an array")
	}
	var scopes []string
	err := dps.EachElement(value, func(value []byte) error {
		if len(scopes) == maxParents {
			return refuse(member, "has more than %d elements", maxParents)
		}
		s, err := textOf(member, value, maxOpaque)
		scopes = append(scopes, s)
		return err
	})
	return scopes, err
}

// wireDevice is the order of members in which hubs answer.
type wireDevice struct {
	DeviceID                   string   `json:"deviceId"`
	GenerationID               string   `json:"generationId,omitempty"`
	ETag                       string   `json:"etag,omitempty"`
	ConnectionState            string   `json:"connectionState,omitempty"`
	Status                     string   `json:"status"`
	StatusReason               *string  `json:"statusReason"`
	ConnectionStateUpdatedTime string   `json:"connectionStateUpdatedTime,omitempty"`
	StatusUpdatedTime          string   `json:"statusUpdatedTime,omitempty"`
	LastActivityTime           string   `json:"lastActivityTime,omitempty"`
	CloudToDeviceMessageCount  *int     `json:"cloudToDeviceMessageCount,omitempty"`
	Authentication             wireAuth `json:"authentication"`
	Capabilities               wireCap  `json:"capabilities"`
	DeviceScope                string   `json:"deviceScope,omitempty"`
	ParentScopes               []string `json:"parentScopes,omitempty"`
}

type wireAuth struct {
	SymmetricKey struct {
		PrimaryKey   *string `json:"primaryKey"`
		SecondaryKey *string `json:"secondaryKey"`
	} `json:"symmetricKey"`
	X509Thumbprint struct {
		PrimaryThumbprint   *string `json:"primaryThumbprint"`
		SecondaryThumbprint *string `json:"secondaryThumbprint"`
	} `json:"x509Thumbprint"`
	Type string `json:"type"`
}

type wireCap struct {
	IoTEdge bool `json:"iotEdge"`
}

// Answer is the identity as a hub shows it, keys included: leave them out of d where they are not to be seen.
func (d Device) Answer() []byte {
	w := d.wire()
	w.GenerationID, w.ETag = d.GenerationID, d.ETag
	w.ConnectionState = d.ConnectionState
	w.ConnectionStateUpdatedTime = FormatTime(d.ConnectionStateUpdated)
	w.StatusUpdatedTime, w.LastActivityTime = FormatTime(d.StatusUpdated), FormatTime(d.LastActivity)
	w.CloudToDeviceMessageCount = &d.CloudToDeviceMessageCount
	return encode(w)
}

// Request is the body of a PUT: what a client may say of a device, keys included.
func (d Device) Request() []byte { return encode(d.wire()) }

func (d Device) wire() wireDevice {
	w := wireDevice{DeviceID: d.DeviceID, Status: d.Status, StatusReason: present(d.StatusReason), Capabilities: wireCap{d.IoTEdge},
		DeviceScope: d.DeviceScope, ParentScopes: d.ParentScopes}
	w.Authentication.Type = d.Authentication.Type
	w.Authentication.SymmetricKey.PrimaryKey = present(base64.StdEncoding.EncodeToString(d.Authentication.PrimaryKey))
	w.Authentication.SymmetricKey.SecondaryKey = present(base64.StdEncoding.EncodeToString(d.Authentication.SecondaryKey))
	w.Authentication.X509Thumbprint.PrimaryThumbprint = present(d.Authentication.PrimaryThumbprint)
	w.Authentication.X509Thumbprint.SecondaryThumbprint = present(d.Authentication.SecondaryThumbprint)
	return w
}

// present gives null for what is empty.
func present(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// encode writes JSON without escaping what only matters inside HTML.
func encode(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic("iothub: a message has no JSON: " + err.Error()) // texts and numbers only
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
