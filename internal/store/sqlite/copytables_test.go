package sqlite

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

// notCopied says of each table, or column, that a copy leaves behind why it may.
var notCopied = map[string]string{
	"latchkey_schema": "says of this database what it is",
	"revisions":       "the last of each scope; a copy goes on behind the greatest, see Numbers",
	"hub_owner":       "who serves here",
}

// A migration that adds a table or a column must say whether a copy takes it along.
func TestACopyForgetsNoTableAndNoColumn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "latchkey.db")
	created(t, path)
	c, err := dial(path, "", sqlite3.OPEN_READWRITE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var tables []string
	err = c.each(func(r *row) { tables = append(tables, r.text()) }, `SELECT name FROM sqlite_schema WHERE type = 'table'`)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		table, err := tableOf(name)
		if _, left := notCopied[name]; left == (err == nil) {
			t.Errorf("table %s is copied and left behind, or neither", name)
		}
		if err != nil {
			continue
		}
		var copied, there []string
		for _, column := range table.columns {
			copied = append(copied, column.from)
		}
		err = c.each(func(r *row) { there = append(there, r.text()) }, `SELECT name FROM pragma_table_info(?1)`, name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(copied, "seq") { // it is nothing but where the row lies
			there = slices.DeleteFunc(there, func(column string) bool { return column == "seq" })
		}
		slices.Sort(copied)
		slices.Sort(there)
		if there = slices.Compact(there); !slices.Equal(slices.Compact(copied), there) {
			t.Errorf("table %s has the columns %s, and %s are copied", name, strings.Join(there, " "), strings.Join(copied, " "))
		}
	}
	for _, table := range CopyTables() {
		if !slices.Contains(tables, table[0]) {
			t.Errorf("there is no table %s", table[0])
		}
	}
}
