package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// notFilled says of each table that a copy does not fill from the other store why it need not.
var notFilled = map[string]string{
	"latchkey_schema": "says of this database what it is",
	"hub_owner":       "who serves here",
	"hub_beats":       "likewise",
	"device_ids":      "follows from registrations",
	"audit_heads":     "locks, made when they are needed",
	"owners":          "a memory that need not last",
}

// A migration that adds a table or a column must say whether a copy fills it, and one that adds a sequence where it goes on.
func TestACopyForgetsNoTableAndNoColumn(t *testing.T) {
	t.Parallel()
	pg, err := pgx.Connect(t.Context(), server.Address(newDatabase(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(t.Context())
	rows, err := pg.Query(t.Context(), `SELECT c.relname, c.relkind = 'S', coalesce((SELECT array_agg(attname::text ORDER BY attname::text COLLATE "C")
			FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}')
		FROM pg_class AS c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S') AND NOT relispartition`)
	if err != nil {
		t.Fatal(err)
	}
	goOn := sequences(map[string]int64{})
	seen := 0
	for rows.Next() {
		var name string
		var sequence bool
		var columns []string
		if err := rows.Scan(&name, &sequence, &columns); err != nil {
			t.Fatal(err)
		}
		seen++
		if sequence {
			if _, set := goOn[name]; !set && name != "owner_places" {
				t.Errorf("the sequence %s does not go on behind what was given out", name)
			}
			continue
		}
		table, err := tableOf(name)
		if _, left := notFilled[name]; left == (err == nil) {
			t.Errorf("table %s is filled and left as it is, or neither", name)
		}
		if copied := slices.Sorted(slices.Values(table.columns)); err == nil && !slices.Equal(copied, columns) {
			t.Errorf("table %s has the columns %s, and %s are filled", name, strings.Join(columns, " "), strings.Join(copied, " "))
		}
	}
	if rows.Err() != nil || seen < 20 {
		t.Errorf("%d tables and sequences, %v", seen, rows.Err())
	}
}
