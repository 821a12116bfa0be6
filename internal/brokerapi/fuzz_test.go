package brokerapi_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"latchkey.example/latchkey/internal/registration"
)

// Whatever comes, with the right secret: one answer, and no yes that nobody gave. What a device has chosen reaches the decision as it is or not at all.
func FuzzQuestions(f *testing.F) {
	files, err := filepath.Glob("testdata/*.http")
	if err != nil || len(files) == 0 {
		f.Fatal("no recordings", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(f, err)
		head, body, _ := strings.Cut(string(text), "\r\n\r\n")
		product, _, _ := strings.Cut(filepath.Base(file), "-")
		first := strings.Fields(head)
		contentType := "application/json"
		if strings.Contains(strings.ToLower(head), "form-urlencoded") {
			contentType = "application/x-www-form-urlencoded"
		}
		f.Add(product, filepath.Base(first[1]), contentType, "auth_on_register", body)
	}
	f.Fuzz(func(t *testing.T, product, question, contentType, hook, body string) {
		if strings.ContainsAny(question, "/?#% \r\n\x00") || !utf8.ValidString(question) || question == "." || question == ".." {
			return
		}
		h := newHouse(t, product)
		h.hubs.why = registration.ReasonTokenSignature
		r := request(http.MethodPost, "/latchkey/v1/broker/broker.example/x", contentType, body)
		r.URL.Path = "/latchkey/v1/broker/broker.example/" + question
		r.Header.Set("vernemq-hook", hook)
		answer := h.send(r)
		if strings.HasSuffix(answer, " allow") || strings.Contains(answer, `"allow"`) || strings.Contains(answer, `"ok"}`) || strings.Contains(answer, "true") {
			t.Fatalf("%s %s: %s", product, question, answer)
		}
		if strings.Count(h.log.String(), `"msg":"request"`) != 1 || strings.Contains(h.log.String(), `"msg":"panic"`) {
			t.Fatalf("the log is %s", h.log.String())
		}
	})
}
