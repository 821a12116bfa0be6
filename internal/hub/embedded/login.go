package embedded

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

const (
	loginTimeout = 5 * time.Second // for reading the identity twice and ending the session before
	lifeLeeway   = 5 * time.Minute // of MaxTokenLife, for device clocks that run ahead
	maxDeviceID  = 128
	maxHubName   = 255

	dummyContext = "hub-dummy-key"
)

// login is one attempt to log in; once it is a session's it does not change.
type login struct {
	scope, hub, deviceID string
	token                dps.Token
	expires              time.Time // the session ends then
	digest               [32]byte  // SHA-256 of the key that verified
}

// key names the device in this process. Neither part can hold a slash.
func (l *login) key() string { return deviceKey(l.hub, l.deviceID) }

func deviceKey(hub, deviceID string) string { return hub + "/" + deviceID }

// login decides about a CONNECT. It needs no lock until the SAS token has verified, so strangers cannot hold up a device.
func (h *Hub) login(c *conn, p *packets.ConnectParams) cause {
	ctx, cancel := context.WithTimeout(h.base, loginTimeout)
	defer cancel()
	l, why := h.identify(p)
	if why != "" {
		return why
	}
	if why := h.verify(ctx, l); why != "" {
		return why
	}
	if p.WillFlag {
		if _, ok := eventProperties(p.WillTopic, l.deviceID); !ok || len(p.WillTopic) > maxTopic {
			return causeWill
		}
	}
	c.clean = p.Clean
	return h.admit(ctx, c, l)
}

// identify reads who wants to log in and judges all of the SAS token that needs no key.
func (h *Hub) identify(p *packets.ConnectParams) (*login, cause) {
	hubAsSent, deviceID, ok := splitUser(string(p.Username))
	if !ok || p.ClientIdentifier != deviceID {
		return nil, causeUser
	}
	l := &login{hub: hostOf(hubAsSent), deviceID: deviceID}
	if l.scope, ok = h.config.Names(l.hub); !ok {
		return nil, causeUser
	}
	var err error
	if l.token, err = dps.ParseToken(string(p.Password)); err != nil || !forDevice(l.token, hubAsSent, deviceID) {
		return nil, causeToken
	}
	now := h.config.Now()
	if !now.Before(l.token.Expiry) {
		return nil, causeExpired
	}
	l.expires = now.Add(h.config.MaxTokenLife)
	if l.token.Expiry.After(l.expires.Add(lifeLeeway)) {
		return nil, causeFar
	}
	if l.token.Expiry.Before(l.expires) {
		l.expires = l.token.Expiry
	}
	return l, ""
}

// verify checks the SAS token against the device's present key. An unknown device costs the same work as a wrong key: one read,
// one opening, one HMAC.
func (h *Hub) verify(ctx context.Context, l *login) cause {
	id, err := h.config.Identities.Identity(ctx, l.scope, l.hub, l.deviceID)
	known := err == nil
	if !known && !errors.Is(err, registration.ErrNotFound) {
		h.log.Error("hub: reading an identity", "error", err)
		return causeUnavailable
	}
	key, err := h.open(l, id, known)
	if err != nil {
		h.log.Error("hub: opening a device key", "scope", l.scope, "hub", l.hub, "device", l.deviceID, "error", err)
		return causeUnavailable
	}
	if good := l.token.Verify(key); !good || !known {
		return causeCredentials
	}
	l.digest = digestOf(key)
	return ""
}

func (h *Hub) open(l *login, id registration.Identity, known bool) ([]byte, error) {
	if !known {
		// The master key that sealed the dummy may be gone by now: the result does not matter.
		_, _ = h.config.Sealer.Open(dummyContext, h.dummySealed)
		return h.dummyKey, nil
	}
	return h.config.Sealer.Open(registration.ContextIdentityKey(l.scope, l.hub, l.deviceID), id.SealedKey)
}

// splitUser reads "{hub}/{deviceId}/?api-version=…", or the spelling of old clients without the question mark or the whole rest.
// A module's user name has another segment and is refused.
func splitUser(user string) (hub, deviceID string, ok bool) {
	hub, rest, _ := strings.Cut(user, "/")
	deviceID, tail, _ := strings.Cut(rest, "/")
	if tail != "" && tail[0] != '?' && !strings.HasPrefix(tail, "api-version=") {
		return "", "", false
	}
	return hub, deviceID, hub != "" && len(hub) <= maxHubName && validDeviceID(deviceID)
}

// hostOf is a hub name as it is looked up: lower case, without a port.
func hostOf(hub string) string {
	if i := strings.LastIndexByte(hub, ':'); i >= 0 && strings.Trim(hub[i+1:], "0123456789") == "" {
		hub = hub[:i]
	}
	return strings.ToLower(hub)
}

// forDevice reports whether the SAS token's resource is the device. The hub name in it is the one the device uses, which may
// carry a port; one client escapes the device id twice; one lower-cases everything, which does no harm, since the key is that
// of the exact device id.
func forDevice(t dps.Token, hubAsSent, deviceID string) bool {
	path := "/devices/" + deviceID
	if t.ResourceIs(hubAsSent+path) || t.ResourceIs(hostOf(hubAsSent)+path) {
		return true
	}
	again, err := url.PathUnescape(t.Resource)
	return err == nil && strings.EqualFold(again, hubAsSent+path)
}

// validDeviceID says which ids can be a device: those of the imitated hub that cannot be mistaken for a topic filter.
func validDeviceID(id string) bool {
	if id == "" || len(id) > maxDeviceID {
		return false
	}
	for i := range len(id) {
		c := id[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("-._:%*?!(),=@$'", c) < 0 {
			return false
		}
	}
	return true
}
