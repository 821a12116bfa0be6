package embedded

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// WebSocketPath is where devices speak MQTT over WebSocket (MQTT 3.1.1, 6), on the HTTPS port: the path of the imitated hub. Its query
// (iothub-no-client-cert=true) asks that no client certificate be asked for, which nobody is made to show.
const WebSocketPath = "/$iothub/websocket"

// subprotocols as devices spell them; the specification knows the first.
var subprotocols = []string{"mqtt", "MQTT"}

// upgrader takes little memory for each connection: the MQTT library has a reading buffer of its own, and writing buffers are lent for one write.
// Where the page lies that a browser shows does not matter: nobody is let in by what a browser adds by itself.
var upgrader = websocket.Upgrader{
	HandshakeTimeout: 10 * time.Second,
	ReadBufferSize:   512,
	WriteBufferSize:  1 << 10,
	WriteBufferPool:  &sync.Pool{},
	Subprotocols:     subprotocols,
	CheckOrigin:      func(*http.Request) bool { return true },
	Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
		refuseUpgrade(w, status, "This is no WebSocket handshake that can be answered: "+reason.Error()+".")
	},
}

// WebSocket makes a connection of the hub of an HTTPS request, whose TLS handshake is over; whoever it serves for has matched the path. From then on the
// connection is like one that Serve has accepted: the same deadlines, limits and end.
func (h *Hub) WebSocket(w http.ResponseWriter, r *http.Request) {
	switch {
	case !h.config.Serve:
		refuseUpgrade(w, http.StatusServiceUnavailable, "This node does not serve the hub (hub.serve is false here): connect to the node that does.")
	case h.base.Err() != nil:
		refuseUpgrade(w, http.StatusServiceUnavailable, "The hub stops: connect again.")
	case !websocket.IsWebSocketUpgrade(r):
		w.Header().Set("Upgrade", "websocket")
		refuseUpgrade(w, http.StatusUpgradeRequired, "Devices speak MQTT over WebSocket here: begin with a WebSocket handshake (GET over HTTP/1.1, Upgrade: websocket).")
	case !slices.ContainsFunc(websocket.Subprotocols(r), func(p string) bool { return slices.Contains(subprotocols, p) }):
		refuseUpgrade(w, http.StatusBadRequest, "The hub speaks MQTT 3.1.1 over WebSocket: ask for it with Sec-WebSocket-Protocol: mqtt.")
	default:
		h.upgrade(w, r)
	}
}

func (h *Hub) upgrade(w http.ResponseWriter, r *http.Request) {
	if err := h.begin(); err != nil {
		h.log.Error("hub: starting", "error", err)
		refuseUpgrade(w, http.StatusServiceUnavailable, "The hub cannot be served.")
		return
	}
	frames, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // answered, or lost
	}
	h.accept(newWebSocket(frames, h.config.Limits))
}

// newWebSocket answers pings within the time of any other write. Who does not take the answer is not read on.
func newWebSocket(frames *websocket.Conn, limits Limits) *webSocket {
	frames.SetPingHandler(func(data string) error {
		err := frames.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(limits.WriteDeadline))
		if errors.Is(err, websocket.ErrCloseSent) {
			return nil
		}
		return err
	})
	return &webSocket{Conn: frames.NetConn(), frames: frames}
}

func refuseUpgrade(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, sentence+"\n")
}

// errFraming says that what came was no WebSocket frame, or not one that MQTT may use.
var errFraming = errors.New("no binary WebSocket frame")

// webSocket is the byte stream within a WebSocket: MQTT packets begin and end anywhere in its messages. One goroutine at a time reads; any may
// write.
type webSocket struct {
	net.Conn // below the frames: TLS
	frames   *websocket.Conn
	message  io.Reader // what is left of the message being read; nil between messages
	failed   error     // of reading: it stays

	writing  sync.Mutex
	deadline atomic.Int64 // of writes that begin from now on, Unix nanoseconds; 0: none
	torn     atomic.Bool  // what lies below is closed already
}

func (s *webSocket) Read(p []byte) (n int, err error) {
	for n == 0 && s.failed == nil {
		if s.message == nil {
			s.failed = s.next()
			continue
		}
		if n, err = s.message.Read(p); err == io.EOF { // it is never wrapped
			s.message = nil
		} else if err != nil {
			s.failed = readingFailed(err)
		}
	}
	if n > 0 {
		return n, nil
	}
	return 0, s.failed
}

// next waits for the next message. Text is refused as MQTT 3.1.1, 6 demands.
func (s *webSocket) next() error {
	kind, message, err := s.frames.NextReader()
	if err != nil {
		return readingFailed(err)
	}
	if kind != websocket.BinaryMessage {
		s.farewell(websocket.CloseUnsupportedData, "MQTT is sent in binary frames")
		return errFraming
	}
	s.message = message
	return nil
}

// readingFailed tells an end, and what the network did, from frames that make no sense.
func readingFailed(err error) error {
	var network net.Error
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &closed):
		return io.EOF
	case errors.As(err, &network):
		return timed(err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return err
	}
	return fmt.Errorf("%w: %w", errFraming, err)
}

// timed gives a deadline that was missed its usual name, which the library takes from it.
func timed(err error) error {
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return err
}

// Write sends one binary message.
func (s *webSocket) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	var until time.Time
	if at := s.deadline.Load(); at != 0 {
		until = time.Unix(0, at)
	}
	_ = s.frames.SetWriteDeadline(until) // it only notes it
	if err := s.frames.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, timed(err)
	}
	return len(p), nil
}

func (s *webSocket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetWriteDeadline(t), s.Conn.SetReadDeadline(t))
}

// SetWriteDeadline is for writes that begin after it: the frames have a deadline of their own.
func (s *webSocket) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		s.deadline.Store(0)
	} else {
		s.deadline.Store(t.UnixNano())
	}
	return nil
}

// farewell sends a close frame, if the peer takes it at once.
func (s *webSocket) farewell(code int, reason string) {
	if !s.torn.Load() {
		_ = s.frames.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
	}
}

func (s *webSocket) Close() error {
	s.farewell(websocket.CloseNormalClosure, "")
	return s.Conn.Close()
}

// ConnectionState is that of the TLS connection below.
func (s *webSocket) ConnectionState() (state tls.ConnectionState) {
	if secured, ok := s.Conn.(*tls.Conn); ok {
		state = secured.ConnectionState()
	}
	return state
}

// NetConn is what lies below frames and TLS. Who closes it wants no farewell.
func (s *webSocket) NetConn() net.Conn {
	if secured, ok := s.Conn.(*tls.Conn); ok {
		return lowest{secured.NetConn(), s}
	}
	return lowest{s.Conn, s}
}

type lowest struct {
	net.Conn
	above *webSocket
}

func (l lowest) Close() error {
	l.above.torn.Store(true)
	return l.Conn.Close()
}
