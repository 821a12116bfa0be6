package dps

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
)

// A whole export is a file of lines that end in "\n": a header, a line for each object, and an end that signs what is before it. The form of
// each line is exact, byte for byte, so that there is one way only to write what an export says. docs/export-format.md describes it.

// ExportFormat is the version of the format.
const ExportFormat = 1

// Kinds of objects of an export.
const (
	ExportCA           = "caCertificate"
	ExportGroup        = "enrollmentGroup"
	ExportEnrollment   = "enrollment"
	ExportRegistration = "registration"
)

// exportKinds have the member of their value that is its id. Their order is that of the lines.
var exportKinds = []struct{ name, id string }{
	{ExportCA, "name"}, {ExportGroup, groupIDName}, {ExportEnrollment, "registrationId"}, {ExportRegistration, "registrationId"},
}

// ExportKinds are the kinds in their order.
func ExportKinds() []string {
	names := make([]string, len(exportKinds))
	for i, k := range exportKinds {
		names[i] = k.name
	}
	return names
}

// ExportHeader is the first line.
type ExportHeader struct {
	LatchkeyExport int      `json:"latchkeyExport"` // ExportFormat
	IDScope        string   `json:"idScope"`
	Hosts          []string `json:"hosts"`
	Created        string   `json:"createdUtc"` // as FormatTime
	Secrets        bool     `json:"secrets"`    // with symmetric keys
	PublicKey      []byte   `json:"publicKey"`  // Ed25519, 32 bytes
}

// Encode is the line with its end.
func (h ExportHeader) Encode() []byte { return exportJSON(h) }

// ExportEnd is the last line.
type ExportEnd struct {
	Kind      string `json:"kind"`      // "end"
	Lines     uint64 `json:"lines"`     // before this one, the header included
	SHA256    string `json:"sha256"`    // of all bytes before this line, in lower-case hex
	Signature []byte `json:"signature"` // Ed25519 of ExportMessage
}

// NewExportEnd makes the end of an export.
func NewExportEnd(lines uint64, digest [sha256.Size]byte, signature []byte) ExportEnd {
	return ExportEnd{exportEnd, lines, hex.EncodeToString(digest[:]), signature}
}

// Encode is the line with its end.
func (e ExportEnd) Encode() []byte { return exportJSON(e) }

const exportEnd = "end"

func exportJSON(v any) []byte {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts, numbers and bytes always have JSON
	}
	return append(line, '\n')
}

// ExportMessage is what the signature of an export is over: the digest of all before the end line, behind a text that nothing else signed with
// such a key begins with.
func ExportMessage(digest [sha256.Size]byte) []byte {
	return append([]byte("latchkey export v1\x00"), digest[:]...)
}

// AppendExportLine appends the line of an object, its value (JSON) without white space.
func AppendExportLine(b []byte, kind string, value []byte) ([]byte, error) {
	line := bytes.NewBuffer(append(append(append(b, exportKindMark...), kind...), exportValueMark...))
	if err := json.Compact(line, value); err != nil {
		return b, err
	}
	line.WriteString("}\n")
	return line.Bytes(), nil
}

const (
	exportKindMark  = `{"kind":"`
	exportValueMark = `","value":`
)

// ExportObject is a line of an export between its first and its last.
type ExportObject struct {
	Kind  string
	Place int    // of its kind among the kinds, in the order in which they come
	ID    string // folded
	Value json.RawMessage
}

// Errors of lines that are none of an export.
var (
	ErrExportLine = errors.New("it is not the line of an object")
	ErrExportKind = errors.New("it is of a kind that this format does not have")
)

// ParseExportLine reads the line of an object, without its "\n". The value is a part of it.
func ParseExportLine(line []byte) (ExportObject, error) {
	rest, ok := bytes.CutPrefix(line, []byte(exportKindMark))
	kind, value, marked := bytes.Cut(rest, []byte(exportValueMark))
	value, closed := bytes.CutSuffix(value, []byte("}"))
	if !ok || !marked || !closed || len(value) == 0 || value[0] != '{' || !json.Valid(value) {
		return ExportObject{}, ErrExportLine
	}
	place := slices.IndexFunc(exportKinds, func(k struct{ name, id string }) bool { return k.name == string(kind) })
	if place < 0 {
		return ExportObject{}, ErrExportKind
	}
	var members map[string]json.RawMessage
	var id string
	if err := errors.Join(json.Unmarshal(value, &members), json.Unmarshal(members[exportKinds[place].id], &id)); err != nil || id == "" {
		return ExportObject{}, ErrExportLine
	}
	return ExportObject{Kind: exportKinds[place].name, Place: place, ID: FoldID(id), Value: value}, nil
}

// After says whether an object may stand behind another.
func (o ExportObject) After(before ExportObject) bool {
	return o.Place > before.Place || o.Place == before.Place && o.ID > before.ID
}

// ParseExportHeader reads the first line, with its end. A header of another version is an error with the version beside it.
func ParseExportHeader(line []byte) (ExportHeader, error) {
	var h ExportHeader
	if err := json.Unmarshal(line, &h); err != nil || h.LatchkeyExport == 0 {
		return ExportHeader{}, errors.New("it does not begin with the header of an export")
	}
	if h.LatchkeyExport != ExportFormat {
		return h, errors.New("it is of a later version of the format than this program knows")
	}
	if len(h.PublicKey) != 32 || !bytes.Equal(h.Encode(), line) {
		return h, errors.New("its header was changed")
	}
	return h, nil
}

// ParseExportEnd reads the last line, with its end; ok is false if the line is no such line at all.
func ParseExportEnd(line []byte) (end ExportEnd, ok bool, err error) {
	if !bytes.HasPrefix(line, []byte(exportKindMark+exportEnd+`"`)) {
		return ExportEnd{}, false, nil
	}
	if json.Unmarshal(line, &end) != nil || len(end.Signature) != 64 || !bytes.Equal(end.Encode(), line) {
		return ExportEnd{}, true, errors.New("its end line was changed")
	}
	return end, true, nil
}
