package hubapi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// shown is a device as it is answered, keys included.
func shown(d registration.KnownDevice) iothub.Device {
	wire := iothub.Device{
		DeviceID: d.DeviceID, GenerationID: generationID(d.Identity), ETag: etag(d.Identity), Status: statusOf(d.Disabled), StatusReason: d.StatusReason,
		ConnectionState: connectionState(d.Connected), StatusUpdated: d.StatusUpdated, ConnectionStateUpdated: d.ConnectionChanged, LastActivity: d.LastActivity,
		CloudToDeviceMessageCount: d.Waiting, Authentication: authenticationOf(d.Credential), IoTEdge: d.IoTEdge,
	}
	return wire
}

func statusOf(disabled bool) string {
	if disabled {
		return iothub.Disabled
	}
	return iothub.Enabled
}

func connectionState(connected bool) string {
	if connected {
		return iothub.Connected
	}
	return iothub.Disconnected
}

func authenticationOf(c registration.Credential) iothub.Authentication {
	if c.Certificate != nil {
		return iothub.Authentication{Type: iothub.SelfSigned, PrimaryThumbprint: strings.ToUpper(hex.EncodeToString(c.Certificate))}
	}
	return iothub.Authentication{Type: iothub.SAS, PrimaryKey: c.Primary, SecondaryKey: c.Secondary}
}

// generationID tells an identity from one of the same id that was deleted before.
func generationID(i registration.Identity) string {
	return strconv.FormatInt(max(i.Created.UnixMicro(), 0), 10)
}

// etag names the identity as it is: versions rise with each write, and where one begins anew, long after a delete, the time of creation is another. Its
// form is that of an IoT Hub, base64 of some digits.
func etag(i registration.Identity) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(i.Created.UnixMicro()))
	binary.BigEndian.PutUint64(b[8:], i.Version)
	sum := sha256.Sum256(append([]byte("device etag\x00"), b[:]...))
	return base64.StdEncoding.EncodeToString(strconv.AppendUint(nil, binary.BigEndian.Uint64(sum[:])>>20, 10))
}

// condition is what a request wants to find.
type condition struct {
	absent bool   // nothing
	any    bool   // something
	etag   string // exactly this
}

// conditionOf reads If-Match and If-None-Match. Clients put an etag into quotes or not, and the asterisk too.
func conditionOf(header http.Header) (c condition, ok bool) {
	match, none := header.Values("If-Match"), header.Values("If-None-Match")
	switch {
	case len(match)+len(none) == 0:
		return condition{}, true
	case len(match)+len(none) > 1:
		return condition{}, false
	case len(none) == 1:
		return condition{absent: true}, unquoted(none[0]) == "*"
	}
	tag := unquoted(match[0])
	if tag == "*" {
		return condition{any: true}, true
	}
	return condition{etag: tag}, tag != "" && len(tag) <= 128
}

func unquoted(tag string) string {
	tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
	if len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"' {
		tag = tag[1 : len(tag)-1]
	}
	return tag
}

// credentialOf is the credential of a wanted authentication; known is what the device has, if it is there. Keys that are not given are kept, or made
// where there are none: an update of something else must not lock a device out. The error is a sentence.
func credentialOf(want iothub.Authentication, known *registration.Credential) (registration.Credential, string) {
	switch want.Type {
	case iothub.SAS:
		switch {
		case want.PrimaryThumbprint != "" || want.SecondaryThumbprint != "":
			return registration.Credential{}, "authentication: a device of type sas has no thumbprints."
		case want.PrimaryKey != nil:
			return registration.Credential{Primary: want.PrimaryKey, Secondary: want.SecondaryKey}, ""
		case want.SecondaryKey != nil:
			return registration.Credential{}, "authentication.symmetricKey: a secondaryKey needs a primaryKey beside it."
		case known != nil && known.Certificate == nil:
			return *known, ""
		}
		return registration.Credential{Primary: freshKey(), Secondary: freshKey()}, ""
	case iothub.SelfSigned:
		switch {
		case want.PrimaryKey != nil || want.SecondaryKey != nil:
			return registration.Credential{}, "authentication: a device of type selfSigned has no symmetric keys."
		case want.PrimaryThumbprint == "" && want.SecondaryThumbprint == "" && known != nil && known.Certificate != nil:
			return *known, ""
		}
		return byThumbprint(want)
	}
	return registration.Credential{}, "authentication.type: this hub knows sas and selfSigned; certificates of an authority are checked where devices are provisioned."
}

func byThumbprint(want iothub.Authentication) (registration.Credential, string) {
	digest, err := hex.DecodeString(want.PrimaryThumbprint)
	if err != nil || len(digest) != sha256.Size {
		return registration.Credential{}, "authentication.x509Thumbprint.primaryThumbprint: must be the SHA-256 of the certificate, 64 hexadecimal digits; SHA-1 is not taken."
	}
	if want.SecondaryThumbprint != "" && want.SecondaryThumbprint != want.PrimaryThumbprint {
		return registration.Credential{}, "authentication.x509Thumbprint.secondaryThumbprint: a device has one certificate at this hub."
	}
	return registration.Credential{Certificate: digest}, ""
}

func freshKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}
