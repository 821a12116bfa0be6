package web_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/web"
)

// Bodies are read before the gate, so whoever announces large ones and stalls could fill the memory. Beyond a budget for the whole
// process large bodies are refused; those of devices are small and always get in.
func TestLargeBodiesHaveABudgetAndSmallOnesDoNotNeedIt(t *testing.T) {
	limits := web.DefaultLimits
	limits.Body = time.Minute // longer than the test: what stalls, stalls
	h := newHouse(t, limits)
	addr := h.listen(route(true))
	stall := func() *raw {
		t.Helper()
		c := dial(t, addr)
		c.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", dps.MaxMessage)
		return c
	}
	for range web.BodyBudget / dps.MaxMessage {
		stall()
	}
	refused := func(head string) bool {
		t.Helper()
		c := dial(t, addr)
		c.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n%s", head)
		answer, err := http.ReadResponse(c.r, nil)
		must(t, err)
		return answer.StatusCode == http.StatusTooManyRequests
	}
	// The stalled requests reach the server in their own time, and one that came while a probe was being read was refused itself: stall and
	// probe until the budget is used up.
	for tries := 0; !refused("Content-Length: 90000\r\n\r\n" + strings.Repeat(" ", 90000)); tries++ {
		if tries > 2000 {
			t.Fatal("large bodies have no budget")
		}
		stall()
	}
	if !refused("Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n") {
		t.Error("a body of unknown length has no budget")
	}
	// Who is refused and sends no more does not keep the connection.
	limits.Body = time.Second
	h.shared.Set(limits)
	c := stall()
	answer, err := io.ReadAll(c.r)
	if err != nil || !strings.Contains(string(answer), "HTTP/1.1 429 ") {
		t.Errorf("a refused and stalled request got %q and then %v", answer, err)
	}
	if refused("Content-Length: 2\r\n\r\n{}") {
		t.Error("a small body was refused")
	}
}
