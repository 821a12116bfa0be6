package sqlite

import (
	"strconv"
	"strings"
)

// A migration that the release before it can go on with says so in its first line: the oldest schema whose code works with what it makes.
const worksFromLine = "-- works-from: "

// worksFrom is the oldest schema whose code can work with what all steps together make. A step that does not say so is for its own release
// and later ones alone.
func worksFrom(steps []string) int {
	oldest := 1
	for i, step := range steps {
		from := i + 1
		if line, _, _ := strings.Cut(step, "\n"); strings.HasPrefix(line, worksFromLine) {
			if said, err := strconv.Atoi(strings.TrimPrefix(line, worksFromLine)); err == nil && said > 0 {
				from = min(from, said)
			}
		}
		oldest = max(oldest, from)
	}
	return oldest
}

// standing is what a database says of itself besides its schema.
type standing struct {
	worksFrom int // the oldest schema whose code can work with it; 0: it does not say, as those of release 0.1.0
}

// readStanding reads the row that is part of no migration. Release 0.1.0 makes none.
func readStanding(c *conn) (s standing, err error) {
	there, err := c.one(func(*row) {}, `SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'latchkey_schema'`)
	if !there || err != nil {
		return standing{}, err
	}
	_, err = c.one(func(r *row) { s.worksFrom = r.int() }, `SELECT works_from FROM latchkey_schema WHERE one = 1`)
	return s, err
}

// writeStanding records how old a release may be that works with the database.
func writeStanding(c *conn, worksFrom int) error {
	err := c.db.Exec(`CREATE TABLE IF NOT EXISTS latchkey_schema (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    works_from INTEGER NOT NULL
) STRICT`)
	if err != nil {
		return err
	}
	_, err = c.exec(`INSERT INTO latchkey_schema (one, works_from) VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET works_from = excluded.works_from`, worksFrom)
	return err
}
