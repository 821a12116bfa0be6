package embedded

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnlyMQTT311IsSpoken(t *testing.T) {
	for name, packet := range map[string][]byte{
		"3.1":                                   packet(0x10, text("MQIsdp"), []byte{3, 2, 0, 60}, text("dev")),
		"5":                                     packet(0x10, text("MQTT"), []byte{5, 2, 0, 60, 0}, text("dev")),
		"5 with properties that cannot be read": packet(0x10, text("MQTT"), []byte{5, 2, 0, 60, 0xff, 0xff}, text("dev")),
		"6":                                     packet(0x10, text("MQTT"), []byte{6, 2, 0, 60}, text("dev")),
		"3.1 under the new name":                packet(0x10, text("MQTT"), []byte{3, 2, 0, 60}, text("dev")),
		"bridge":                                packet(0x10, text("MQTT"), []byte{0x84, 2, 0, 60}, text("dev")),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			r := w.dial()
			r.send(packet)
			r.expect(0x20, 2, 0, 1)
			r.expectClosed()
			w.settled()
			if w.endings(causeLevel) != 1 {
				t.Errorf("log:\n%s", w.logs)
			}
		})
	}
}

func TestWhatIsNotAConnectIsClosedWithoutAnAnswer(t *testing.T) {
	head := func(flags byte) []byte { return append(text("MQTT"), 4, flags, 0, 60) }
	for name, c := range map[string]struct {
		packet []byte
		why    cause
	}{
		"HTTP":                        {[]byte("GET / HTTP/1.1\r\n\r\n"), causeMalformed},
		"AMQP":                        {[]byte("AMQP\x03\x01\x00\x00"), causeMalformed},
		"PINGREQ first":               {packet(0xc0), causeMalformed},
		"PUBLISH first":               {publish(0x30, devTopic, 0, "1"), causeMalformed},
		"CONNECT with flags":          {packet(0x11, head(2), text("dev")), causeMalformed},
		"other protocol":              {packet(0x10, text("MQTTX"), []byte{4, 2, 0, 60}, text("dev")), causeMalformed},
		"reserved flag":               {packet(0x10, head(3), text("dev")), causeMalformed},
		"password without user":       {packet(0x10, head(0x42), text("dev"), text("x")), causeMalformed},
		"will QoS without will":       {packet(0x10, head(0x0a), text("dev")), causeMalformed},
		"will QoS 3":                  {packet(0x10, head(0x1e), text("dev")), causeMalformed},
		"empty":                       {packet(0x10), causeMalformed},
		"only the header":             {packet(0x10, head(0xc2)), causeMalformed},
		"a string longer than it all": {packet(0x10, head(0xc2), []byte{0xff, 0xff, 'd'}), causeMalformed},
		"client id not UTF-8":         {packet(0x10, head(0xc2), text("\xff"), text("u"), text("p")), causeMalformed},
		"user name missing":           {packet(0x10, head(0xc2), text("dev")), causeMalformed},
		"password missing":            {packet(0x10, head(0xc2), text("dev"), text("u")), causeMalformed},
		"too large":                   {[]byte{0x10, 0x81, 0x40}, causeTooLarge},
		"largest length":              {[]byte{0x10, 0xff, 0xff, 0xff, 0x7f}, causeTooLarge},
		"endless length":              {[]byte{0x10, 0x80, 0x80, 0x80, 0x80}, causeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			r := w.dial()
			go r.Write(c.packet)
			r.expectClosed()
			w.settled()
			if w.endings(c.why) != 1 {
				t.Errorf("log:\n%s", w.logs)
			}
		})
	}
}

func TestALargestConnectIsTaken(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	h := w.greet("dev", key)
	h.flags, h.will = 0x04, [2]string{devTopic, ""}
	h.will[1] = strings.Repeat("w", maxConnect-len(h.packet())+3) // without the fixed header
	w.login(h, 0)
}

func TestAConnectMustComeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		silent, slow := w.dial(), w.dial()
		slow.send(w.greet("dev", newKey()).packet()[:20])
		start := time.Now()
		for _, r := range []*raw{silent, slow} {
			r.SetDeadline(time.Time{})
			r.expectClosed()
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("closed after %v", took)
		}
		w.settled()
		if w.endings(causeSlow) != 2 {
			t.Errorf("log:\n%s", w.logs)
		}
	})
}

func TestStrangersHaveABoundOfTheirOwn(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Connections: 100, Pending: 2} })
	key := newKey()
	w.ensure("dev", key, 1)
	session := w.login(w.greet("dev", key), 0)
	one, two := w.dial(), w.dial()
	w.dial().expectClosed() // the third connection that has not said who it is
	session.send(packet(0xc0))
	session.expect(0xd0, 0)
	for _, r := range []*raw{one, two, session} {
		r.Close()
	}
	w.settled()
	if n := w.endings(causeTooMany); n != 1 {
		t.Errorf("%d counted", n)
	}
	w.login(w.greet("dev", key), 1)
	if n := metric(t, w.metrics.connections); n != 1 {
		t.Errorf("%v connections counted", n)
	}
	if n := metric(t, w.metrics.sessions); n != 1 {
		t.Errorf("%v sessions counted", n)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Connections: 2, Pending: 100} })
	key := newKey()
	sessions := map[string]*raw{}
	for _, id := range []string{"a", "b"} {
		w.ensure(id, key, 1)
		sessions[id] = w.login(w.greet(id, key), 0)
	}
	w.dial().expectClosed()
	sessions["a"].Close()
	sessions["b"].send(packet(0xc0))
	sessions["b"].expect(0xd0, 0)
	sessions["b"].Close()
	w.settled()
	w.login(w.greet("a", key), 1)
}

func TestAFloodOfStrangersFillsNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		for range 200 {
			w.refusedWith(w.greet("dev", newKey()), 5)
		}
		w.settled()
		if n := strings.Count(w.logs.String(), "hub: refused"); n != burstLines {
			t.Errorf("%d lines", n)
		}
		time.Sleep(time.Second)
		w.refusedWith(w.greet("dev", newKey()), 5)
		w.settled()
		mustContain(t, w.logs.String(), `"suppressed":180`)
	})
}

func TestAPanicEndsOneConnection(t *testing.T) {
	w, r, key := oneDevice(t, nil)
	bystanderKey := newKey()
	w.ensure("bystander", bystanderKey, 1)
	bystander := w.login(w.greet("bystander", bystanderKey), 0)
	boom := func() error { panic("boom") }
	w.sink.fail = boom
	r.send(publish(0x32, devTopic, 1, "1"))
	r.expectClosed()
	w.sink.fail = nil
	bystander.send(publish(0x32, "devices/bystander/messages/events/", 1, "1"))
	bystander.expect(0x40, 2, 0, 1)
	again := w.login(w.greet("dev", key), 0) // nothing is inherited from it
	again.send(publish(0x32, devTopic, 1, "1"))
	again.expect(0x40, 2, 0, 1)
	if n := metric(t, w.metrics.panics); n != 1 {
		t.Errorf("%v panics counted", n)
	}
	mustContain(t, w.logs.String(), `"panic":"boom"`)
}

func TestAPanicDuringLoginLeavesTheDeviceUnlocked(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey()
	w.ensure("dev", key, 1)
	for opens := 1; opens <= 2; opens++ { // before the device's lock is taken, and while it is held
		w.sealer.panicIn(opens)
		r := w.dial()
		r.send(w.greet("dev", key).packet())
		r.expectClosed()
	}
	w.settled()
	if n := w.endings(causePanic); n != 2 {
		t.Errorf("%d panics counted", n)
	}
	w.login(w.greet("dev", key), 0)
}

// failing is a listener that first fails as told.
type failing struct {
	*pipeListener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, err
	}
	return f.pipeListener.Accept()
}

func TestAcceptingGoesOnAfterAShortage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		ended := make(chan error)
		l := &failing{&pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}, []error{syscall.EMFILE, syscall.ENFILE}}
		go func() { ended <- w.Serve(l) }()
		ours, theirs := net.Pipe()
		l.conns <- theirs
		ours.Close()
		broken := errors.New("broken")
		if err := w.Serve(&failing{l.pipeListener, []error{broken}}); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		w.shut()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAnExhaustedHostIsRecognised(t *testing.T) {
	for err, want := range map[error]bool{&net.OpError{Err: syscall.EMFILE}: true, net.ErrClosed: false, &net.OpError{Err: syscall.EINVAL}: false} {
		if isExhausted(err) != want {
			t.Errorf("%v", err)
		}
	}
}

func TestAPeerThatDoesNotSpeakTLSIsDropped(t *testing.T) {
	w := newWorld(t, nil)
	addr, _ := w.serveTLS()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write(hello{clientID: "dev"}.packet()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for {
		if _, err = nc.Read(buf); err != nil {
			break
		}
	}
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Fatal("still open")
	}
	w.settled()
	if w.endings(causeTLS) != 1 {
		t.Errorf("log:\n%s", w.logs)
	}
}

// TestATLSPeerThatReadsNothingHoldsUpNobody fills the sockets' buffers until the hub is stuck writing, then has the device log
// in again and get another key.
func TestATLSPeerThatReadsNothingHoldsUpNobody(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.WriteDeadline = time.Hour })
	key := newKey()
	w.ensure("dev", key, 1)
	addr, trust := w.serveTLS()
	connect := func() *raw {
		nc, err := tls.Dial("tcp", addr, trust)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.NetConn().Close() })
		nc.SetDeadline(time.Now().Add(patience))
		return newRaw(t, nc)
	}
	stall := func(r *raw) {
		stuck := make(chan struct{})
		go func() {
			defer close(stuck)
			pings := []byte(strings.Repeat(string(packet(0xc0)), 4096))
			for {
				r.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
				if _, err := r.Write(pings); err != nil {
					return // the hub takes no more: it is stuck
				}
			}
		}()
		<-stuck
	}
	first := connect()
	first.send(w.greet("dev", key).packet())
	first.expect(0x20, 2, 0, 0)
	stall(first)
	start := time.Now()
	second := connect()
	second.send(w.greet("dev", key).packet())
	second.expect(0x20, 2, 1, 0)
	stall(second)
	w.ensure("dev", newKey(), 2)
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestNothingIsLeftRunningAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine of the bubble outlives it
		w, r, _ := oneDevice(t, nil)
		r.send(packet(0xe0))
		r.expectClosed()
		w.dial()
	})
}
