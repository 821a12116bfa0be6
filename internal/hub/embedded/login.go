package embedded

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
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
	certificate          *x509.Certificate // in place of the token; the TLS handshake has shown that the device holds its key
	expires              time.Time         // the session ends then
	digest               [32]byte          // of what let it in
}

// key names the device in this process. Neither part can hold a slash.
func (l *login) key() string { return deviceKey(l.hub, l.deviceID) }

func deviceKey(hub, deviceID string) string { return hub + "/" + deviceID }

// login decides about a CONNECT. It needs no lock until the SAS token has verified, so strangers cannot hold up a device.
func (h *Hub) login(c *conn, p *packets.ConnectParams) cause {
	ctx, cancel := context.WithTimeout(h.base, loginTimeout)
	defer cancel()
	l, why := h.identify(c, p)
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

// identify reads who wants to log in, and judges all of the SAS token or the client certificate that needs no identity.
func (h *Hub) identify(c *conn, p *packets.ConnectParams) (*login, cause) {
	hubAsSent, deviceID, ok := splitUser(string(p.Username))
	if !ok || p.ClientIdentifier != deviceID {
		return nil, causeUser
	}
	l := &login{hub: hostOf(hubAsSent), deviceID: deviceID}
	if l.scope, ok = h.config.Names(l.hub); !ok {
		return nil, causeUser
	}
	if certificate := c.certificate(); certificate != nil && len(p.Password) == 0 {
		return l, h.judgeCertificate(l, certificate)
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

// judgeCertificate: the session ends with the certificate. A device whose clock made the beginning of it is given the leeway of tokens.
func (h *Hub) judgeCertificate(l *login, certificate *x509.Certificate) cause {
	now := h.config.Now()
	if now.Before(certificate.NotBefore.Add(-lifeLeeway)) || !now.Before(certificate.NotAfter) {
		return causeExpired
	}
	l.certificate, l.expires = certificate, certificate.NotAfter
	return ""
}

// verify checks the SAS token or the certificate against what the device's identity holds now. An unknown device, and one that is to show
// something else, cost the same work as a wrong key: one read, one opening, two HMACs.
func (h *Hub) verify(ctx context.Context, l *login) cause {
	id, err := h.config.Identities.Identity(ctx, l.scope, l.hub, l.deviceID)
	known := err == nil
	if !known && !errors.Is(err, registration.ErrNotFound) {
		h.log.Error("hub: reading an identity", "error", err)
		return causeUnavailable
	}
	credential, err := h.open(l, id, known)
	if err != nil {
		h.log.Error("hub: opening a device key", "scope", l.scope, "hub", l.hub, "device", l.deviceID, "error", err)
		return causeUnavailable
	}
	switch good := h.matches(l, credential); {
	case !good || !known:
		return causeCredentials
	case id.Disabled:
		return causeDisabled
	}
	return ""
}

// matches compares what was shown with what is held, and notes which part of it that was.
func (h *Hub) matches(l *login, held registration.Credential) bool {
	if l.certificate != nil {
		shown := sha256.Sum256(l.certificate.Raw)
		l.digest = digestOf(withCertificate, shown[:])
		return subtle.ConstantTimeCompare(shown[:], held.Certificate) == 1
	}
	key := held.Primary
	primary, secondary := l.token.Verify(h.orDummy(held.Primary)), l.token.Verify(h.orDummy(held.Secondary))
	if !primary {
		key = held.Secondary
	}
	l.digest = digestOf(withKey, key)
	return primary && held.Primary != nil || secondary && held.Secondary != nil
}

func (h *Hub) orDummy(key []byte) []byte {
	if key == nil {
		return h.dummyKey
	}
	return key
}

func (h *Hub) open(l *login, id registration.Identity, known bool) (registration.Credential, error) {
	if !known {
		// The master key that sealed the dummy may be gone by now: the result does not matter.
		_, _ = h.config.Sealer.Open(dummyContext, h.dummySealed)
		return registration.Credential{Primary: h.dummyKey}, nil
	}
	encoded, err := h.config.Sealer.Open(registration.ContextIdentityKey(l.scope, l.hub, l.deviceID), id.SealedKey)
	if err != nil {
		return registration.Credential{}, err
	}
	return registration.DecodeCredential(encoded)
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
