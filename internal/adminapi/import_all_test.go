package adminapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/adminapi"
	"latchkey.example/latchkey/internal/registration"
)

func TestAllLinesAreWrittenOrNone(t *testing.T) {
	h := newHouse(t)
	h.create("there")
	body := short("a") + short("there") + short("b") + "nonsense\n" + short("A")
	for _, query := range []string{"?atomic=true", "?atomic=true&dryRun=true"} {
		want := adminapi.ImportSummary{Read: 5, Failed: 3, Withheld: 2, DryRun: strings.Contains(query, "dryRun")}
		if failed := h.bring(query, ndjson, body, want); failed != "2 there 409201\n4  400004\n5 A 409201\n" {
			t.Errorf("%s: failed %q", query, failed)
		}
		if got := h.exportedIDs(); got != "there" {
			t.Fatalf("%s: there is %q", query, got)
		}
	}
	body = short("a") + short("there") + short("A")
	h.bring("?atomic=true&ifExists=replace&dryRun=true", ndjson, body, adminapi.ImportSummary{Read: 3, Created: 1, Replaced: 2, DryRun: true})
	h.bring("?atomic=true&ifExists=skip", ndjson, body, adminapi.ImportSummary{Read: 3, Created: 1, Skipped: 2})
	h.bring("?atomic=true&ifExists=replace", ndjson, short("new")+body+short("NEW"), adminapi.ImportSummary{Read: 5, Created: 1, Replaced: 4})
	log := h.ask("GET", "/latchkey/v1/audit?object=new", "", as(owner)).want(200).body
	if strings.Count(log, `"before":null`) != 1 || strings.Count(log, `"before":{`) != 1 {
		t.Errorf("each line has its audit row: %s", log)
	}
}

func TestADryRunSeesTwoLinesOfOneID(t *testing.T) {
	h := newHouse(t)
	body := short("a") + numberedLines(0, 1200) + short("A")
	if failed := h.bring("?dryRun=true", ndjson, body, adminapi.ImportSummary{Read: 1202, Created: 1201, Failed: 1, DryRun: true}); failed != "1202 A 409201\n" {
		t.Errorf("failed %q", failed)
	}
	h.bring("?dryRun=true&ifExists=skip", ndjson, body, adminapi.ImportSummary{Read: 1202, Created: 1201, Skipped: 1, DryRun: true})
	h.bring("?dryRun=true&ifExists=replace", ndjson, body, adminapi.ImportSummary{Read: 1202, Created: 1201, Replaced: 1, DryRun: true})
}

func TestTooManyLinesForAllOrNothingAreRefusedWhole(t *testing.T) {
	h := newHouse(t)
	h.ask("POST", importPath+"?atomic=true", numberedLines(0, registration.MaxAtomic+1), as(owner), "Content-Type", ndjson).refused(dps.CodeTooLarge).says("Leave atomic out")
	if got := h.export(""); got != "" {
		t.Error("something was imported")
	}
	h.bring("?atomic=true", ndjson, numberedLines(0, registration.MaxAtomic), adminapi.ImportSummary{Read: registration.MaxAtomic, Created: registration.MaxAtomic})
}

// longLines are n lines of about 90 KB.
func longLines(name string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"registrationId":"%s-%d","optionalDeviceInformation":{"x":%q},"attestation":{"type":"tpm","tpm":{"endorsementKey":%q}}}`+"\n", name, i, strings.Repeat("x", 90_000), b64(chip.EK.Bytes()))
	}
	return b.String()
}

// What waits for the last line is in memory, so all of it together is bounded.
func TestAllOrNothingImportsHaveTheirRoomInMemory(t *testing.T) {
	h := newHouse(t)
	h.ask("POST", importPath+"?atomic=true", longLines("over", 187), as(owner), "Content-Type", ndjson).refused(dps.CodeTooLarge).says("at most 16 MB")
	body, feed := io.Pipe()
	done := h.beginSummary("?atomic=true", body)
	_, err := io.WriteString(feed, longLines("first", 100))
	must(t, err)
	var second answer
	h.until("there is no room for both", func() bool {
		second = h.ask("POST", importPath+"?atomic=true&dryRun=true", longLines("second", 90), as(owner), "Content-Type", ndjson)
		return second.status == http.StatusTooManyRequests
	})
	if second.refused(dps.CodeTooManyRequests).says("no room for both").header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	h.bring("", ndjson, short("small"), adminapi.ImportSummary{Read: 1, Created: 1}) // who writes as it comes needs no room
	must(t, feed.Close())
	if got := <-done; got != (adminapi.ImportSummary{Read: 100, Created: 100}) {
		t.Errorf("%+v", got)
	}
	for range 2 { // each gives its room back, the refused ones too
		h.bring("?atomic=true&dryRun=true", ndjson, longLines("third", 180), adminapi.ImportSummary{Read: 180, Created: 180, DryRun: true})
	}
	if over, second := h.count("over-"), h.count("second-"); over+second != 0 {
		t.Errorf("%d and %d lines of refused imports are there", over, second)
	}
}

// beginSummary begins an import whose summary comes later.
func (h *house) beginSummary(query string, body io.Reader) <-chan adminapi.ImportSummary {
	done := make(chan adminapi.ImportSummary, 1)
	go func() {
		var summary adminapi.ImportSummary
		response, err := h.begin(query, body)
		if err == nil {
			err = json.NewDecoder(response.Body).Decode(&summary)
			response.Body.Close()
		}
		if err != nil {
			h.t.Error(err)
		}
		done <- summary
	}()
	return done
}

// there counts the enrollments beside the API, which may be closed.
func (h *house) there() int {
	h.t.Helper()
	rows, err := h.store.Enrollments(h.t.Context(), scope, "", 1000)
	must(h.t, err)
	return len(rows)
}

// until waits for another goroutine, with a bound.
func (h *house) until(what string, is func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(deadline) {
			h.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestAnAllOrNothingImportThatIsCutOffWritesNothing(t *testing.T) {
	h := newHouse(t)
	body, feed := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if response, err := h.begin("?atomic=true", body); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	}()
	_, err := io.WriteString(feed, numberedLines(0, 600)+short("cut")[:40])
	must(t, err)
	feed.CloseWithError(io.ErrUnexpectedEOF) // the client dies in the middle of a line
	<-ended
	h.server.Close() // when this is over the service has ended it too
	if n := h.there(); n != 0 {
		t.Errorf("%d of the lines are there", n)
	}
}

// A client that is still sending may lose the answer with its connection; whatever it hears, nothing is there.
func TestAnAllOrNothingImportThatTheServiceStopsWritesNothing(t *testing.T) {
	var got adminapi.ImportSummary
	for try := 0; got.Incomplete == ""; try++ {
		if try == 50 {
			t.Fatal("no client heard how it ended")
		}
		h := newHouse(t)
		body, feed := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			if response, err := h.begin("?atomic=true", body); err == nil {
				_ = json.NewDecoder(response.Body).Decode(&got)
				response.Body.Close()
			}
		}()
		_, err := io.WriteString(feed, numberedLines(0, 600))
		must(t, err)
		h.shared.Drain()
		<-done
		feed.Close()
		h.server.Close()
		if n := h.there(); n != 0 {
			t.Fatalf("%d of the lines are there", n)
		}
	}
	if got.Read != 0 || !strings.Contains(got.Incomplete, "service stops") || !strings.Contains(got.Incomplete, "Nothing was written") {
		t.Errorf("%+v", got)
	}
}

// The answer to an import whose lines are written as they come says what is there; the same again completes it.
func TestAnImportThatTheServiceStopsSaysHowFarItCame(t *testing.T) {
	h := newHouse(t)
	body, feed := io.Pipe()
	done := h.beginSummary("", body)
	_, err := io.WriteString(feed, numberedLines(0, 500))
	must(t, err)
	h.until("a batch is written", func() bool { return h.there() == 500 })
	h.shared.Drain()
	got := <-done
	feed.Close()
	want := adminapi.ImportSummary{Read: 500, Created: 500, Incomplete: got.Incomplete}
	if got != want || !strings.Contains(got.Incomplete, "service stops") || !strings.Contains(got.Incomplete, "ifExists=skip") {
		t.Errorf("%+v", got)
	}
}

// The key that an import began with is judged again before each batch.
func TestAnImportEndsWithItsKey(t *testing.T) {
	h := newHouse(t)
	body, feed := io.Pipe()
	done := h.beginSummary("", body)
	_, err := io.WriteString(feed, numberedLines(0, 600))
	must(t, err)
	h.until("a batch is written", func() bool { return h.there() >= 500 }) // so the key has let it in
	h.config(http.MethodPost, "/"+owner+"/regenerate", `{"key":"primary"}`).want(200)
	_, err = io.WriteString(feed, numberedLines(600, 1700))
	if err == nil {
		feed.Close()
	}
	got := <-done
	if got.Created < 500 || got.Created >= 1700 || !strings.Contains(got.Incomplete, "access policy") || !strings.Contains(got.Incomplete, "ifExists=skip") {
		t.Errorf("%+v", got)
	}
}

// All-or-nothing imports are judged again before they write: these two have read all their lines when the key goes.
func TestAnAllOrNothingImportEndsWithItsKey(t *testing.T) {
	h := newHouse(t)
	var feeds []*io.PipeWriter
	var done []<-chan adminapi.ImportSummary
	for range 2 {
		body, feed := io.Pipe()
		feeds, done = append(feeds, feed), append(done, h.beginSummary("?atomic=true", body))
		_, err := io.WriteString(feed, numberedLines(0, 600))
		must(t, err)
	}
	h.until("both are let in", func() bool {
		return h.ask("POST", importPath+"?dryRun=true", "", as(owner), "Content-Type", ndjson).status == http.StatusTooManyRequests
	})
	h.config(http.MethodPost, "/"+owner+"/regenerate", `{"key":"primary"}`).want(200)
	for i, feed := range feeds {
		feed.Close()
		if got := <-done[i]; got.Read != 0 || !strings.Contains(got.Incomplete, "access policy") || !strings.Contains(got.Incomplete, "Nothing was written") {
			t.Errorf("%+v", got)
		}
	}
	if n := h.there(); n != 0 {
		t.Errorf("%d of the lines are there", n)
	}
}
