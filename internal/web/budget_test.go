package web_test

import (
	"fmt"
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
	// The server asks for the body of a request that expects it once its place in the budget is taken.
	stall := func(length int) {
		t.Helper()
		c := dial(t, addr)
		c.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", length)
		answer, err := http.ReadResponse(c.r, nil)
		must(t, err)
		if answer.StatusCode != http.StatusContinue {
			t.Fatalf("a body of %d bytes within the budget: status %d", length, answer.StatusCode)
		}
		c.say("{")
	}
	for range web.BodyBudget / dps.MaxMessage {
		stall(dps.MaxMessage)
	}
	stall(web.BodyBudget % dps.MaxMessage)
	refused := func(head string) bool {
		t.Helper()
		c := dial(t, addr)
		c.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n%s", head)
		answer, err := http.ReadResponse(c.r, nil)
		must(t, err)
		return answer.StatusCode == http.StatusTooManyRequests
	}
	for _, length := range []int{90_000, 5_000} {
		if !refused(fmt.Sprintf("Content-Length: %d\r\n\r\n", length) + strings.Repeat(" ", length)) {
			t.Errorf("a body of %d bytes is taken when the budget is used up", length)
		}
	}
	if !refused("Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n") {
		t.Error("a body of unknown length has no budget")
	}
	// Who is refused and sends no more does not keep the connection.
	limits.Body = time.Second
	h.shared.Set(limits)
	c := dial(t, addr)
	c.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n\r\n{")
	answer, err := io.ReadAll(c.r)
	if err != nil || !strings.Contains(string(answer), "HTTP/1.1 429 ") {
		t.Errorf("a refused and stalled request got %q and then %v", answer, err)
	}
	if refused("Content-Length: 2\r\n\r\n{}") {
		t.Error("a small body was refused")
	}
}
