package storetest

import (
	"strings"
	"testing"
)

func TestAMigrationThatOnlyAddsIsLetThrough(t *testing.T) {
	t.Parallel()
	step := Step{SQL: `-- works-from: 1
-- A table; with a comment.
CREATE TABLE notes (scope text COLLATE "C" NOT NULL, text text NOT NULL DEFAULT ';', PRIMARY KEY (scope));
CREATE UNIQUE INDEX notes_by_text ON notes (text);
CREATE TRIGGER notes_stay BEFORE DELETE ON notes BEGIN SELECT RAISE(ABORT, 'they stay'); END;
INSERT INTO notes (scope, text) SELECT id, '' FROM scopes;
CREATE SEQUENCE note_places;
CREATE INDEX scopes_by_age ON scopes (created);
ALTER TABLE scopes ADD COLUMN noted bigint;
ALTER TABLE enrollments ADD COLUMN note bytea NOT NULL DEFAULT ''::bytea`,
		Optional: "ALTER TABLE notes SET UNLOGGED; -- not scopes"}
	if err := Expands([]string{"scopes", "enrollments"}, step, 1); err != nil {
		t.Error(err)
	}
}

func TestAMigrationThatTheReleaseBeforeCannotGoOnWithIsFound(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		`DROP TABLE scopes`:                                                       "none of the additions",
		`ALTER TABLE scopes DROP COLUMN home`:                                     "none of the additions",
		`ALTER TABLE scopes RENAME COLUMN home TO first`:                          "none of the additions",
		`ALTER TABLE scopes RENAME TO tenants`:                                    "none of the additions",
		`ALTER TABLE scopes ALTER COLUMN created TYPE integer`:                    "none of the additions",
		`ALTER TABLE scopes ALTER COLUMN created SET NOT NULL`:                    "none of the additions",
		`ALTER TABLE scopes ADD COLUMN note text NOT NULL`:                        "needs a default",
		`ALTER TABLE scopes ADD COLUMN note text DEFAULT gen_random_uuid()`:       "none of the additions",
		`ALTER TABLE scopes ADD COLUMN note text UNIQUE`:                          "none of the additions",
		`ALTER TABLE scopes ADD CONSTRAINT young CHECK (created > 0)`:             "none of the additions",
		`CREATE UNIQUE INDEX one ON scopes (created)`:                             "a unique index",
		`CREATE INDEX one ON registrations (created)`:                             "stops all writing",
		`CREATE TRIGGER one AFTER INSERT ON scopes BEGIN DELETE FROM audit; END`:  "a trigger",
		`INSERT INTO scopes (id) VALUES ('x')`:                                    "rows are put",
		`UPDATE scopes SET created = 0`:                                           "none of the additions",
		`DELETE FROM audit`:                                                       "none of the additions",
		`TRUNCATE owners`:                                                         "none of the additions",
		`CREATE TABLE notes (a text); DROP TABLE scopes; CREATE TABLE b (a text)`: "DROP TABLE scopes",
	} {
		err := Expands([]string{"scopes"}, Step{SQL: "-- works-from: 1\n" + sql + ";"}, 1)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", sql, err, want)
		}
	}
	for name, step := range map[string]Step{
		"says nothing":              {SQL: "CREATE TABLE notes (a text);"},
		"says it is for itself":     {SQL: "-- works-from: 2\nCREATE TABLE notes (a text);"},
		"optional part on what was": {SQL: "-- works-from: 1\nCREATE TABLE notes (a text);", Optional: "ALTER TABLE scopes SET UNLOGGED;"},
	} {
		if err := Expands([]string{"scopes"}, step, 1); err == nil {
			t.Errorf("%s: let through", name)
		}
	}
}
