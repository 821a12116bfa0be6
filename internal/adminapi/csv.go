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

// guard makes a cell harmless to spreadsheets with a ' before it, which they do not show. A cell that begins with ' itself gets one more, so
// that unguard gives back what there was.
func guard(cell string) string {
	if cell != "" && strings.IndexByte(formulaStarts+"'", cell[0]) >= 0 {
		return "'" + cell
	}
	return cell
}

// unguard undoes guard, and leaves cells that guard never makes as they are.
func unguard(cell string) string {
	if len(cell) > 1 && cell[0] == '\'' && strings.IndexByte(formulaStarts+"'", cell[1]) >= 0 {
		return cell[1:]
	}
	return cell
}

// table reads the records of an import by the names of its columns.
type table struct{ columns []string }

// readHeader takes the columns in any order. Its errors are fit for the public.
func readHeader(line []byte) (table, error) {
	columns, err := record(bytes.TrimPrefix(line, []byte("\ufeff"))) // which spreadsheets put first
	if err != nil {
		return table{}, err
	}
	names := strings.Join(dps.ImportFieldNames, ", ")
	for i, name := range columns {
		if !slices.Contains(dps.ImportFieldNames, name) {
			return table{}, fmt.Errorf("column %d is none of: %s", i+1, names)
		}
		if slices.Contains(columns[:i], name) {
			return table{}, fmt.Errorf("the column %s is there twice", name)
		}
	}
	if !slices.Contains(columns, "endorsementKey") {
		return table{}, errors.New("the column endorsementKey is missing; the first line names the columns, of: " + names)
	}
	return table{columns}, nil
}

func (t table) read(line []byte) (dps.IndividualEnrollment, error) {
	cells, err := record(line)
	if err != nil {
		return dps.IndividualEnrollment{}, err
	}
	if len(cells) != len(t.columns) {
		return dps.IndividualEnrollment{}, fmt.Errorf("the line has %d cells, the first line names %d columns", len(cells), len(t.columns))
	}
	var fields dps.ImportFields
	for i, name := range t.columns {
		*fields.Field(name) = unguard(cells[i])
	}
	return fields.Enrollment()
}

// record splits a line into its cells.
func record(line []byte) ([]string, error) {
	if !utf8.Valid(line) {
		return nil, errors.New("the line is not valid UTF-8")
	}
	cells, err := csv.NewReader(bytes.NewReader(line)).Read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the line is empty")
	case err != nil:
		return nil, errors.New("the line is not CSV: a quoted cell ends on its line, and a quote inside it is doubled")
	}
	return cells, nil
}

// writeRecord writes the short form of an enrollment as one line.
func writeRecord(w *csv.Writer, e dps.IndividualEnrollment) error {
	fields := dps.ImportFieldsOf(e)
	cells := make([]string, len(dps.ImportFieldNames))
	for i, name := range dps.ImportFieldNames {
		cells[i] = guard(*fields.Field(name))
	}
	return w.Write(cells)
}
