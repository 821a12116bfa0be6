package broker

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

const (
	lifeLeeway     = 5 * time.Minute // of MaxTokenLife, for device clocks that run ahead
	maxHubName     = 255
	maxCertificate = 16 << 10 // of PEM text
)

// Caller says whether the one who asks for the hub shows its shared secret, and if so of which scope and product the hub is. A hub that is not linked
// cannot be told from a wrong secret.
func (h *Hub) Caller(hub, secret string) (scope, product string, ok bool) {
	shown := sha256.Sum256([]byte(secret))
	l, err := h.find(hub)
	if err != nil {
		if !errors.Is(err, registration.ErrUnlinked) {
			h.log.Error("a broker asks, and its hub cannot be used", "hub", clip(hub), "err", err)
		}
		want := sha256.Sum256(h.dummyKey)
		subtle.ConstantTimeCompare(shown[:], want[:])
		return "", "", false
	}
	want := sha256.Sum256([]byte(l.secret.SharedSecret))
	if subtle.ConstantTimeCompare(shown[:], want[:]) != 1 {
		return "", "", false
	}
	return l.Scope, string(l.settings.Product), true
}

// Login answers whether a client may log in. User is the device id, or what the device SDKs of an IoT Hub send: "{hub}/{deviceId}/?api-version=…".
// Client is the MQTT client id, which must be the device id: so a second connection takes the place of the first, and no device that of another.
// Password is the SAS token; certificate, in PEM and perhaps percent-encoded, is what the broker says the client has shown it instead.
//
// The reason is ReasonBrokerLogin if it may, and expires is then when the broker is to end the connection. An error means that nothing is known.
func (h *Hub) Login(ctx context.Context, hub, user, client, password, certificate string) (deviceID string, expires time.Time, why registration.Reason, err error) {
	l, err := h.find(hub)
	if err != nil {
		return "", time.Time{}, registration.ReasonUnknownID, err
	}
	q, why := h.judge(l, user, client, password, certificate)
	if why != registration.ReasonNone {
		return q.deviceID, time.Time{}, why, nil
	}
	why, err = h.admit(ctx, l, q)
	return q.deviceID, q.expires, why, err
}

// attempt is a login that was read: nothing in it can be trusted yet.
type attempt struct {
	deviceID    string
	token       dps.Token
	certificate []byte // SHA-256 of the DER; nil: the token counts
	at, expires time.Time
	digest      [32]byte
}

// judge reads who wants to log in, and judges all that needs no identity.
func (h *Hub) judge(l *link, user, client, password, certificate string) (*attempt, registration.Reason) {
	q := &attempt{at: h.config.Now()}
	hubAsSent, deviceID, ok := l.device(user)
	q.deviceID = deviceID
	if !ok || client != deviceID || !l.nameable(deviceID) {
		return q, registration.ReasonBrokerUser
	}
	if password == "" && certificate != "" && l.settings.Product.sendsCertificates() {
		return q, q.showCertificate(certificate)
	}
	var err error
	if q.token, err = dps.ParseToken(password); err != nil {
		return q, registration.ReasonBadToken
	}
	if !forDevice(q.token, hubAsSent, deviceID) && !forDevice(q.token, l.Name, deviceID) {
		return q, registration.ReasonTokenOtherResource
	}
	if !q.at.Before(q.token.Expiry) {
		return q, registration.ReasonTokenExpired
	}
	q.expires = q.at.Add(h.config.MaxTokenLife)
	if q.token.Expiry.After(q.expires.Add(lifeLeeway)) {
		return q, registration.ReasonTokenFuture
	}
	if q.token.Expiry.Before(q.expires) {
		q.expires = q.token.Expiry
	}
	return q, registration.ReasonNone
}

// showCertificate reads a certificate whose key the client has shown the broker that it holds: PEM, percent-encoded or not, or base64 of PEM or DER, as
// EMQX 5 fills in ${cert_pem}.
func (q *attempt) showCertificate(text string) registration.Reason {
	if len(text) > maxCertificate {
		return registration.ReasonBadRequest
	}
	certificate, err := x509.ParseCertificate(certificateDER(text))
	if err != nil {
		return registration.ReasonBadRequest
	}
	if q.at.Before(certificate.NotBefore.Add(-lifeLeeway)) || !q.at.Before(certificate.NotAfter) {
		return registration.ReasonCertificateTime
	}
	sum := sha256.Sum256(certificate.Raw)
	q.certificate, q.expires = sum[:], certificate.NotAfter
	return registration.ReasonNone
}

// certificateDER finds the bytes in whichever form they came; what is none is refused by whoever parses it.
func certificateDER(text string) []byte {
	bytes := []byte(text)
	if decoded, err := base64.StdEncoding.DecodeString(text); err == nil {
		bytes = decoded
	} else if decoded, err := url.PathUnescape(text); err == nil {
		bytes = []byte(decoded)
	}
	if block, _ := pem.Decode(bytes); block != nil && block.Type == "CERTIFICATE" {
		return block.Bytes
	}
	return bytes
}

// admit compares what was shown with what the identity holds. An unknown device, a disabled one, and one that is to show something else cost the same work as a wrong
// key: reads, one opening, two HMACs. Who passes is noted before the identity is read a second time: whoever changes it meanwhile either finds the note,
// or is found here.
func (h *Hub) admit(ctx context.Context, l *link, q *attempt) (registration.Reason, error) {
	id, known, err := h.identity(ctx, l, q.deviceID)
	if err != nil {
		return registration.ReasonStoreDown, err
	}
	held, err := h.openCredential(l, id, known)
	if err != nil {
		return registration.ReasonInternal, err
	}
	if good := h.matches(q, held); !good || !known {
		again, _, err := h.identity(ctx, l, q.deviceID) // as for one that is let in
		_ = again
		if known || err != nil {
			return registration.ReasonTokenSignature, err
		}
		return registration.ReasonUnknownID, nil
	}
	switch {
	case id.Disabled:
		return registration.ReasonDisabled, nil
	case id.Cutting && l.manager != nil:
		return registration.ReasonBrokerSettling, nil
	}
	h.logins.note(l.Name, q.deviceID, login{at: q.at, expires: q.expires, digest: q.digest})
	again, known, err := h.identity(ctx, l, q.deviceID)
	switch {
	case err != nil:
		return registration.ReasonStoreDown, err
	case !known || again.Version != id.Version:
		return registration.ReasonBrokerSettling, nil // it was changed this moment: the device asks again
	case id.Cutting:
		return h.takeOver(ctx, l, again)
	}
	return registration.ReasonBrokerLogin, nil
}

// takeOver takes the mark off an identity at a broker without a management API: the connection that this login makes has the client id of the one
// that was to end, and so ends it.
func (h *Hub) takeOver(ctx context.Context, l *link, id registration.Identity) (registration.Reason, error) {
	put := follow(id)
	put.Cutting = false
	_, err := h.write(ctx, l, *put)
	switch {
	case errors.Is(err, errMoved):
		return registration.ReasonBrokerSettling, nil
	case err != nil:
		return registration.ReasonStoreDown, err
	}
	return registration.ReasonBrokerLogin, nil
}

func (h *Hub) identity(ctx context.Context, l *link, deviceID string) (id registration.Identity, known bool, err error) {
	id, err = h.config.Identities.Identity(ctx, l.Scope, l.Name, deviceID)
	if errors.Is(err, registration.ErrNotFound) {
		return id, false, nil
	}
	if err != nil {
		return id, false, fmt.Errorf("reading the identity: %w", err)
	}
	return id, true, nil
}

func (h *Hub) openCredential(l *link, id registration.Identity, known bool) (registration.Credential, error) {
	if !known {
		// The master key that sealed the dummy may be gone by now: the result does not matter.
		_, _ = h.config.Sealer.Open(dummyContext, h.dummySealed)
		return registration.Credential{Primary: h.dummyKey}, nil
	}
	encoded, err := h.config.Sealer.Open(registration.ContextIdentityKey(l.Scope, l.Name, id.DeviceID), id.SealedKey)
	if err != nil {
		return registration.Credential{}, fmt.Errorf("opening the device key: %w", err)
	}
	return registration.DecodeCredential(encoded)
}

// matches compares what was shown with what is held, and notes which part of it that was.
func (h *Hub) matches(q *attempt, held registration.Credential) bool {
	if q.certificate != nil {
		q.digest = digestOf(withCertificate, q.certificate)
		return subtle.ConstantTimeCompare(q.certificate, held.Certificate) == 1
	}
	orDummy := func(key []byte) []byte {
		if key == nil {
			return h.dummyKey
		}
		return key
	}
	key := held.Primary
	primary, secondary := q.token.Verify(orDummy(held.Primary)), q.token.Verify(orDummy(held.Secondary))
	if !primary {
		key = held.Secondary
	}
	q.digest = digestOf(withKey, key)
	return primary && held.Primary != nil || secondary && held.Secondary != nil
}

// Topic answers whether a client that is logged in may publish to a topic, or subscribe to a filter. Client is its client id, empty if the broker does
// not say. The reason is ReasonBrokerTopic if it may.
func (h *Hub) Topic(ctx context.Context, hub, user, client, topic string, subscribe bool) (deviceID string, why registration.Reason, err error) {
	l, deviceID, why, err := h.standing(ctx, hub, user, client)
	if err != nil || why != registration.ReasonNone {
		return deviceID, why, err
	}
	templates := l.publish
	if subscribe {
		templates = l.subscribe
	}
	if !allows(templates, deviceID, topic, subscribe) {
		return deviceID, registration.ReasonTopic, nil
	}
	return deviceID, registration.ReasonBrokerTopic, nil
}

// Standing answers whether a client that is logged in may stay so, for questions that name no topic. The reason is ReasonBrokerTopic if it may; hosts
// is the virtual host that it must be in.
func (h *Hub) Standing(ctx context.Context, hub, user, client string) (deviceID, host string, why registration.Reason, err error) {
	l, deviceID, why, err := h.standing(ctx, hub, user, client)
	if err != nil || why != registration.ReasonNone {
		return deviceID, "", why, err
	}
	return deviceID, l.settings.VirtualHost, registration.ReasonBrokerTopic, nil
}

// standing reads whether the device may be at the broker now. A connection that is about to be closed can do nothing more.
func (h *Hub) standing(ctx context.Context, hub, user, client string) (*link, string, registration.Reason, error) {
	l, err := h.find(hub)
	if err != nil {
		return nil, "", registration.ReasonUnknownID, err
	}
	_, deviceID, ok := l.device(user)
	if !ok || client != "" && client != deviceID || !l.nameable(deviceID) {
		return l, deviceID, registration.ReasonBrokerUser, nil
	}
	id, known, err := h.identity(ctx, l, deviceID)
	switch {
	case err != nil:
		return l, deviceID, registration.ReasonStoreDown, err
	case !known:
		return l, deviceID, registration.ReasonUnknownID, nil
	case id.Disabled:
		return l, deviceID, registration.ReasonDisabled, nil
	case id.Cutting:
		return l, deviceID, registration.ReasonBrokerSettling, nil
	case h.config.Alone && l.manager == nil && h.ended(l, deviceID):
		return l, deviceID, registration.ReasonTokenExpired, nil
	}
	return l, deviceID, registration.ReasonNone, nil
}

// ended: the SAS token of the device's last login has expired. Only where no other process lets devices in is that the last one.
func (h *Hub) ended(l *link, deviceID string) bool {
	last, ok := h.logins.of(l.Name, deviceID)
	return ok && !h.config.Now().Before(last.expires)
}

// device reads a user name: the device id, or "{hub}/{deviceId}/?api-version=…" in which the hub is this one, or the spelling of old clients without the
// question mark or the whole rest. A module's user name has another segment and is refused.
func (l *link) device(user string) (hubAsSent, deviceID string, ok bool) {
	hubAsSent, rest, long := strings.Cut(user, "/")
	if !long {
		hubAsSent, rest = l.Name, user
	}
	deviceID, tail, _ := strings.Cut(rest, "/")
	if tail != "" && tail[0] != '?' && !strings.HasPrefix(tail, "api-version=") || len(hubAsSent) > maxHubName || hostOf(hubAsSent) != l.Name || !validDeviceID(deviceID) {
		return "", "", false // and nothing of it is told on: it could be anything, a SAS token in the wrong field too
	}
	return hubAsSent, deviceID, true
}

// hostOf is a hub name as it is looked up: lower case, without a port.
func hostOf(hub string) string {
	if i := strings.LastIndexByte(hub, ':'); i >= 0 && strings.Trim(hub[i+1:], "0123456789") == "" {
		hub = hub[:i]
	}
	return strings.ToLower(hub)
}

// forDevice reports whether the SAS token's resource is the device. The hub name in it is the one the device uses, which may carry a port; one client
// escapes the device id twice; one lower-cases everything, which does no harm, since the key is that of the exact device id.
func forDevice(t dps.Token, hubAsSent, deviceID string) bool {
	path := "/devices/" + deviceID
	if t.ResourceIs(hubAsSent+path) || t.ResourceIs(hostOf(hubAsSent)+path) {
		return true
	}
	again, err := url.PathUnescape(t.Resource)
	return err == nil && strings.EqualFold(again, hubAsSent+path)
}
