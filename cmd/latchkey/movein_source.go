package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/dps"
)

// patientClient waits and asks again where a service says that it has too much to do, or does not answer.
type patientClient struct {
	client  *client
	reached atomic.Bool // it has answered: a failure to reach it may pass
}

// Bounds of patience: so many times, so long at a time.
const (
	patientTries   = 8
	unreachedTries = 3 // where there is no answer at all
	patientWait    = time.Minute
)

func (p *patientClient) call(ctx context.Context, method, path string, query url.Values, header http.Header, body []byte) ([]byte, http.Header, error) {
	wait := 500 * time.Millisecond
	for try := 1; ; try++ {
		data, got, err := p.client.exchange(ctx, method, path, query, header, body)
		var no *refused
		answered := err == nil || errors.As(err, &no)
		if answered {
			p.reached.Store(true)
		}
		if err == nil || !passes(err) || try == patientTries || ctx.Err() != nil || !p.reached.Load() || !answered && try == unreachedTries {
			return data, got, err
		}
		pause := wait
		if no != nil && no.retryAfter >= 0 {
			pause = no.retryAfter
		}
		timer := time.NewTimer(min(pause, patientWait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, nil, ctx.Err()
		case <-timer.C:
		}
		wait *= 2
	}
}

// retryAfter reads the header of an answer, seconds; negative if there is none.
func retryAfter(header http.Header) time.Duration {
	seconds, err := strconv.ParseUint(header.Get("Retry-After"), 10, 16)
	if err != nil {
		return -1
	}
	return time.Duration(seconds) * time.Second
}

// serviceSource reads a service of the imitated kind.
type serviceSource struct {
	from       *patientClient
	skipStates bool
}

const movePage = "100"

func (s serviceSource) each(ctx context.Context, report *moveReport, do func(sourceEntry) error) error {
	for _, group := range []bool{false, true} {
		if err := s.pages(ctx, report, group, do); err != nil {
			return fmt.Errorf("reading the source: %w", err)
		}
	}
	return nil
}

func (s serviceSource) pages(ctx context.Context, report *moveReport, group bool, do func(sourceEntry) error) error {
	header := http.Header{"X-Ms-Max-Item-Count": {movePage}}
	path := "/enrollments"
	if group {
		path = "/enrollmentGroups"
	}
	for seen := map[string]bool{}; ; {
		answer, got, err := s.from.call(ctx, http.MethodPost, path+"/query", versioned(), header, []byte(`{"query":"SELECT * FROM `+path[1:]+`"}`))
		if err != nil {
			return err
		}
		var page []json.RawMessage
		if err := json.Unmarshal(answer, &page); err != nil {
			return fmt.Errorf("its answer to a query is no list: %w", err)
		}
		for _, item := range page {
			entry, err := s.entry(ctx, report, group, item)
			if err == nil {
				err = do(entry)
			}
			if err != nil {
				return err
			}
		}
		next := got.Get("x-ms-continuation")
		switch {
		case next == "":
			return nil
		case seen[next]:
			return errors.New("it gives the same continuation twice: the list would never end")
		}
		seen[next] = true
		header.Set("x-ms-continuation", next)
	}
}

// entry completes an item of a list with what lists do not show.
func (s serviceSource) entry(ctx context.Context, report *moveReport, group bool, item json.RawMessage) (sourceEntry, error) {
	e, mechanism := identify(item)
	if e.err != nil {
		return e, nil
	}
	e.group = group
	path := "/enrollments/" + url.PathEscape(e.id)
	if group {
		path = "/enrollmentGroups/" + url.PathEscape(e.id)
	}
	if mechanism == dps.AttestationSymmetricKey {
		keys, _, err := s.from.call(ctx, http.MethodPost, path+"/attestationmechanism", versioned(), nil, nil)
		if given, fatal := s.given(err); fatal != nil {
			return e, fatal
		} else if given != nil {
			e.err = fmt.Errorf("the source does not give its keys (%w): use a connection string whose access policy has EnrollmentWrite", given)
			return e, nil
		}
		if e.body, err = withMember(item, "attestation", keys); err != nil {
			e.err = err
			return e, nil
		}
	}
	return e, s.states(ctx, report, path, &e)
}

// given tells a refusal of one entry from a failure of the whole source.
func (serviceSource) given(err error) (refusal, fatal error) {
	var no *refused
	if errors.As(err, &no) && !passes(err) {
		return errors.New(strings.TrimSuffix(no.body.Message, ".")), nil
	}
	return nil, err
}

// states reads what has registered: of a device its device id, of a group how many.
func (s serviceSource) states(ctx context.Context, report *moveReport, path string, e *sourceEntry) error {
	if s.skipStates {
		return nil
	}
	if e.group {
		return s.countStates(ctx, report, e.id)
	}
	data, _, err := s.from.call(ctx, http.MethodGet, path, versioned(), nil, nil)
	var no *refused
	if errors.As(err, &no) && no.status == http.StatusNotFound {
		return nil // deleted since it was listed
	} else if err != nil {
		return err // without its state an entry could lose its device id
	}
	var read struct{ RegistrationState *dps.RegistrationState }
	if json.Unmarshal(data, &read) == nil {
		e.state = read.RegistrationState
	}
	return nil
}

func (s serviceSource) countStates(ctx context.Context, report *moveReport, group string) error {
	header := http.Header{"X-Ms-Max-Item-Count": {movePage}}
	for seen := map[string]bool{}; ; {
		answer, got, err := s.from.call(ctx, http.MethodPost, "/registrations/"+url.PathEscape(group)+"/query", versioned(), header, nil)
		if refusal, fatal := s.given(err); fatal != nil {
			return fatal
		} else if refusal != nil {
			report.note("the source does not show the registrations of its groups: " + refusal.Error())
			return nil
		}
		var page []json.RawMessage
		if err := json.Unmarshal(answer, &page); err != nil {
			return fmt.Errorf("its answer to a query is no list: %w", err)
		}
		if len(page) > 0 {
			report.mu.Lock()
			report.Groups[group] += len(page)
			report.mu.Unlock()
		}
		next := got.Get("x-ms-continuation")
		if next == "" || seen[next] {
			return nil
		}
		seen[next] = true
		header.Set("x-ms-continuation", next)
	}
}

// identify reads what an entry is called and how it proves itself.
func identify(item json.RawMessage) (e sourceEntry, mechanism string) {
	var head struct {
		RegistrationID, EnrollmentGroupID string
		Attestation                       struct{ Type string }
		RegistrationState                 *dps.RegistrationState
	}
	err := json.Unmarshal(item, &head)
	e = sourceEntry{group: head.EnrollmentGroupID != "", id: head.RegistrationID + head.EnrollmentGroupID, body: item, state: head.RegistrationState}
	switch {
	case err != nil:
		e.err = errors.New("it is not the JSON of an enrollment or a group")
	case !dps.ValidRegistrationID(e.id):
		e.err = errors.New("its id is none that a service can have")
	}
	return e, head.Attestation.Type
}

// withMember gives an object with one member replaced.
func withMember(object json.RawMessage, name string, value json.RawMessage) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, err
	}
	members[name] = value
	return json.Marshal(members)
}

// fileSource reads a file: a JSON array, or one object a line, of enrollments and groups, or an export.
type fileSource struct{ in io.Reader }

// maxFileEntry bounds one entry of a file.
const maxFileEntry = 256 << 10

func (s fileSource) each(_ context.Context, report *moveReport, do func(sourceEntry) error) error {
	in := bufio.NewReaderSize(s.in, 64<<10)
	first, err := firstByte(in)
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	} else if err != nil {
		return err
	}
	if first == '[' {
		return eachOfArray(in, do)
	}
	if begin, _ := in.Peek(len(exportMark)); bytes.Equal(begin, exportMark) {
		return exportSource{s.in, report}.each(do)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxFileEntry)
	n := 1
	for ; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if err := do(ofFile(bytes.Clone(line), fmt.Sprint("line ", n))); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("reading the file, line %d: %w", n, errLongEntry)
	case err != nil:
		return fmt.Errorf("reading the file: %w", err)
	}
	return nil
}

var errLongEntry = fmt.Errorf("it is longer than %d bytes, which no entry is", maxFileEntry)

// allowance reads on as long as there is some left, so that a decoder that looks for the end of a value does not take all memory for it.
type allowance struct {
	in   io.Reader
	left int
}

func (a *allowance) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, errLongEntry
	}
	n, err := a.in.Read(p[:min(len(p), a.left)])
	a.left -= n
	return n, err
}

// hidesKeys says whether an entry is an answer of a service, with an etag or dates of its own, whose keys were left out.
func hidesKeys(item json.RawMessage) bool {
	var entry struct {
		ETag, CreatedDateTimeUtc string
		Attestation              struct {
			SymmetricKey struct{ PrimaryKey, SecondaryKey string }
		}
	}
	if json.Unmarshal(item, &entry) != nil {
		return false
	}
	keys := entry.Attestation.SymmetricKey
	return keys.PrimaryKey+keys.SecondaryKey == "" && entry.ETag+entry.CreatedDateTimeUtc != ""
}

func firstByte(in *bufio.Reader) (byte, error) {
	for {
		b, err := in.ReadByte()
		if err != nil {
			return 0, err
		}
		if !bytes.ContainsRune([]byte(" \t\r\n\ufeff"), rune(b)) && b != 0xef && b != 0xbb && b != 0xbf {
			return b, in.UnreadByte()
		}
	}
}

func eachOfArray(in io.Reader, do func(sourceEntry) error) error {
	bounded := &allowance{in: in, left: maxFileEntry}
	decoder := json.NewDecoder(bounded)
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("reading the file: %w", err)
	}
	for n := 1; decoder.More(); n++ {
		bounded.left = 2 * maxFileEntry // for an entry, and the space around it
		var item json.RawMessage
		err := decoder.Decode(&item)
		if err == nil && len(item) > maxFileEntry {
			err = errLongEntry
		}
		if err != nil {
			return fmt.Errorf("reading the file, entry %d: %w", n, err)
		}
		bounded.left = maxFileEntry
		if err := do(ofFile(item, fmt.Sprint("entry ", n))); err != nil {
			return err
		}
	}
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("reading the file: its array does not end: %w", err)
	}
	return nil
}

func ofFile(item json.RawMessage, place string) sourceEntry {
	e, mechanism := identify(item)
	if e.err == nil && mechanism == dps.AttestationSymmetricKey && hidesKeys(item) {
		e.err = errors.New("the file does not hold its symmetric keys, as answers of a service hide them; new ones would shut its devices out. Move from the service itself (--from), or from an export with --secrets")
	}
	if e.id == "" {
		e.id = place
	}
	return e
}
