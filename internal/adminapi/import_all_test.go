package adminapi_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

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

// The key that an import began with is judged again before each batch.
func TestAnImportEndsWithItsKey(t *testing.T) {
	h := newHouse(t)
	body, feed := io.Pipe()
	done := make(chan adminapi.ImportSummary, 1)
	go func() {
		var summary adminapi.ImportSummary
		response, err := h.begin("", body)
		if err == nil {
			err = json.NewDecoder(response.Body).Decode(&summary)
			response.Body.Close()
		}
		if err != nil {
			t.Error(err)
		}
		done <- summary
	}()
	_, err := io.WriteString(feed, numberedLines(0, 600))
	must(t, err)
	h.config(http.MethodPost, "/"+owner+"/regenerate", `{"key":"primary"}`).want(200)
	_, err = io.WriteString(feed, numberedLines(600, 1700))
	if err == nil {
		feed.Close()
	}
	got := <-done
	if got.Created >= 1700 || !strings.Contains(got.Incomplete, "access policy") || !strings.Contains(got.Incomplete, "ifExists=skip") {
		t.Errorf("%+v", got)
	}
}
