package proxied

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	balancer = "192.0.2.10:4000"
	stranger = "198.51.100.1:5000"
)

// from is a connection that comes from an address.
type from struct {
	net.Conn
	remote net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.remote }

// source is a listener whose connections the test makes.
type source struct {
	conns  chan any // net.Conn or error
	closed chan struct{}
	once   sync.Once
}

func (s *source) Accept() (net.Conn, error) {
	select {
	case next := <-s.conns:
		if err, ok := next.(error); ok {
			return nil, err
		}
		return next.(net.Conn), nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *source) Close() error   { s.once.Do(func() { close(s.closed) }); return nil }
func (s *source) Addr() net.Addr { return &net.TCPAddr{} }

// connect makes a connection from an address and gives the client's end.
func (s *source) connect(address string) net.Conn {
	client, server := net.Pipe()
	s.conns <- from{server, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))}
	return client
}

// bench is a Listener under test, in a bubble of time.
type bench struct {
	*Listener
	t    *testing.T
	from *source
	log  *bytes.Buffer
}

func bubble(t *testing.T, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, from: &source{conns: make(chan any), closed: make(chan struct{})}, log: new(bytes.Buffer)}
		b.Listener = Listen(b.from, Config{From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8::/64")},
			HeaderTime: 10 * time.Second, Name: "https", Log: slog.New(slog.NewTextHandler(b.log, nil)), Metrics: NewMetrics(prometheus.NewRegistry())})
		defer b.Close() // a goroutine that stays ends the bubble with a failure
		test(b)
	})
}

// took wants a connection from Accept that comes from an address, and what it reads first.
func (b *bench) took(address, text string) net.Conn {
	b.t.Helper()
	c, err := b.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	if is := c.RemoteAddr().String(); is != address {
		b.t.Errorf("the peer is %s, want %s", is, address)
	}
	if _, ok := c.RemoteAddr().(*net.TCPAddr); !ok {
		b.t.Errorf("the peer is a %T: limits count TCP addresses", c.RemoteAddr())
	}
	read := make([]byte, len(text))
	if _, err := io.ReadFull(c, read); err != nil || string(read) != text {
		b.t.Errorf("read %q, %v, want %q", read, err, text)
	}
	return c
}

// refused counts what was refused for a reason, once all is at rest.
func (b *bench) refused(why refusal) int {
	b.t.Helper()
	synctest.Wait()
	var m dto.Metric
	if err := b.config.Metrics.refused.WithLabelValues("https", string(why)).Write(&m); err != nil {
		b.t.Fatal(err)
	}
	return int(m.GetCounter().GetValue())
}

// ended wants the client's end to be closed by the other.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is open: %d, %v", n, err)
	}
}

func send(c net.Conn, wire []byte) { go c.Write(wire) }

func hello(source string) []byte {
	family := byte(tcp4)
	if !netip.MustParseAddrPort(source).Addr().Is4() {
		family = tcp6
	}
	return append(header(commandProxy, family, addresses(source)), "hello"...)
}

func TestABalancersConnectionsAreTheirPeersAndOthersTheirOwn(t *testing.T) {
	bubble(t, func(b *bench) {
		for _, c := range []struct {
			from string
			wire []byte
			peer string
			text string
		}{
			{balancer, hello("203.0.113.9:50000"), "203.0.113.9:50000", "hello"},
			{"[2001:db8::1]:4", hello("[2001:db8:9::7]:50001"), "[2001:db8:9::7]:50001", "hello"},
			{"[::ffff:192.0.2.10]:4", hello("203.0.113.9:50000"), "203.0.113.9:50000", "hello"},
			{balancer, append(header(commandLocal, 0, nil), "hello"...), balancer, "hello"},
			{stranger, []byte("hello"), stranger, "hello"},
			{stranger, hello("203.0.113.9:50000"), stranger, signature}, // it is TLS that refuses it
			{"192.0.2.16:1", []byte("hello"), "192.0.2.16:1", "hello"},  // one beyond the network
		} {
			client := b.from.connect(c.from)
			send(client, c.wire)
			b.took(c.peer, c.text).Close()
			client.Close()
		}
	})
}

// Each is refused in its time, while others are taken.
func TestABadHeaderEndsItsConnectionAndNoOther(t *testing.T) {
	v4 := addresses("203.0.113.9:50000")
	for name, c := range map[string]struct {
		wire []byte
		want refusal
		time time.Duration
	}{
		"TLS at once":    {[]byte{0x16, 3, 1, 2, 0, 1}, refusedMissing, 0},
		"version 1":      {[]byte("PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n"), refusedMissing, 0},
		"UDP":            {header(commandProxy, 0x12, v4), refusedFamily, 0},
		"too long":       {header(commandProxy, tcp4, make([]byte, 0xffff)), refusedLong, 0},
		"nothing":        {nil, refusedSlow, 10 * time.Second},
		"a part":         {header(commandProxy, tcp4, v4)[:20], refusedSlow, 10 * time.Second},
		"all but a byte": {header(commandProxy, tcp4, append(v4, make([]byte, 4000)...))[:4027], refusedSlow, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				bad := b.from.connect(balancer)
				begin := time.Now()
				send(bad, c.wire)
				good := b.from.connect(balancer)
				send(good, hello("203.0.113.9:50000"))
				b.took("203.0.113.9:50000", "hello")
				if time.Since(begin) != 0 {
					t.Error("a good connection waited for the bad one")
				}
				ended(t, bad)
				if took := time.Since(begin); took != c.time {
					t.Errorf("it was ended after %v, want %v", took, c.time)
				}
				if b.refused(c.want) != 1 || !strings.Contains(b.log.String(), "reason="+string(c.want)+" balancer="+balancer) {
					t.Errorf("not counted and logged as %s:\n%s", c.want, b.log)
				}
			})
		})
	}
}

// A sender of one byte at a time has the time of one header for all of it.
func TestADrippingHeaderHasTheTimeOfOne(t *testing.T) {
	bubble(t, func(b *bench) {
		client := b.from.connect(balancer)
		begin := time.Now()
		go func() {
			for _, octet := range hello("203.0.113.9:50000") {
				time.Sleep(time.Second)
				if _, err := client.Write([]byte{octet}); err != nil {
					return
				}
			}
		}()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if b.refused(refusedSlow) != 1 || time.Since(begin) != 10*time.Second {
			t.Errorf("%d were refused as slow", b.refused(refusedSlow))
		}
		time.Sleep(time.Minute) // the dripper notices
	})
}

func TestTheDeadlineOfTheHeaderIsGoneBehindIt(t *testing.T) {
	bubble(t, func(b *bench) {
		client := b.from.connect(balancer)
		send(client, hello("203.0.113.9:50000"))
		c := b.took("203.0.113.9:50000", "hello")
		time.AfterFunc(time.Hour, func() { client.Write([]byte("late")) })
		if n, err := c.Read(make([]byte, 4)); n != 4 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// So many headers may be awaited; one more is refused, and a stranger who needs none is not touched.
func TestHeadersThatAreAwaitedHaveABound(t *testing.T) {
	bubble(t, func(b *bench) {
		silent := make([]net.Conn, maxPending)
		for i := range silent {
			silent[i] = b.from.connect(balancer)
		}
		oneMore := b.from.connect(balancer)
		ended(t, oneMore)
		if b.refused(refusedCrowded) != 1 {
			t.Error("not counted as too many")
		}
		direct := b.from.connect(stranger)
		send(direct, []byte("hello"))
		b.took(stranger, "hello")
		silent[7].Close()
		synctest.Wait()
		next := b.from.connect(balancer)
		send(next, hello("203.0.113.9:50000"))
		b.took("203.0.113.9:50000", "hello")
	})
}

// Headers that are whole and that nobody has accepted yet take no place.
func TestAConnectionWhosePeerIsKnownTakesNoPlaceAmongThoseAwaited(t *testing.T) {
	bubble(t, func(b *bench) {
		for range maxPending + 10 {
			send(b.from.connect(balancer), hello("203.0.113.9:50000"))
			synctest.Wait()
		}
		for range maxPending + 10 {
			b.took("203.0.113.9:50000", "hello")
		}
	})
}

func TestLogLinesOfRefusalsAreRationed(t *testing.T) {
	bubble(t, func(b *bench) {
		for range 500 {
			client := b.from.connect(balancer)
			send(client, []byte("GET / HTTP/1.1\r\n"))
			ended(t, client)
		}
		time.Sleep(time.Second)
		client := b.from.connect(balancer)
		send(client, []byte("GET / HTTP/1.1\r\n"))
		ended(t, client)
		synctest.Wait()
		if lines := strings.Count(b.log.String(), "\n"); lines != 2 || !strings.Contains(b.log.String(), "suppressed=499") || b.refused(refusedMissing) != 501 {
			t.Errorf("%d lines, %d counted:\n%s", lines, b.refused(refusedMissing), b.log)
		}
	})
}

// exploding panics when it is read, as a bug would.
type exploding struct{ net.Conn }

func (exploding) Read([]byte) (int, error) { panic("boom") }

func TestAPanicEndsOneConnection(t *testing.T) {
	bubble(t, func(b *bench) {
		client, server := net.Pipe()
		b.from.conns <- from{exploding{server}, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(balancer))}
		ended(t, client)
		next := b.from.connect(balancer)
		send(next, hello("203.0.113.9:50000"))
		b.took("203.0.113.9:50000", "hello")
		if b.refused(refusedPanic) != 1 || !strings.Contains(b.log.String(), "boom") {
			t.Errorf("not counted and logged:\n%s", b.log)
		}
		if len(b.pending) != 0 {
			t.Error("it keeps its place")
		}
	})
}

// What fails below is for the caller to judge, who goes on or ends.
func TestErrorsOfTheListenerBelowReachTheCaller(t *testing.T) {
	bubble(t, func(b *bench) {
		exhausted := errors.New("too many open files")
		go func() { b.from.conns <- exhausted }()
		if _, err := b.Accept(); err != exhausted {
			t.Errorf("%v", err)
		}
		direct := b.from.connect(stranger)
		send(direct, []byte("hello"))
		b.took(stranger, "hello")
	})
}

func TestCloseEndsWhatIsAwaitedAndLeavesWhatWasGiven(t *testing.T) {
	bubble(t, func(b *bench) {
		silent := b.from.connect(balancer)
		whole := b.from.connect(balancer) // and nobody accepts it
		given := b.from.connect(balancer)
		send(given, hello("203.0.113.9:50000"))
		c := b.took("203.0.113.9:50000", "hello")
		send(whole, hello("203.0.113.8:50000"))
		synctest.Wait()
		waiting := make(chan error)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		go func() { _, err := b.Accept(); waiting <- err }()
		if err := <-waiting; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		ended(t, silent)
		if b.refused(refusedCut) != 0 || b.log.Len() > 0 {
			t.Errorf("the end is told as a refusal: %s", b.log)
		}
		if n, err := whole.Read(make([]byte, 1)); err == nil {
			t.Errorf("what nobody accepted is open: %d", n)
		}
		send(given, []byte("still"))
		if n, err := c.Read(make([]byte, 5)); n != 5 || err != nil {
			t.Errorf("what was given is closed: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	})
}
