package embedded

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// errEnded is all that the MQTT library learns of a connection that was ended here.
var errEnded = errors.New("connection ended by the hub")

// conn is one connection: what the MQTT library reads from and writes to. It hands over the CONNECT packet first and then only
// packets whose headers are in order.
type conn struct {
	net.Conn
	writeDeadline time.Duration
	remote        string
	address       netip.Prefix  // of the remote, as pending counts it
	done          chan struct{} // closed when the library has let go of it and its session is settled

	// Owned by the goroutine that serves the connection.
	connect    []byte // the CONNECT packet, until the library has read it
	frames     frames
	user       string // user name as sent, for the log
	login      *login // set once admitted, never changed
	clean      bool   // the session ends with the connection
	distrusted bool   // what the library holds of its session is not to be relied on
	scolded    bool   // a refused subscription was logged

	noted  heard // what the session listens to, as the store has it
	budget budget

	cause atomic.Pointer[cause] // why it ended; the first one counts
	read  atomic.Int64          // when the device last sent something, Unix microseconds

	// Set once admitted, never changed.
	device  *device
	flights *flights // of the device

	hears   atomic.Uint32          // what it listens to, of type heard
	inbox   atomic.Pointer[string] // how it spells the device id where it listens to messages
	context context.Context
	stop    context.CancelFunc // of context; called when the connection has ended
	senders sync.WaitGroup     // whoever uses the connection beside the goroutine that serves it
	writing chan struct{}      // holds one element while a packet is written
	telling sync.Mutex         // guards told, and is held while the device is told
	told    uint64             // version of the desired properties that the device knows of; 0: it does not listen yet

	mu       sync.Mutex
	draining bool
	over     bool // no sender may begin
	sending  bool // sendNews runs
	todo     news // for sendNews
}

func newConn(ctx context.Context, nc net.Conn, limits Limits) *conn {
	c := &conn{
		Conn: nc, writeDeadline: limits.WriteDeadline, remote: nc.RemoteAddr().String(), done: make(chan struct{}),
		address: addressOf(nc.RemoteAddr()), frames: frames{maxPublish: maxPublish(limits)}, writing: make(chan struct{}, 1),
	}
	c.context, c.stop = context.WithCancel(ctx)
	return c
}

// certificate is the client certificate of the TLS connection, nil if there is none. The handshake is over when a CONNECT was read.
func (c *conn) certificate() *x509.Certificate {
	secured, ok := c.Conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil
	}
	if sent := secured.ConnectionState().PeerCertificates; len(sent) > 0 {
		return sent[0]
	}
	return nil
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.connect) > 0 {
		n := copy(p, c.connect)
		if c.connect = c.connect[n:]; len(c.connect) == 0 {
			c.connect = nil // it holds the SAS token
		}
		return n, nil
	}
	if c.frames.broken != "" {
		return 0, errEnded
	}
	n, err := c.Conn.Read(p)
	good := c.frames.check(p[:n])
	if good > 0 {
		c.read.Store(time.Now().UnixMicro())
	}
	if errors.Is(err, errFraming) {
		c.end(causeMalformed)
	}
	if c.frames.broken == "" {
		return n, err
	}
	c.end(c.frames.broken)
	if good == 0 {
		return 0, errEnded
	}
	return good, nil // packets before the bad one are still served
}

// Write writes one packet whole, or ends the connection: what follows a part of a packet would make no sense. Who writes waits for the writes before, each of
// which has a deadline of its own, that nobody puts off.
func (c *conn) Write(p []byte) (int, error) {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	c.Conn.SetWriteDeadline(time.Now().Add(c.writeDeadline))
	n, err := c.Conn.Write(p)
	if err != nil {
		why := causeLost
		if errors.Is(err, os.ErrDeadlineExceeded) {
			why = causeStalled
		}
		c.cut(why)
		return n, err
	}
	c.Conn.SetWriteDeadline(time.Time{})
	return n, nil
}

// SetDeadline is called by the library before each packet (keep-alive), and is about reading: a deadline for writing would be put off by a device that
// sends and reads nothing. A draining connection reads no further packet.
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

// lastRead is when the device last sent something; of one that has only just logged in, zero.
func (c *conn) lastRead() time.Time {
	if at := c.read.Load(); at != 0 {
		return time.UnixMicro(at).UTC()
	}
	return time.Time{}
}

// end notes why the connection ends; what was noted first stays.
func (c *conn) end(why cause) { c.cause.CompareAndSwap(nil, &why) }

func (c *conn) why() cause {
	if why := c.cause.Load(); why != nil {
		return *why
	}
	return causeLost
}

// cut tears the connection down at once. It goes below TLS, whose farewell would wait for a peer that reads nothing.
func (c *conn) cut(why cause) {
	c.end(why)
	if secured, ok := c.Conn.(interface{ NetConn() net.Conn }); ok {
		secured.NetConn().Close()
	}
	c.Conn.Close()
}

// drain lets the packet at work be finished and reads no other.
func (c *conn) drain(why cause) {
	c.end(why)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.Conn.SetReadDeadline(time.Unix(1, 0))
}
