package adminapi

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"latchkey.example/latchkey/dps"
)

// Tables, as RFC 4180 has them but for one rule: a record is one line, so that the number of a line says where it is and memory is bounded by it.
// No cell of a good enrollment has a line's end in it.

// formulaStarts are the first characters for which a spreadsheet may take a cell for a formula.
const formulaStarts = "=+-@\t\r"

// guard makes a cell harmless to spreadsheets with a ' before it: one that they could take for a formula, or for a number, a date or a truth and
// save as they would write that. A cell that begins with ' itself gets one more, so that unguard gives back what there was.
func guard(cell string) string {
	if cell != "" && (strings.IndexByte(formulaStarts+"'", cell[0]) >= 0 || mistaken(cell)) {
		return "'" + cell
	}
	return cell
}

// unguard undoes guard, and leaves cells that guard never makes as they are.
func unguard(cell string) string {
	if rest, found := strings.CutPrefix(cell, "'"); found && guard(rest) == cell {
		return rest
	}
	return cell
}

// dateWords are the letters that numbers, dates and times may have; the longer ones first.
var dateWords = strings.NewReplacer("january", "", "february", "", "march", "", "april", "", "june", "", "july", "", "august", "", "september", "", "october", "",
	"november", "", "december", "", "jan", "", "feb", "", "mar", "", "apr", "", "may", "", "jun", "", "jul", "", "aug", "", "sept", "", "sep", "", "oct", "", "nov", "", "dec", "",
	"am", "", "pm", "")

// mistaken says whether a spreadsheet could take a text for something else: 007, 1e5, 2-3, mar-1, true.
func mistaken(cell string) bool {
	if len(cell) > 64 {
		return false
	}
	cell = strings.ToLower(cell)
	if cell == "true" || cell == "false" {
		return true
	}
	if !strings.ContainsAny(cell, "0123456789") {
		return false
	}
	return strings.Trim(dateWords.Replace(cell), "0123456789.,:/ e+-%$") == ""
}

// table reads the records of an import by the names of its columns.
type table struct {
	comma   rune // what parts cells: a comma, or what the spreadsheets of some countries write for it
	columns []string
}

// needed are the columns of which one must be there.
var needed = []string{"endorsementKey", "primaryThumbprint", "attestation"}

// readHeader takes the columns in any order. Its errors are fit for the public.
func readHeader(line []byte) (table, error) {
	if bytes.HasPrefix(line, []byte("\xff\xfe")) || bytes.HasPrefix(line, []byte("\xfe\xff")) {
		return table{}, errors.New("the file is UTF-16; save it as CSV in UTF-8")
	}
	line = bytes.TrimPrefix(line, []byte("\ufeff")) // which spreadsheets put first
	t := table{comma: ','}
	if bytes.IndexByte(line, ',') < 0 && bytes.IndexByte(line, ';') >= 0 {
		t.comma = ';'
	}
	var err error
	if t.columns, err = t.record(line); err != nil {
		return table{}, err
	}
	names := strings.Join(dps.ImportColumns, ", ")
	for i, name := range t.columns {
		if !slices.Contains(dps.ImportColumns, name) {
			return table{}, fmt.Errorf("column %d is none of: %s", i+1, names)
		}
		if slices.Contains(t.columns[:i], name) {
			return table{}, fmt.Errorf("the column %s is there twice", name)
		}
	}
	if !slices.ContainsFunc(t.columns, func(name string) bool { return slices.Contains(needed, name) }) {
		return table{}, errors.New("none of the columns " + strings.Join(needed, ", ") + " is there; the first line names the columns, of: " + names)
	}
	return t, nil
}

func (t table) read(line []byte) (dps.ImportEntry, error) {
	cells, err := t.record(line)
	if err != nil {
		return dps.ImportEntry{}, err
	}
	if len(cells) != len(t.columns) {
		return dps.ImportEntry{}, fmt.Errorf("the line has %d cells, the first line names %d columns", len(cells), len(t.columns))
	}
	row := make(dps.ImportRow, len(cells))
	for i, name := range t.columns {
		row[name] = unguard(cells[i])
	}
	return row.Entry()
}

// record splits a line into its cells.
func (t table) record(line []byte) ([]string, error) {
	if !utf8.Valid(line) {
		return nil, errors.New("the line is not valid UTF-8")
	}
	reader := csv.NewReader(bytes.NewReader(line))
	reader.Comma = t.comma
	cells, err := reader.Read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the line is empty")
	case err != nil:
		return nil, errors.New("the line is not CSV: a quoted cell ends on its line, and a quote inside it is doubled")
	}
	return cells, nil
}

// plainColumns hold words that a spreadsheet may take for what they are.
var plainColumns = []string{"iotEdge", "updateHubAssignment", "migrateDeviceData"}

// writeRecord writes an enrollment as one line.
func writeRecord(w *csv.Writer, e dps.IndividualEnrollment) error {
	row, err := dps.ImportRowOf(e)
	if err != nil {
		return err
	}
	cells := make([]string, len(dps.ImportColumns))
	for i, name := range dps.ImportColumns {
		if cells[i] = row[name]; !slices.Contains(plainColumns, name) {
			cells[i] = guard(row[name])
		}
	}
	return w.Write(cells)
}
