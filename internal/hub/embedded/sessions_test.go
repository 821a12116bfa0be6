package embedded

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

func TestANewConnectionReplacesTheOldOne(t *testing.T) {
	w, first, key := oneDevice(t, nil)
	first.send(subscribe(1, twinAnswers))
	first.expect(0x90, 3, 0, 1, 1)
	second := w.login(w.greet("dev", key), 1)
	first.expectClosed()
	second.send(publish(0x30, "$iothub/twin/GET/?$rid=1", 0, " ")) // the subscription is still there
	second.expect(publish(0x30, "$iothub/twin/res/200/?$rid=1", 0, emptyTwin)...)
	second.send(packet(0xe0))
	second.expectClosed()
	w.settled()
	if w.endings(causeTakeover) != 1 || w.endings(causeClient) != 1 {
		t.Errorf("log:\n%s", w.logs)
	}
}

func TestOnlyWhoHoldsTheKeyReplacesAConnection(t *testing.T) {
	w, r, _ := oneDevice(t, nil)
	stranger := w.dial()
	stranger.send(w.greet("dev", newKey()).packet())
	stranger.expect(0x20, 2, 0, 5)
	r.send(packet(0xc0))
	r.expect(0xd0, 0)
}

func TestASilentPeerCannotHoldUpItsSuccessor(t *testing.T) {
	w, stalled, key := oneDevice(t, nil)
	// It asks much and reads nothing, so that the hub is stuck in a write to it.
	go func() {
		for range 100 {
			if _, err := stalled.Write(packet(0xc0)); err != nil {
				return
			}
		}
	}()
	second := w.login(w.greet("dev", key), 1)
	second.send(packet(0xc0))
	second.expect(0xd0, 0)
}

func TestACleanSessionLeavesNothingBehind(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	r.send(packet(0xe0))
	r.expectClosed()
	h := w.greet("dev", key)
	h.flags = 2
	clean := w.login(h, 0) // and it drops the one before
	clean.send(subscribe(1, twinAnswers))
	clean.expect(0x90, 3, 0, 1, 1)
	clean.Close()
	w.settled()
	if w.server.Clients.Len() != 0 || len(w.devices) != 0 || len(w.server.Topics.Subscribers("$iothub/twin/res/1").Subscriptions) != 0 {
		t.Error("left over")
	}
	w.login(w.greet("dev", key), 0)
}

func TestASessionWhoseDeviceStaysAwayExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, key := oneDevice(t, func(c *Config) { c.SessionExpiry = time.Hour })
		r.send(subscribe(1, twinAnswers))
		r.expect(0x90, 3, 0, 1, 1)
		r.send(packet(0xe0))
		r.expectClosed()
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		again := w.login(w.greet("dev", key), 1)
		again.send(packet(0xe0))
		again.expectClosed()
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		if w.server.Clients.Len() != 0 || len(w.devices) != 0 || len(w.server.Topics.Subscribers("$iothub/twin/res/1").Subscriptions) != 0 {
			t.Error("left over")
		}
		w.login(w.greet("dev", key), 0)
	})
}

func TestASessionIsCutWhenItsTokenExpires(t *testing.T) {
	for name, c := range map[string]struct{ token, life, want time.Duration }{
		"the token's expiry":       {time.Hour, 24 * time.Hour, time.Hour},
		"the longest allowed life": {time.Hour + 4*time.Minute, time.Hour, time.Hour}, // the clock of the device is ahead
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(config *Config) { config.MaxTokenLife = c.life })
				key := newKey()
				w.ensure("dev", key, 1)
				h := w.greet("dev", key)
				h.password = token(t, key, testHub+"/devices/dev", time.Now().Add(c.token))
				start := time.Now()
				r := w.login(h, 0)
				r.SetDeadline(time.Time{})
				for range 3 { // it is not silent
					time.Sleep(c.want/3 - time.Second)
					r.send(packet(0xc0))
					r.expect(0xd0, 0)
				}
				r.send(publish(0x32, devTopic, 1, "1"))
				r.expect(0x40, 2, 0, 1)
				if _, err := r.r.ReadByte(); err == nil {
					t.Fatal("not closed")
				}
				if took := time.Since(start); took != c.want {
					t.Errorf("cut after %v", took)
				}
				w.settled()
				if w.endings(causeExpired) != 1 {
					t.Errorf("log:\n%s", w.logs)
				}
			})
		})
	}
}

func TestAMessageAfterTheTokensExpiryIsNotTaken(t *testing.T) {
	clock := time.Now()
	w, r, _ := oneDevice(t, func(c *Config) { c.Now = func() time.Time { return clock } })
	r.send(packet(0xc0))
	r.expect(0xd0, 0)
	clock = clock.Add(time.Hour) // the wall clock was set; the timer knows nothing of it
	r.send(publish(0x32, devTopic, 1, "1"))
	r.expectClosed()
	w.settled()
	if len(w.sink.records(t)) != 0 || w.endings(causeExpired) != 1 {
		t.Errorf("log:\n%s", w.logs)
	}
}

func TestADeviceThatFallsSilentIsDropped(t *testing.T) {
	for name, c := range map[string]struct {
		keepAlive uint16
		want      time.Duration
	}{
		"its keep-alive":                    {60, 90 * time.Second},
		"none":                              {0, 1765 * time.Second},
		"one that would wrap around 16 bit": {43691, 1765 * time.Second},
		"the longest":                       {65535, 1765 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				key := newKey()
				w.ensure("dev", key, 1)
				h := w.greet("dev", key)
				h.keepAlive = c.keepAlive
				r := w.login(h, 0)
				r.SetDeadline(time.Time{})
				start := time.Now()
				if _, err := r.r.ReadByte(); err == nil {
					t.Fatal("not closed")
				}
				if took := time.Since(start); took != c.want {
					t.Errorf("dropped after %v", took)
				}
			})
		})
	}
}

func TestCloseFinishesTheMessageAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, key := oneDevice(t, nil)
		w.ensure("idle", key, 1)
		h := w.greet("idle", key)
		h.flags, h.will = 0x04, [2]string{"devices/idle/messages/events/", "no will on shutdown"}
		idle, greeting := w.login(h, 0), w.dial()
		writing, goOn := make(chan struct{}), make(chan struct{})
		w.sink.fail = func() error { close(writing); <-goOn; return nil }
		r.send(publish(0x32, devTopic, 1, "1"))
		<-writing
		closed := make(chan error)
		go func() { closed <- w.Close(context.Background()) }()
		idle.expectClosed()
		greeting.expectClosed() // one that had not yet said who it is
		synctest.Wait()
		select {
		case err := <-closed:
			t.Fatalf("closed (%v) while a message was being written", err)
		default:
		}
		close(goOn)
		r.expect(0x40, 2, 0, 1)
		r.expectClosed()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := <-w.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if n := len(w.sink.records(t)); n != 1 {
			t.Errorf("%d records", n)
		}
		if err := w.Serve(w.pipe); err != nil {
			t.Errorf("Serve after Close: %v", err)
		}
		if err := w.Close(context.Background()); err != nil {
			t.Errorf("closing again: %v", err)
		}
	})
}

func TestCloseDoesNotWaitForeverForADeviceThatReadsNothing(t *testing.T) {
	w, stalled, _ := oneDevice(t, nil)
	stalled.send(packet(0xc0)) // nobody reads the answer
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAHubThatWasNeverServedCanBeClosed(t *testing.T) {
	h, err := New(Config{Identities: newMemory(t), Sealer: newSealer(t), Names: scopeOf, Telemetry: &lines{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	if err := h.Serve(l); err != nil {
		t.Error(err)
	}
	<-l.closed
}

// A device that renews its SAS token too late is cut off when the old one ends, and finds all that waited for it when it is back.
func TestATokenThatIsRenewedLateCostsNoMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, key := listening(t, messageFilter+"\x00"+desiredChanges, nil)
		r.SetDeadline(time.Time{})
		w.sendTo("dev", "before")
		r.expectMessage(false, "before")
		for range 3 { // it is not silent
			time.Sleep(20*time.Minute - time.Second)
			r.send(packet(0xc0))
			r.expect(0xd0, 0)
		}
		time.Sleep(10 * time.Second)
		r.expectClosed()
		w.settled()
		if w.endings(causeExpired) != 1 {
			t.Fatalf("log:\n%s", w.logs)
		}
		late := w.greet("dev", key)
		late.password = token(t, key, testHub+"/devices/dev", time.Now().Add(-time.Second))
		w.refusedWith(late, 5)
		err := w.SendMessage(t.Context(), testScope, registration.HubMessage{Hub: testHub, DeviceID: "dev", ID: "meanwhile", Body: []byte("meanwhile"), Expires: time.Now().Add(48 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		again := w.login(w.greet("dev", key), 1)
		again.puback(again.expectMessage(false, "meanwhile")) // the other has expired by now
		again.expectNothing()
	})
}
