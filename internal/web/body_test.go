package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/web"
)

// refusal reads an error body and checks that it is whole.
func refusal(t *testing.T, body []byte) dps.ErrorBody {
	t.Helper()
	answer, err := dps.DecodeError(body)
	if err != nil || answer.TrackingID == "" || answer.Message == "" || answer.TimestampUTC == "" {
		t.Fatalf("%q is no refusal: %v", body, err)
	}
	return answer
}

// listen serves one route over a real socket.
func (h *house) listen(route web.Route) net.Addr {
	h.t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.server.Serve(w, r, route) }))
	h.t.Cleanup(server.Close)
	return server.Listener.Addr()
}

// raw is a client that says exactly what a test wants. Nothing it waits for may take longer than half a minute.
type raw struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, addr net.Addr) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(3*time.Second)))
	return &raw{t, conn, bufio.NewReader(conn)}
}

func (c *raw) say(format string, args ...any) {
	c.t.Helper()
	_, err := fmt.Fprintf(c.conn, format, args...)
	must(c.t, err)
}

// hear reads one answer.
func (c *raw) hear() (*http.Response, []byte) {
	c.t.Helper()
	response, err := http.ReadResponse(c.r, nil)
	must(c.t, err)
	body, err := io.ReadAll(response.Body)
	must(c.t, err)
	return response, body
}

// closed waits until the server has hung up.
func (c *raw) closed() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil && !strings.Contains(err.Error(), "reset") || len(rest) > 0 {
		c.t.Fatalf("the connection is still open: %q, %v", rest, err)
	}
}

var quick = web.Limits{Body: 50 * time.Millisecond, Handler: time.Minute, Concurrent: 10, Parked: 10, Wait: time.Second}

// withBody is a request's head for a body of so many bytes.
func withBody(method string, length int) string {
	return fmt.Sprintf("%s / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", method, length)
}

func TestABodyThatDoesNotArriveInTimeIsRefusedAndTheConnectionEnded(t *testing.T) {
	h := newHouse(t, quick)
	addr := h.listen(route(true))
	for _, sent := range []string{"", `{"a":`} {
		c := dial(t, addr)
		c.say("%s%s", withBody("PUT", 1000), sent)
		response, body := c.hear()
		if answer := refusal(t, body); response.StatusCode != 408 || answer.ErrorCode != 408001 || !response.Close {
			t.Errorf("status %d, close %t: %s", response.StatusCode, response.Close, body)
		}
		c.closed()
	}
	c := dial(t, addr)
	c.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n")
	if response, body := c.hear(); response.StatusCode != 408 {
		t.Errorf("in chunks: status %d: %s", response.StatusCode, body)
	}
	c.closed()
}

// A client that announces a body and never sends it must not hold a connection: there is a limit of those.
func TestABodyThatNobodyWantsDoesNotHoldTheConnection(t *testing.T) {
	h := newHouse(t, quick)
	for name, route := range map[string]web.Route{"a poll": route(false), "a wrong path": h.server.NotFound(scope, ""), "a wrong method": h.server.MethodNotAllowed(scope)} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, h.listen(route))
			c.say("%s", withBody("GET", 1000))
			response, body := c.hear()
			if !response.Close || len(body) == 0 {
				t.Errorf("close %t, body %q", response.Close, body)
			}
			c.closed()
		})
	}
}

func TestABodyThatIsAnnouncedTooLargeDoesNotHoldTheConnection(t *testing.T) {
	h := newHouse(t, quick)
	c := dial(t, h.listen(route(true)))
	c.say("%s", withBody("PUT", dps.MaxMessage+1))
	response, body := c.hear()
	if answer := refusal(t, body); response.StatusCode != 413 || answer.ErrorCode != 413001 || !response.Close {
		t.Errorf("status %d, close %t: %s", response.StatusCode, response.Close, body)
	}
	c.closed()
}

// A client that sends all of a body that is too large before it reads must find the answer, not a reset connection.
func TestTheRefusalOfALargeBodyArrives(t *testing.T) {
	limits := quick
	limits.Body = 10 * time.Second
	h := newHouse(t, limits)
	addr := h.listen(route(true))
	for _, size := range []int{dps.MaxMessage + 1, 200 << 10} {
		c := dial(t, addr)
		c.say("%s%s", withBody("PUT", size), strings.Repeat(" ", size))
		if response, body := c.hear(); response.StatusCode != 413 {
			t.Errorf("status %d: %s", response.StatusCode, body)
		}
		c.closed()
	}
}

func TestAShortBodyOfAClientThatHangsUpIsNoMessage(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	c := dial(t, h.listen(route(true)))
	c.say("%s%s", withBody("PUT", 100), "{}")
	must(t, c.conn.(*net.TCPConn).CloseWrite())
	response, body := c.hear()
	if answer := refusal(t, body); response.StatusCode != 400 || answer.ErrorCode != 400004 {
		t.Errorf("status %d: %s", response.StatusCode, body)
	}
	c.closed()
}

func TestAConnectionServesManyRequestsWithAndWithoutWantedBodies(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	for _, wants := range []bool{true, false} {
		c := dial(t, h.listen(route(wants)))
		for range 5 {
			c.say("%s{}", withBody("GET", 2))
			if response, body := c.hear(); response.StatusCode != 200 || response.Close || string(body) != "{}" {
				t.Fatalf("status %d, close %t: %s", response.StatusCode, response.Close, body)
			}
			c.say("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
			c.hear()
			c.say("GET / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
			c.hear()
		}
	}
}

// The read deadline of a body must not strike later, while the request is at work or the connection waits for the next one.
func TestTheBodysDeadlineEndsWithTheBody(t *testing.T) {
	h := newHouse(t, quick)
	patient := route(true)
	patient.Handle = func(ctx context.Context, call web.Call) (web.Reply, error) {
		select {
		case <-ctx.Done():
		case <-time.After(4 * quick.Body): // real time must pass for a deadline of the network to strike
		}
		if ctx.Err() != nil {
			t.Error("the request was cancelled by its body's deadline")
		}
		return ok(call)
	}
	c := dial(t, h.listen(patient))
	for range 2 {
		c.say("%s{}", withBody("PUT", 2))
		if response, _ := c.hear(); response.StatusCode != 200 {
			t.Errorf("status %d", response.StatusCode)
		}
	}
}

// What a client announces must cost nothing before it arrives: connections are many.
func TestAnnouncedLengthAllocatesNothing(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodPut, "/", strings.NewReader("{}"))
			r.ContentLength = dps.MaxMessage
			r.Header.Set("Content-Type", "application/json")
			h.server.Serve(httptest.NewRecorder(), r, route(true))
		}
	})
	if per := result.AllocedBytesPerOp(); per > 32<<10 {
		t.Errorf("a request that announces 96 KB and sends 2 bytes costs %d bytes", per)
	}
}

func TestAWholeMessageOf96KArrivesUnchanged(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	echo := route(true)
	var got []byte
	echo.Handle = func(_ context.Context, call web.Call) (web.Reply, error) {
		got = bytes.Clone(call.Body)
		return ok(call)
	}
	want, err := json.Marshal(strings.Repeat("x", dps.MaxMessage-2))
	must(t, err)
	for _, announced := range []int64{int64(len(want)), -1} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/", bytes.NewReader(want))
		r.ContentLength = announced
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.server.Serve(w, r, echo)
		if w.Code != 200 || !bytes.Equal(got, want) {
			t.Errorf("announced as %d: status %d, %d bytes", announced, w.Code, len(got))
		}
	}
}
