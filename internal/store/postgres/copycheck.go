package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Each calls fn for every row of a table that the source has too, in no particular order. A row holds int64, bool, string, []byte and nil, in the
// order of the table's columns.
func (t *CopyTarget) Each(ctx context.Context, table string, fn func(row []any)) error {
	from, err := tableOf(table)
	if err != nil {
		return err
	}
	sql := `SELECT ` + strings.Join(from.columns, ", ") + ` FROM ` + from.name
	if from.of != "" {
		sql += ` WHERE ` + from.of
	}
	rows, err := t.pg.Query(ctx, sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := rows.Values()
		if err != nil {
			return err
		}
		fn(row)
	}
	return rows.Err()
}

// consequences are counts of rows that do not follow from the others; each must be none.
var consequences = []struct{ what, sql string }{
	{"registrations without their device id", `SELECT count(*) FROM registrations AS r WHERE NOT EXISTS (SELECT FROM device_ids AS d
		WHERE d.scope = r.scope AND d.hub = r.hub AND d.device_id = r.device_id AND d.folded = r.folded)`},
	{"device ids without a registration", `SELECT count(*) FROM device_ids AS d WHERE NOT EXISTS (SELECT FROM registrations AS r
		WHERE r.scope = d.scope AND r.folded = d.folded AND r.hub = d.hub AND r.device_id = d.device_id)`},
	{"enrollments whose ids have no lock", `SELECT count(*) FROM enrollments AS e WHERE NOT EXISTS (SELECT FROM generations AS g
		WHERE g.scope = e.scope AND g.folded = e.folded)`},
	{"locks of ids that are not there", `SELECT count(*) FROM generations AS g WHERE g.generation = 0 AND NOT EXISTS (SELECT FROM enrollments AS e
		WHERE e.scope = g.scope AND e.folded = g.folded)`},
}

// Check looks at what follows from the rows that were copied, and at what is given out next.
func (t *CopyTarget) Check(ctx context.Context, numbers map[string]int64) error {
	var wrong []string
	for _, c := range consequences {
		var n int64
		if err := t.pg.QueryRow(ctx, c.sql).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			wrong = append(wrong, fmt.Sprintf("%d %s", n, c.what))
		}
	}
	for sequence, last := range sequences(numbers) {
		var at int64
		if err := t.pg.QueryRow(ctx, `SELECT last_value FROM `+sequence).Scan(&at); err != nil {
			return err
		}
		if at < last {
			wrong = append(wrong, fmt.Sprintf("the sequence %s would give out again what was given out", sequence))
		}
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, ", "))
	}
	return nil
}
