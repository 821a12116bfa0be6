package sqlite

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3"
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
	worksFrom int    // the oldest schema whose code can work with it; 0: it does not say, as those of release 0.1.0
	copy      string // which copy of it to another store is under way or complete
	moved     string // where that is, if it has taken this one's place
}

// readStanding reads the row that is part of no migration. Release 0.1.0 makes none.
func readStanding(c *conn) (s standing, err error) {
	_, err = c.one(func(r *row) { s = standing{worksFrom: r.int(), copy: r.text(), moved: r.text()} },
		`SELECT works_from, copy, moved FROM latchkey_schema WHERE one = 1`)
	if errors.Is(err, sqlite3.ERROR) && strings.Contains(err.Error(), "no such table") {
		return standing{}, nil
	}
	return s, err
}

// writeStanding records how old a release may be that works with the database.
func writeStanding(c *conn, worksFrom int) error {
	err := c.db.Exec(`CREATE TABLE IF NOT EXISTS latchkey_schema (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    works_from INTEGER NOT NULL,
    copy       TEXT    NOT NULL DEFAULT '',
    moved      TEXT    NOT NULL DEFAULT ''
) STRICT`)
	if err != nil {
		return err
	}
	_, err = c.exec(`INSERT INTO latchkey_schema (one, works_from) VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET works_from = excluded.works_from`, worksFrom)
	return err
}

// checkInPlace refuses a database whose copy has taken its place.
func checkInPlace(c *conn, path string) error {
	s, err := readStanding(c)
	if err == nil && s.moved != "" {
		err = fmt.Errorf("the installation of database %s was moved to %s and is served from there (`latchkey store copy --undo` takes this database back into use, without what happened there since)",
			path, s.moved)
	}
	return err
}
