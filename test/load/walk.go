package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
)

const pageSize = 100

// walker asks a query of all enrollments page by page, and begins anew after the last.
type walker struct {
	service *rig.Service
	client  *http.Client
	after   string // continuation token; empty: from the first
	rows    int    // on the page read last
}

func newWalker(s *rig.Service) *walker { return &walker{service: s, client: s.Client()} }

func (w *walker) next() error {
	connection, err := dps.ParseConnectionString(w.service.ConnectionString)
	if err != nil {
		return err
	}
	token, err := dps.NewToken(connection.Signer(), connection.HostName, time.Now().Add(time.Hour), connection.SharedAccessKeyName)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, w.service.URL("/enrollments/query?api-version=2021-10-01"), bytes.NewBufferString(`{"query":"SELECT * FROM enrollments"}`))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("x-ms-max-item-count", fmt.Sprint(pageSize))
	if w.after != "" {
		request.Header.Set("x-ms-continuation", w.after)
	}
	answer, err := w.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return fmt.Errorf("query: %s, %w: %.300s", answer.Status, err, body)
	}
	var page []json.RawMessage
	if err := json.Unmarshal(body, &page); err != nil {
		return err
	}
	w.rows, w.after = len(page), answer.Header.Get("x-ms-continuation")
	return nil
}

// walk is a whole list, read.
type walk struct {
	rows, pages int
	first, last time.Duration // the median of the first and of the last pages
}

// edge is how many pages at either end are looked at.
const edge = 50

func walkAll(ctx context.Context, s *rig.Service) (walk, error) {
	w := newWalker(s)
	var seen walk
	var times []time.Duration
	for ctx.Err() == nil {
		began := time.Now()
		if err := w.next(); err != nil {
			return seen, err
		}
		times = append(times, time.Since(began))
		seen.rows += w.rows
		if w.after == "" {
			seen.pages = len(times)
			n := min(edge, len(times))
			seen.first, seen.last = median(times[:n]), median(times[len(times)-n:])
			return seen, nil
		}
	}
	return seen, ctx.Err()
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2].Round(100 * time.Microsecond)
}

func (w walk) String() string {
	return fmt.Sprintf("%d of at most %d rows, %d rows; the median of the first %d took %v, of the last %v", w.pages, pageSize, w.rows, edge, w.first, w.last)
}
