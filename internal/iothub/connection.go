package iothub

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// Connection is how a service client finds a hub and signs for it: a host, and an access policy's name and key. It prints and logs without the
// key.
type Connection = dps.ConnectionString

// ParseConnection reads "HostName=…;SharedAccessKeyName=…;SharedAccessKey=…". A device's own connection string is refused with a sentence of its
// own: people take one for the other.
func ParseConnection(s string) (Connection, error) {
	for part := range strings.SplitSeq(s, ";") {
		if name, _, _ := strings.Cut(strings.TrimSpace(part), "="); strings.EqualFold(name, "DeviceId") {
			return Connection{}, errors.New("connection string: this is a device's; a hub is linked with that of an access policy, which has a SharedAccessKeyName")
		}
	}
	return dps.ParseConnectionString(s)
}

// ServiceToken makes the text of a SAS token for all of the hub's service side, good until expiry. It is a secret.
func ServiceToken(c Connection, expiry time.Time) (string, error) {
	return dps.NewToken(c.Signer(), c.HostName, expiry, c.SharedAccessKeyName)
}

// DeviceConnection is how a device finds its hub. It prints and logs without the key.
type DeviceConnection struct {
	HostName, DeviceID string
	Key                []byte // nil for a device with a client certificate
}

// Reveal is the text that device SDKs read, the secret key included.
func (c DeviceConnection) Reveal() string {
	if c.Key == nil {
		return c.public() + "x509=true"
	}
	return c.public() + "SharedAccessKey=" + base64.StdEncoding.EncodeToString(c.Key)
}

func (c DeviceConnection) public() string {
	return fmt.Sprintf("HostName=%s;DeviceId=%s;", c.HostName, c.DeviceID)
}

// String is the text without the key.
func (c DeviceConnection) String() string {
	if c.Key == nil {
		return c.Reveal()
	}
	return c.public() + "SharedAccessKey=[redacted]"
}

// Format prints no key, whatever the verb.
func (c DeviceConnection) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// LogValue logs no key.
func (c DeviceConnection) LogValue() slog.Value { return slog.StringValue(c.String()) }

// DevicePath is the escaped path of an identity.
func DevicePath(deviceID string) string { return "/devices/" + escape(deviceID) }

// TwinPath is the escaped path of a twin.
func TwinPath(deviceID string) string { return "/twins/" + escape(deviceID) }

// escape makes one path segment of a device id, as encodeURIComponent does but for what clients leave alone.
func escape(id string) string {
	return strings.NewReplacer("+", "%20", "%27", "'", "%28", "(", "%29", ")", "%2A", "*", "%21", "!").Replace(url.QueryEscape(id))
}
