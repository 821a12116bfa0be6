package web_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// streaming is a route whose answer is made by f.
func streaming(f func(context.Context, *web.Stream) error) web.Route {
	return web.Route{Operation: "test", Scope: scope, StreamsBody: true, Handle: func(context.Context, web.Call) (web.Reply, error) {
		return web.Reply{Status: http.StatusOK, Header: map[string]string{"Content-Type": "text/x-lines"}, TrackingID: "t", Reason: registration.ReasonManaged, Stream: f}, nil
	}}
}

func TestAStreamsAnswerBeginsBeforeItsBodyEnds(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	c := dial(t, h.listen(streaming(func(_ context.Context, s *web.Stream) error {
		letter := make([]byte, 1)
		for {
			if _, err := io.ReadFull(s, letter); err != nil {
				return nil
			}
			s.Progress()
			if _, err := s.Write(bytes.Repeat(letter, 200<<10)); err != nil {
				return err
			}
		}
	})))
	c.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
	first := make([]byte, 1000)
	_, err := io.ReadFull(c.r, first) // while the body goes on
	must(t, err)
	if !strings.HasPrefix(string(first), "HTTP/1.1 200 OK\r\n") || !strings.Contains(string(first), "text/x-lines") || !strings.Contains(string(first), "\r\nx-ms-request-id: t\r\n") {
		t.Errorf("the answer begins %q", first)
	}
	c.say("1\r\nb\r\n0\r\n\r\n")
	rest, err := io.ReadAll(c.r)
	must(t, err)
	if n := bytes.Count(rest, []byte("b")); n < 200<<10 || !bytes.HasSuffix(rest, []byte("\r\n0\r\n\r\n")) {
		t.Errorf("%d letters, the end is %q", n, rest[max(0, len(rest)-20):])
	}
	h.oneLine("managed")
}

// oneLine judges what is written down once the connection has ended.
func (h *house) oneLine(reason string) {
	h.t.Helper()
	if n, lines := h.counted(reason), len(h.log.requests(reason)); n != 1 || lines != 1 {
		h.t.Errorf("%s: %v counted, %d lines; want one of each", reason, n, lines)
	}
}

func TestAStreamThatFailsBeforeItsAnswerIsRefusedLikeOthers(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	for name, fail := range map[string]func(context.Context, *web.Stream) error{
		"error": func(context.Context, *web.Stream) error { return errors.New("inside") },
		"panic": func(context.Context, *web.Stream) error { panic("inside") },
	} {
		w := h.serve(t.Context(), streaming(fail))
		if answer := refusal(t, w.Body.Bytes()); w.Code != 500 || answer.ErrorCode != 500001 || strings.Contains(w.Body.String(), "inside") {
			t.Errorf("%s: status %d, %s", name, w.Code, w.Body)
		}
	}
	if n := h.counted("internal"); n != 2 {
		t.Errorf("%v counted", n)
	}
}

// What was sent must not look whole.
func TestAStreamThatFailsInTheMiddleIsCutOff(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	c := dial(t, h.listen(streaming(func(_ context.Context, s *web.Stream) error {
		_, _ = s.Write(make([]byte, 100<<10))
		return errors.New("inside")
	})))
	c.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
	text, err := io.ReadAll(c.r)
	if bytes.HasSuffix(text, []byte("0\r\n\r\n")) {
		t.Errorf("%d bytes with an end, %v", len(text), err)
	}
	h.oneLine("internal")
}

func TestStreamsHaveFewPlacesAndGiveThemBack(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	h.bubble(t, web.DefaultLimits, func(t *testing.T) {
		hold := make(chan struct{})
		answers := make(chan int, web.StreamPlaces)
		for range web.StreamPlaces {
			go func() {
				answers <- h.serve(context.Background(), streaming(func(context.Context, *web.Stream) error { <-hold; return nil })).Code
			}()
		}
		synctest.Wait()
		quick := streaming(func(context.Context, *web.Stream) error { return nil })
		overloaded(t, h.serve(t.Context(), quick))
		if w := h.serve(t.Context(), route(false)); w.Code != 200 {
			t.Errorf("streams hold places of others: status %d", w.Code)
		}
		close(hold)
		for range web.StreamPlaces {
			if code := <-answers; code != 200 {
				t.Errorf("status %d", code)
			}
		}
		h.serve(t.Context(), streaming(func(context.Context, *web.Stream) error { panic("inside") }))
		for range web.StreamPlaces + 1 {
			if w := h.serve(t.Context(), quick); w.Code != 200 {
				t.Errorf("a place was not given back: status %d", w.Code)
			}
		}
	})
}

// deadlines is a recorder that notes the deadlines it is given.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = t; return nil }
func (d *deadlines) EnableFullDuplex() error            { return nil }

func TestDeadlinesMoveOnWithProgressOnly(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	h.bubble(t, web.DefaultLimits, func(t *testing.T) {
		d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		began := time.Now()
		wait := func(seconds int, read, write int) {
			t.Helper()
			if r, w := d.read.Sub(began), d.write.Sub(began); int(r.Seconds()) != read || write != 0 && int(w.Seconds()) != write {
				t.Errorf("after %s: read by %s, written by %s; want %d and %d", time.Since(began), r, w, read, write)
			}
			<-time.After(time.Duration(seconds) * time.Second) // of the bubble's clock
		}
		request := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("lines"))
		h.server.Serve(d, request, streaming(func(_ context.Context, s *web.Stream) error {
			wait(20, 30, 0)
			_, _ = s.Read(make([]byte, 1)) // a byte is no line
			wait(5, 30, 0)
			s.Progress()
			wait(100, 55, 0)
			_, err := s.Write(make([]byte, 100<<10))
			wait(0, 55, 155)
			return err
		}))
		if d.Code != 200 {
			t.Error(fmt.Sprint(d.Code, d.Body))
		}
	})
}
