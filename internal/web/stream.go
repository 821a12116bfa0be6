package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// Streams are answers that are made while they are sent, for minutes maybe. Each is admitted through the gate like any request, so that its
// token is judged there, then leaves the gate and takes one of few places of its own.
const (
	StreamPlaces = 2                // at once, in all APIs of a process
	StreamIdle   = 30 * time.Second // without progress of the client, one way or the other
	streamBuffer = 64 << 10         // of the answer, before anything is sent
	deadlineStep = time.Second      // how often deadlines are moved on
)

// ErrGone says that the client does not take the answer.
var ErrGone = errors.New("the client does not take the answer")

// Stream is the two ends of such a request. It belongs to one goroutine.
type Stream struct {
	body    io.Reader
	out     *bufio.Writer
	head    func() // sends the status
	control *http.ResponseController
	writes  time.Time // when the deadline was set last
	sent    bool

	mu    sync.Mutex
	reads time.Time // when the deadline was set last
	ended bool      // by a drain
}

// Read reads the body as it comes. A route that does not stream its body finds none here.
func (s *Stream) Read(p []byte) (int, error) { return s.body.Read(p) }

// Progress says that the client has sent something whole: it has StreamIdle from now on for the next.
func (s *Stream) Progress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); !s.ended && now.Sub(s.reads) > deadlineStep {
		s.reads = now
		_ = s.control.SetReadDeadline(now.Add(StreamIdle)) // unsupported only by test recorders
	}
}

// Draining says that the process is about to end: reads fail from now on, and what was read whole is to be finished within seconds.
func (s *Stream) Draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// endReading ends the reading, also a read that waits.
func (s *Stream) endReading() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	_ = s.control.SetReadDeadline(time.Unix(1, 0)) // past
}

// Write sends a part of the answer, or keeps it until there is more. Its error is ErrGone.
func (s *Stream) Write(p []byte) (int, error) { return s.out.Write(p) }

// wire is what is under the buffer.
type wire struct {
	s *Stream
	w io.Writer
}

func (w wire) Write(p []byte) (int, error) {
	s := w.s
	if !s.sent {
		s.sent = true
		s.head()
	}
	if now := time.Now(); now.Sub(s.writes) > deadlineStep {
		s.writes = now
		_ = s.control.SetWriteDeadline(now.Add(StreamIdle))
	}
	n, err := w.w.Write(p)
	if err != nil {
		return n, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return n, nil
}

// stream runs the streaming part of a reply. If sent is false, nothing of the answer has left.
func (s *Server) stream(w http.ResponseWriter, call Call, route Route, reply Reply) (sent bool, err error) {
	// The body may have more than was read, and after a status that has left this could not be said any more.
	w.Header().Set("Connection", "close")
	places := s.streams
	if reply.Live {
		places = s.shared.lives
	}
	select {
	case places <- struct{}{}:
	default:
		return false, s.overloaded(route)
	}
	defer func() { <-places }()
	stream := &Stream{body: http.NoBody, control: http.NewResponseController(w)}
	if route.StreamsBody && call.Request.Body != nil {
		stream.body = call.Request.Body
		_ = stream.control.EnableFullDuplex() // the answer begins before the body's end
		stream.Progress()
		defer s.shared.watch(stream)()
	}
	stream.head = func() { writeHead(w, reply) }
	stream.out = bufio.NewWriterSize(wire{stream, w}, streamBuffer)
	ctx := context.WithoutCancel(call.Context())
	if reply.Live {
		live, end := s.alive(call)
		defer end()
		ctx = live
	}
	err = s.runStream(ctx, stream, route, reply)
	if err == nil {
		err = stream.finish()
	}
	return stream.sent, err
}

// runStream runs the handler's part as handle does.
func (s *Server) runStream(ctx context.Context, stream *Stream, route Route, reply Reply) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.log.Error("panic", "operation", route.Operation, "cause", cause, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	return reply.Stream(ctx, stream)
}

// finish sends what is left, at least the status.
func (s *Stream) finish() error {
	if err := s.out.Flush(); err != nil {
		return err
	}
	if !s.sent {
		s.sent = true
		s.head()
	}
	return nil
}
