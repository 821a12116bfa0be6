package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"latchkey.example/latchkey/dps"
)

// Bounds of a SAS token's life. Latchkey's hub refuses tokens that end more
// than 24 hours ahead, unless its operator has set another limit.
const (
	DefaultTokenLife = time.Hour
	MinTokenLife     = time.Minute
	MaxTokenLife     = 24 * time.Hour
)

const (
	spareLife  = 20               // a token is still handed out with a twentieth of its life left, if no other can be had
	signPause  = 10 * time.Second // after a failure to sign, while there is a spare
	firstRenew = 0.70             // parts of the life after which a token is renewed: somewhere
	lastRenew  = 0.85             // between the two, so that a fleet does not come back in step
)

// TokenOptions change how a TokenSource signs.
type TokenOptions struct {
	// Life of a SAS token; 0: DefaultTokenLife.
	Life time.Duration

	// Clock that tokens end by: Assignment.Clock, or what Client.Clock gave. The
	// zero Clock is the device's own.
	Clock Clock
}

// TokenSource hands out SAS tokens for a hub and has new ones signed ahead of
// their end. Its methods may be called from several goroutines; only one of
// them signs at a time, and the others wait for the same token.
type TokenSource struct {
	key           dps.Signer
	hub, deviceID string
	life          time.Duration

	own, steady func() time.Time // the clocks; tests replace them

	mu       sync.Mutex
	clock    Clock
	last     *signed  // nil before the first
	signing  *signing // nil if none is under way
	tryAgain time.Time
}

// signed is a SAS token; renew and ends are in steady time.
type signed struct {
	token       string
	expiry      time.Time     // by the hub's clock
	renew, ends time.Time     // to be renewed, and no longer of use
	drift       time.Duration // of the device's clock against steady time, when it was signed
}

// signing is one token in the making.
type signing struct {
	done  chan struct{}
	token *signed // valid, as err, when done is closed
	err   error
}

// NewTokenSource makes SAS tokens for a device at its hub. The key is the hub
// key: Assignment.Key, or one that Identity.LoadKey loaded. It stays the
// caller's: once it is closed, no more tokens are handed out.
func NewTokenSource(key dps.Signer, hub, deviceID string, o TokenOptions) (*TokenSource, error) {
	if o.Life == 0 {
		o.Life = DefaultTokenLife
	}
	switch {
	case key == nil:
		return nil, errors.New("no hub key")
	case !validHub(hub):
		return nil, fmt.Errorf("%.40q is no hub", hub)
	case !dps.ValidDeviceID(deviceID):
		return nil, fmt.Errorf("%.40q is no device id", deviceID)
	case o.Life < MinTokenLife || o.Life > MaxTokenLife:
		return nil, fmt.Errorf("a SAS token may live from %v to %v, not %v", MinTokenLife, MaxTokenLife, o.Life)
	}
	return &TokenSource{key: key, hub: hub, deviceID: deviceID, life: o.Life, clock: o.Clock,
		own: time.Now, steady: steadyNow}, nil
}

// Login is all that a client needs to log in at its hub over MQTT.
type Login struct {
	Hub      string        // host or host:port
	DeviceID string        // the client id
	Username string        // the user name
	SASToken string        // the password: a secret until it ends
	Expiry   time.Time     // by the hub's clock; it ends the session then
	RenewIn  time.Duration // from now: when to come back with a new one
}

// String leaves the SAS token out, as LogValue does.
func (l Login) String() string {
	return fmt.Sprintf("login of %s at %s until %s", l.DeviceID, l.Hub, l.Expiry.UTC().Format(time.RFC3339))
}

// LogValue leaves the SAS token out.
func (l Login) LogValue() slog.Value { return slog.StringValue(l.String()) }

// Token gives a SAS token that is not due to be renewed, and when it ends by
// the hub's clock.
//
// If the TPM cannot sign at the moment, the token before is handed out while it
// is of use. Errors are those of Key.Sign, such as ErrClosed and *TPMError, and
// of ctx; a signature that ctx does not wait for is there for the next call.
func (s *TokenSource) Token(ctx context.Context) (sasToken string, expiry time.Time, err error) {
	token, err := s.current(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	return token.token, token.expiry, nil
}

// Login is Token with all that belongs to it.
func (s *TokenSource) Login(ctx context.Context) (Login, error) {
	token, err := s.current(ctx)
	if err != nil {
		return Login{}, err
	}
	return Login{Hub: s.hub, DeviceID: s.deviceID, Username: HubUsername(s.hub, s.deviceID), SASToken: token.token,
		Expiry: token.expiry, RenewIn: max(0, token.renew.Sub(s.steady()))}, nil
}

// Hub is where the tokens are good for: host or host:port.
func (s *TokenSource) Hub() string { return s.hub }

// DeviceID is the device's name at the hub.
func (s *TokenSource) DeviceID() string { return s.deviceID }

// Refused says that the hub did not take a token. Another one is signed for the
// next call; whether that helps is for the caller to find out: a clock may have
// been wrong, or the hub may know another key by now.
func (s *TokenSource) Refused(sasToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && s.last.token == sasToken {
		s.last = nil
	}
}

// SetClock has tokens end by another clock from now on.
func (s *TokenSource) SetClock(c Clock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock, s.last, s.signing = c, nil, nil // who waits for a signature gets it by the clock before
}

func (s *TokenSource) current(ctx context.Context) (*signed, error) {
	token, under := s.look()
	if under == nil {
		return token, nil
	}
	select {
	case <-under.done:
		if under.err == nil {
			return under.token, nil
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.makeDo(under.err)
}

// look gives the token that is there, or the signing to wait for.
func (s *TokenSource) look() (*signed, *signing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && (s.freshLocked() || s.signing == nil && s.spareLocked() && s.steady().Before(s.tryAgain)) {
		return s.last, nil
	}
	if s.signing == nil {
		s.signing = &signing{done: make(chan struct{})}
		go s.sign(s.signing, s.clock)
	}
	return nil, s.signing
}

// freshLocked: neither due, nor signed by a clock that has jumped since.
func (s *TokenSource) freshLocked() bool {
	return s.steady().Before(s.last.renew) && !s.jumpedLocked()
}

func (s *TokenSource) spareLocked() bool {
	return s.last.ends.Sub(s.steady()) > s.life/spareLife && !s.jumpedLocked()
}

func (s *TokenSource) jumpedLocked() bool {
	return (s.driftNow() - s.last.drift).Abs() > clockTolerance
}

func (s *TokenSource) driftNow() time.Duration { return s.own().Round(0).Sub(s.steady()) }

func (s *TokenSource) sign(under *signing, clock Clock) {
	defer close(under.done)
	own, steady := s.own(), s.steady()
	token := &signed{drift: s.driftNow(), ends: steady.Add(s.life)}
	token.expiry = clock.at(own, steady).Add(s.life).Truncate(time.Second)
	share := firstRenew + (lastRenew-firstRenew)*rand.Float64()
	token.renew = steady.Add(time.Duration(share * float64(s.life)))
	token.token, under.err = HubTokenUntil(s.key, s.hub, s.deviceID, token.expiry)

	s.mu.Lock()
	defer s.mu.Unlock()
	if under.err == nil {
		under.token = token
	}
	if s.signing != under { // SetClock came in between
		return
	}
	s.signing = nil
	if under.err != nil {
		s.tryAgain = s.steady().Add(signPause)
		return
	}
	s.last = token
}

// makeDo answers a failure to sign with the token before, while that is of use.
func (s *TokenSource) makeDo(err error) (*signed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && s.spareLocked() && !errors.Is(err, ErrClosed) {
		return s.last, nil
	}
	return nil, err
}
