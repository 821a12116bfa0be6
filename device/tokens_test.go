package device_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/simtpm"
)

// signer is a hub key that counts, and fails or hangs on command.
type signer struct {
	mu    sync.Mutex
	key   []byte
	calls int
	err   error
	hold  chan struct{} // nil: signs at once
}

func (s *signer) Sign(message []byte) ([]byte, error) {
	s.mu.Lock()
	s.calls++
	err, hold := s.err, s.hold
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if err != nil {
		return nil, err
	}
	return dps.KeySigner(s.key).Sign(message)
}

func (s *signer) fails(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// twoClocks are a device's own clock and the time that passes.
type twoClocks struct{ own, steady time.Time }

func (c *twoClocks) pass(d time.Duration) { c.own, c.steady = c.own.Add(d), c.steady.Add(d) }

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func newTokens(t *testing.T, key *signer, o device.TokenOptions, own time.Time) (*device.TokenSource, *twoClocks) {
	t.Helper()
	key.key = newKey()
	source, err := device.NewTokenSource(key, hubName, "device-1", o)
	if err != nil {
		t.Fatal(err)
	}
	c := &twoClocks{own: own, steady: noon}
	source.SetTokenClocks(func() time.Time { return c.own }, func() time.Time { return c.steady })
	return source, c
}

// mustToken takes a token as a hub does whose clock shows the given time.
func mustToken(t *testing.T, source *device.TokenSource, key *signer, hubTime time.Time) (text string, left time.Duration) {
	t.Helper()
	text, expiry, err := source.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, err := dps.ParseToken(text)
	if err != nil || !token.Verify(key.key) || !token.ResourceIs(hubName+"/devices/device-1") || !token.Expiry.Equal(expiry) {
		t.Fatalf("the hub refuses %s until %v: %v", text, expiry, err)
	}
	return text, token.Expiry.Sub(hubTime)
}

func TestTokensAreRenewedAheadOfTheirEnd(t *testing.T) {
	var key signer
	source, c := newTokens(t, &key, device.TokenOptions{}, noon)
	begun := c.steady
	before, left := mustToken(t, source, &key, c.own)
	if left != time.Hour {
		t.Errorf("valid for %v", left)
	}
	renewed := make(map[time.Duration]bool)
	for range 20 * 60 {
		c.pass(time.Minute)
		text, left := mustToken(t, source, &key, c.own)
		if left < 9*time.Minute {
			t.Fatalf("handed out with %v left", left)
		}
		if text == before {
			continue
		}
		age := c.steady.Sub(begun)
		if age < 42*time.Minute || age > 52*time.Minute {
			t.Errorf("renewed after %v", age)
		}
		before, begun = text, c.steady
		renewed[age] = true
	}
	if len(renewed) < 3 {
		t.Errorf("always renewed after %v: a fleet would come back in step", renewed)
	}
	if key.calls > 30 {
		t.Errorf("%d signatures in 20 hours", key.calls)
	}
}

func TestTokensEndByTheHubsClock(t *testing.T) {
	for name, own := range map[string]time.Time{
		"right":          noon,
		"no battery":     time.Unix(300, 0),
		"a day ahead":    noon.AddDate(0, 0, 1),
		"minutes behind": noon.Add(-time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			var key signer
			source, c := newTokens(t, &key, device.TokenOptions{Clock: device.ClockShowing(noon, noon)}, own)
			for i := range 10 {
				_, left := mustToken(t, source, &key, noon.Add(time.Duration(i)*time.Hour))
				if left < 58*time.Minute || left > 61*time.Minute {
					t.Errorf("after %d hours the hub sees a token for %v", i, left)
				}
				c.pass(time.Hour)
			}
		})
	}
}

// A time server is found, or somebody sets the clock: the token that was signed
// by the old time is not handed out any more, and the reckoned time holds.
func TestAClockThatJumpsDoesNotMatter(t *testing.T) {
	for name, c := range map[string]struct{ from, to time.Time }{
		"from 1970":  {time.Unix(300, 0), noon},
		"back":       {noon, noon.AddDate(-1, 0, 0)},
		"ahead":      {noon, noon.AddDate(1, 0, 0)},
		"set to 0":   {noon, time.Unix(0, 0)},
		"far future": {noon, time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			var key signer
			source, clocks := newTokens(t, &key, device.TokenOptions{Clock: device.ClockShowing(noon, noon)}, c.from)
			mustToken(t, source, &key, noon)
			clocks.own = c.to
			if _, left := mustToken(t, source, &key, noon); left < 59*time.Minute || left > 61*time.Minute {
				t.Errorf("after the jump the hub sees a token for %v", left)
			}
			if key.calls != 2 {
				t.Errorf("signed %d times", key.calls)
			}
			// Renewal goes on by the time that passes.
			for range 6 {
				clocks.pass(10 * time.Minute)
				mustToken(t, source, &key, noon)
			}
			if key.calls != 3 {
				t.Errorf("signed %d times in an hour after the jump", key.calls)
			}
		})
	}
	t.Run("without the hub's clock", func(t *testing.T) {
		var key signer
		source, clocks := newTokens(t, &key, device.TokenOptions{}, time.Unix(300, 0))
		mustToken(t, source, &key, time.Unix(300, 0))
		clocks.own = noon
		if _, left := mustToken(t, source, &key, noon); left != time.Hour {
			t.Errorf("after the clock was set the token is good for %v", left)
		}
	})
}

func TestAClockIsSetLater(t *testing.T) {
	var key signer
	source, _ := newTokens(t, &key, device.TokenOptions{}, time.Unix(300, 0))
	mustToken(t, source, &key, time.Unix(300, 0))
	source.SetClock(device.ClockShowing(noon, noon))
	if _, left := mustToken(t, source, &key, noon); left != time.Hour {
		t.Errorf("the hub sees a token for %v", left)
	}
}

func TestManyAskForOneSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := &signer{key: newKey(), hold: make(chan struct{})}
		source, err := device.NewTokenSource(key, hubName, "device-1", device.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tokens := make(chan string, 100)
		for range 100 {
			go func() {
				text, _, err := source.Token(t.Context())
				if err != nil {
					t.Error(err)
				}
				tokens <- text
			}()
		}
		synctest.Wait()
		close(key.hold)
		want := <-tokens
		for range 99 {
			if got := <-tokens; got != want {
				t.Errorf("two tokens: %s and %s", got, want)
			}
		}
		if key.calls != 1 {
			t.Errorf("signed %d times", key.calls)
		}
	})
}

// A TPM that hangs holds nobody longer than he wants to wait, and what it signs
// in the end is not lost.
func TestWhoeverWaitsMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := &signer{key: newKey(), hold: make(chan struct{})}
		source, err := device.NewTokenSource(key, hubName, "device-1", device.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, _, err := source.Token(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			cancel()
		}
		close(key.hold)
		if _, _, err := source.Token(t.Context()); err != nil || key.calls != 1 {
			t.Errorf("signed %d times: %v", key.calls, err)
		}
	})
}

func TestATokenInHandBridgesABusyTPM(t *testing.T) {
	var key signer
	source, c := newTokens(t, &key, device.TokenOptions{}, noon)
	before, _ := mustToken(t, source, &key, c.own)
	key.fails(device.ErrBusy)
	c.pass(55 * time.Minute) // due, and still good for five minutes
	for range 50 {
		if text, _ := mustToken(t, source, &key, c.own); text != before {
			t.Fatal("another token of a TPM that does not sign")
		}
	}
	if key.calls != 2 {
		t.Errorf("a busy TPM was asked %d times at once", key.calls-1)
	}
	c.pass(11 * time.Second)
	mustToken(t, source, &key, c.own)
	if key.calls != 3 {
		t.Errorf("a busy TPM was not asked again: %d", key.calls-1)
	}
	c.pass(3 * time.Minute) // less than a twentieth is left
	if _, _, err := source.Token(t.Context()); !errors.Is(err, device.ErrBusy) || !device.Temporary(err) {
		t.Errorf("got %v", err)
	}
	key.fails(nil)
	if _, left := mustToken(t, source, &key, c.own); left != time.Hour {
		t.Errorf("good for %v", left)
	}
}

func TestARefusedTokenIsNotHandedOutAgain(t *testing.T) {
	var key signer
	source, c := newTokens(t, &key, device.TokenOptions{}, noon)
	before, _ := mustToken(t, source, &key, c.own)
	source.Refused("another")
	if text, _ := mustToken(t, source, &key, c.own); text != before {
		t.Error("another token though this one was not refused")
	}
	c.pass(time.Second)
	source.Refused(before)
	if text, _ := mustToken(t, source, &key, c.own); text == before {
		t.Error("the refused token again")
	}
}

func TestTokensHaveBounds(t *testing.T) {
	key := &signer{key: newKey()}
	for name, make := range map[string]func() (*device.TokenSource, error){
		"no key": func() (*device.TokenSource, error) {
			return device.NewTokenSource(nil, "h", "d", device.TokenOptions{})
		},
		"no hub": func() (*device.TokenSource, error) { return device.NewTokenSource(key, "", "d", device.TokenOptions{}) },
		"hub is no name": func() (*device.TokenSource, error) {
			return device.NewTokenSource(key, "h/x", "d", device.TokenOptions{})
		},
		"no device": func() (*device.TokenSource, error) {
			return device.NewTokenSource(key, "h", "d/e", device.TokenOptions{})
		},
		"too short": func() (*device.TokenSource, error) {
			return device.NewTokenSource(key, "h", "d", device.TokenOptions{Life: time.Second})
		},
		"negative": func() (*device.TokenSource, error) {
			return device.NewTokenSource(key, "h", "d", device.TokenOptions{Life: -time.Hour})
		},
		"too long": func() (*device.TokenSource, error) {
			return device.NewTokenSource(key, "h", "d", device.TokenOptions{Life: 25 * time.Hour})
		},
	} {
		if _, err := make(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestALoginDoesNotShowItsToken(t *testing.T) {
	var key signer
	source, _ := newTokens(t, &key, device.TokenOptions{Life: 10 * time.Minute}, noon)
	login, err := source.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if login.RenewIn < 7*time.Minute || login.RenewIn > 510*time.Second || login.Username != device.HubUsername(hubName, "device-1") ||
		login.DeviceID != "device-1" || login.Hub != hubName || !login.Expiry.Equal(noon.Add(10*time.Minute)) {
		t.Errorf("got %v, renewed in %v", login, login.RenewIn)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "login", login)
	for _, text := range []string{fmt.Sprint(login), fmt.Sprintf("%+v", login), log.String()} {
		if strings.Contains(text, "sig=") || !strings.Contains(text, "device-1") {
			t.Errorf("shows %s", text)
		}
	}
	var shown map[string]any
	if json.Unmarshal([]byte(log.String()), &shown) != nil {
		t.Error(log.String())
	}
}

// On real TPMs: tokens after tokens, and none after the key is closed.
func TestTokensOfATPM(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		id := openIdentity(t, tpm, device.WithAlgorithm(a))
		defer closeAll(t, id)
		hubKey := newKey()
		key, err := id.Activate(seal(t, id.EK(), id.SRK(), hubKey))
		if err != nil {
			t.Fatal(err)
		}
		source, err := device.NewTokenSource(key, hubName, "device-1", device.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := &twoClocks{own: noon, steady: noon}
		source.SetTokenClocks(func() time.Time { return c.own }, func() time.Time { return c.steady })
		for range 5 {
			mustToken(t, source, &signer{key: hubKey}, c.own)
			c.pass(time.Hour)
		}
		closeAll(t, key)
		if _, _, err := source.Token(t.Context()); !errors.Is(err, device.ErrClosed) {
			t.Errorf("a closed key signs: %v", err)
		}
	})
}

func TestSteadyTimeGoesOn(t *testing.T) {
	before := device.SteadyNow()
	for device.SteadyNow().Equal(before) {
	}
	if after := device.SteadyNow(); after.Before(before) || time.Until(after).Abs() > time.Minute {
		t.Errorf("from %v to %v", before, after)
	}
}

func TestTheServiceIsAskedTheTime(t *testing.T) {
	id := openECC(t)
	s := newService(t, id)
	client, clock := s.client(s.config())
	clock.time = time.Unix(300, 0)
	got, err := client.Clock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.IsZero() {
		t.Error("no clock")
	}
	source, err := device.NewTokenSource(&signer{key: newKey()}, hubName, "device-1", device.TokenOptions{Clock: got})
	if err != nil {
		t.Fatal(err)
	}
	source.SetTokenClocks(clock.now, clock.now)
	_, expiry, err := source.Token(t.Context())
	if left := time.Until(expiry); err != nil || left < 59*time.Minute || left > 61*time.Minute {
		t.Errorf("good for %v: %v", left, err)
	}
}
