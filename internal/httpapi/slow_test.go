package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/web"
)

func TestASlowBodyIsRefusedInTimeAndChangesNothing(t *testing.T) {
	limits := web.DefaultLimits
	limits.Body = 50 * time.Millisecond
	s := &stage{house: newHouse(t, limits)}
	for name, head := range map[string]string{"announced": "Content-Length: 1000\r\n\r\n{", "in chunks": "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			before := s.snapshot()
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			must(t, err)
			defer conn.Close()
			must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
			_, err = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n%s", registerPath("enrolled"), head)
			must(t, err)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			body, err := io.ReadAll(response.Body)
			must(t, err)
			if !response.Close {
				t.Error("the connection stays open though its request never ended")
			}
			s.judge(t, refusal{code: dps.CodeTimeout, reason: "slow-body"}, answer{t, registerPath("enrolled"), response.StatusCode, response.Header, string(body)})
			unchanged(t, before, s.snapshot())
		})
	}
}

// The names of headers as they stand on the wire: C# looks some up in lower case.
func TestTheServicesOwnHeadersAreInLowerCaseOnTheWire(t *testing.T) {
	h := newHouse(t, web.DefaultLimits)
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", registerPath("nobody"))
	must(t, err)
	text, err := io.ReadAll(conn)
	must(t, err)
	for _, name := range []string{"\r\nx-ms-request-id: ", "\r\nx-ms-error-code: 400004\r\n", "\r\nContent-Length: ", "\r\nContent-Type: application/json; charset=utf-8\r\n"} {
		if strings.Count(string(text), name) != 1 {
			t.Errorf("%q is not there once:\n%s", name, text)
		}
	}
	if strings.Contains(string(text), "Transfer-Encoding") {
		t.Errorf("a chunked answer:\n%s", text)
	}
}
