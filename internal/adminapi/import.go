package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// Bounds of what is in memory of an import: lines that wait to be written together.
const (
	importBatch = registration.MaxPuts
	importBytes = 1 << 20
	importTime  = 20 * time.Second // for one batch in the store

	// Of all-or-nothing imports: what all of them together may have in memory, and what a line takes beside its bytes.
	atomicBytes    = 16 << 20
	atomicLineCost = 512
	atomicRetry    = 10 * time.Second // about how long one of them is sent
)

const linesType = "application/x-ndjson"

// ImportFailure is one line of the answer to an import: why a line of it was not taken.
type ImportFailure struct {
	Line           uint64 `json:"line"` // from 1; in CSV the first names the columns
	RegistrationID string `json:"registrationId,omitempty"`
	ErrorCode      int    `json:"errorCode"`
	Message        string `json:"message"`
}

// ImportSummary is the last line of the answer to an import.
type ImportSummary struct {
	Read       uint64 `json:"read"` // lines with an outcome
	Created    uint64 `json:"created"`
	Replaced   uint64 `json:"replaced"`
	Skipped    uint64 `json:"skipped"`
	Failed     uint64 `json:"failed"`
	Withheld   uint64 `json:"withheld,omitempty"` // good lines of an all-or-nothing import that was not written
	DryRun     bool   `json:"dryRun"`
	Incomplete string `json:"incomplete,omitempty"` // why it ended before its last line
}

var importParameters = []string{"atomic", "dryRun", "ifExists", "api-version"}

var ifExists = map[string]registration.IfExists{"": registration.RefuseExisting, "error": registration.RefuseExisting,
	"skip": registration.SkipExisting, "replace": registration.ReplaceExisting}

// importEnrollments judges the request; its lines are read while the answer is made.
func (a *API) importEnrollments(_ context.Context, call web.Call, by registration.Caller) (web.Reply, error) {
	asked := call.URL.Query() // judged before
	mode, known := ifExists[asked.Get("ifExists")]
	dryRun, dryKnown := truth(asked.Get("dryRun"))
	atomic, atomicKnown := truth(asked.Get("atomic"))
	if !known || !dryKnown || !atomicKnown {
		return web.Reply{}, a.core.Fault(by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "ifExists must be error, skip or replace, and dryRun and atomic true or false.", nil)
	}
	media, _, err := mime.ParseMediaType(call.Header.Get("Content-Type"))
	if err != nil || media != linesType && media != "text/csv" {
		return web.Reply{}, a.core.Fault(by.Scope, dps.CodeUnsupportedMediaType, registration.ReasonContentType, "The content type must be application/x-ndjson or text/csv.", err)
	}
	i := &importing{api: a, by: by, mode: mode, csv: media == "text/csv", atomic: atomic, summary: ImportSummary{DryRun: dryRun}, trial: registration.NewTrial(),
		authorize: a.again(call, registration.EnrollmentWrite)}
	return web.Reply{Status: http.StatusOK, Header: map[string]string{"Content-Type": linesType}, Stream: i.run}, nil
}

// truth reads a parameter that is false when it is absent.
func truth(text string) (value, known bool) {
	return text == "true", text == "" || text == "true" || text == "false"
}

// importing is one import under way.
type importing struct {
	api  *API
	by   registration.Caller
	mode registration.IfExists
	csv  bool

	atomic    bool // all lines wait until the last has come
	held      int64
	authorize func() error
	trial     *registration.Trial

	stream  *web.Stream
	summary ImportSummary
	out     *json.Encoder
	numbers []uint64 // of the lines that wait
	waiting []registration.ImportLine
	bytes   int // of them
}

// run reads to the end of the body. What it wrote stays written, however it ends: the last line of the answer says how far it came.
func (i *importing) run(ctx context.Context, stream *web.Stream) error {
	defer func() { i.api.atomic.Release(i.held) }()
	i.stream, i.out = stream, json.NewEncoder(stream)
	i.out.SetEscapeHTML(false)
	in := newLines(stream)
	decode := dps.DecodeImport
	if i.csv {
		line, err := in.next()
		var columns table
		if err == nil {
			columns, err = readHeader(line)
		} else if errors.Is(err, io.EOF) {
			err = errors.New("it is missing")
		}
		if err != nil {
			return i.api.core.Fault(i.by.Scope, dps.CodeBadRequest, registration.ReasonBadRequest, "The first line: "+headerRefusal(err)+".", err)
		}
		decode = columns.read
	}
	end := i.lines(ctx, in, decode)
	var tooMuch *registration.Fault
	switch {
	case errors.As(end, &tooMuch) && i.atomic: // nothing of the answer has left
		return end
	case i.atomic && end != nil:
	case !errors.Is(end, errStore) && !errors.Is(end, errRevoked) && !errors.Is(end, web.ErrGone): // lines that came whole count, also before a break
		end = errors.Join(end, i.flush(ctx))
	}
	switch {
	case errors.Is(end, web.ErrGone):
		return end
	case end != nil:
		i.summary.Incomplete = i.incomplete(end)
	}
	return i.out.Encode(i.summary)
}

// What ends an import early, beside its client.
var (
	errStore   = errors.New("the store failed")              // it gave no answer for a batch
	errRevoked = errors.New("the token is not good anymore") // its access policy was changed
	errDrain   = errors.New("the service stops")
)

// lines takes lines until there are no more.
func (i *importing) lines(ctx context.Context, in *lines, decode func([]byte) (dps.ImportEntry, error)) error {
	for {
		line, err := in.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && i.stream.Draining():
			return errDrain
		case err != nil && !errors.Is(err, errLongLine):
			return err
		case err == nil && len(bytes.TrimSpace(line)) == 0:
			continue
		}
		var entry dps.ImportEntry
		if err == nil {
			entry, err = decode(line)
		}
		i.numbers = append(i.numbers, in.number)
		i.waiting = append(i.waiting, registration.ImportLine{Enrollment: entry.IndividualEnrollment, KeysWithheld: entry.KeysWithheld, Err: err})
		i.bytes += len(line)
		if err := i.wait(ctx, len(line)); err != nil {
			return err
		}
	}
}

// wait keeps a line for later, unless there are enough to write.
func (i *importing) wait(ctx context.Context, size int) error {
	if i.atomic {
		return i.hold(int64(size) + atomicLineCost)
	}
	if len(i.waiting) < importBatch && i.bytes <= importBytes {
		return nil
	}
	if err := i.flush(ctx); err != nil {
		return err
	}
	if i.stream.Draining() {
		return errDrain
	}
	return nil
}

// hold bounds what all-or-nothing imports keep.
func (i *importing) hold(size int64) error {
	refuse := func(code dps.Code, reason registration.Reason, text string) *registration.Fault {
		return i.api.core.Fault(i.by.Scope, code, reason, text+" Nothing was written.", nil)
	}
	switch {
	case len(i.waiting) > registration.MaxAtomic:
		return refuse(dps.CodeTooLarge, registration.ReasonBadRequest, fmt.Sprintf("An all-or-nothing import takes at most %d lines. Leave atomic out to import any number.", registration.MaxAtomic))
	case i.held+size > atomicBytes:
		return refuse(dps.CodeTooLarge, registration.ReasonBadRequest, fmt.Sprintf("An all-or-nothing import takes at most %d MB. Leave atomic out to import any amount.", atomicBytes>>20))
	case !i.api.atomic.TryAcquire(size):
		fault := refuse(dps.CodeTooManyRequests, registration.ReasonOverload, "Another all-or-nothing import is under way, and there is no room for both. Try again later, or leave atomic out.")
		fault.RetryAfter = atomicRetry
		return fault
	}
	i.held += size
	return nil
}

// flush writes what waits and tells what failed.
func (i *importing) flush(ctx context.Context) error {
	if len(i.waiting) == 0 {
		return nil
	}
	if err := i.authorize(); err != nil {
		return errRevoked
	}
	ctx, cancel := context.WithTimeout(ctx, importTime)
	defer cancel()
	for n, line := range i.waiting { // what is wrong with a line is for whoever sent it
		var field *dps.FieldError
		if line.Err != nil && !errors.As(line.Err, &field) {
			i.waiting[n].Err = i.api.core.Fault(i.by.Scope, dps.CodeBadRequest, registration.ReasonBadEnrollment, line.Err.Error(), nil)
		}
	}
	results, err := i.write(ctx)
	if err != nil {
		err = errors.Join(errStore, err)
	}
	for n, result := range results {
		if tell := i.count(i.numbers[n], result); tell != nil {
			return errors.Join(err, tell)
		}
	}
	i.numbers, i.waiting, i.bytes = i.numbers[:0], i.waiting[:0], 0
	return err
}

func (i *importing) write(ctx context.Context) ([]registration.Imported, error) {
	core := i.api.core
	switch {
	case i.atomic:
		return core.ImportAll(ctx, i.by, i.mode, i.summary.DryRun, i.waiting)
	case i.summary.DryRun:
		return core.TryImport(ctx, i.by, i.mode, i.trial, i.waiting)
	}
	return core.Import(ctx, i.by, i.mode, i.waiting)
}

func (i *importing) count(line uint64, result registration.Imported) error {
	if result.Outcome == registration.ImportUnknown {
		return nil
	}
	i.summary.Read++
	switch result.Outcome {
	case registration.ImportCreated:
		i.summary.Created++
	case registration.ImportReplaced:
		i.summary.Replaced++
	case registration.ImportSkipped:
		i.summary.Skipped++
	case registration.ImportWithheld:
		i.summary.Withheld++
	case registration.ImportFailed:
		i.summary.Failed++
		return i.out.Encode(ImportFailure{line, result.RegistrationID, int(result.Code), result.Message})
	}
	return nil
}

// incomplete is what the client is told of the end of an import before its last line.
func (i *importing) incomplete(err error) string {
	again := " Import the same again with ifExists=skip."
	if i.atomic {
		again = " Nothing was written. Import the same again."
	}
	var timeout net.Error
	switch {
	case errors.Is(err, errRevoked):
		return "The access policy or its key was changed, and the token is not good anymore." + again
	case errors.Is(err, errStore) && i.atomic:
		return "The service cannot write now; all lines are written or none. Import the same again later with ifExists=skip."
	case errors.Is(err, errStore):
		return "The service cannot write now." + again
	case errors.Is(err, errDrain):
		return "The service stops, or starts anew." + again
	case errors.As(err, &timeout) && timeout.Timeout():
		return "No line came in time." + again
	}
	return "The body was cut off." + again
}

// headerRefusal keeps what is inside a broken connection inside.
func headerRefusal(err error) string {
	var inside net.Error
	if errors.As(err, &inside) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it did not come"
	}
	return err.Error()
}
