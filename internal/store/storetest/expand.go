package storetest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Step is a migration: plain SQL, and what a store has besides for servers that can do more.
type Step struct {
	Name, SQL, Optional string
}

// CheckExpand holds every step behind the previous release's schema against the rule of docs/decisions/0009-migrations.md: it only adds, and so says
// that the previous release goes on working with it.
func CheckExpand(t *testing.T, steps []Step, previous int) {
	t.Helper()
	var earlier []string
	for i, step := range steps {
		if i >= previous {
			if err := Expands(earlier, step, previous); err != nil {
				t.Errorf("%s: %v", step.Name, err)
			}
		}
		earlier = append(earlier, tablesOf(step.SQL)...)
	}
}

// growing are the tables that grow with the number of devices or with time: what walks one whole holds up all who write to it.
var growing = []string{
	"enrollments", "registrations", "generations", "device_ids", "operations", "audit", "identities", "entry_certificates", "owners",
	"identity_generations", "twins", "hub_queues", "hub_messages",
}

// The statements that a migration may have. What they do to a table is judged by whether the step has made it.
var (
	createTable    = regexp.MustCompile(`(?i)^CREATE TABLE (\w+) `)
	createSequence = regexp.MustCompile(`(?i)^CREATE SEQUENCE \w+$`)
	createIndex    = regexp.MustCompile(`(?i)^CREATE (UNIQUE )?INDEX \w+ ON (\w+) `)
	createTrigger  = regexp.MustCompile(`(?i)^CREATE TRIGGER .*? ON (\w+) `)
	addColumn      = regexp.MustCompile(`(?i)^ALTER TABLE (\w+) ADD COLUMN \w+ \w+( COLLATE "C")?( NOT NULL)?( DEFAULT (-?\d+|'[^']*'|''::bytea|x''|true|false))?$`)
	insertInto     = regexp.MustCompile(`(?i)^INSERT INTO (\w+) `)
)

// Expands says what of a step is not an addition that code which knows only the earlier tables can go on with; nil if all of it is.
func Expands(earlier []string, step Step, previous int) error {
	said, err := worksFrom(step.SQL)
	if err != nil {
		return err
	}
	if said > previous {
		return fmt.Errorf("it says that it works from schema %d on, the previous release has %d", said, previous)
	}
	made := tablesOf(step.SQL)
	var errs []error
	for _, statement := range statements(step.SQL) {
		if err := expands(made, statement); err != nil {
			errs = append(errs, fmt.Errorf("%w: %s", err, statement))
		}
	}
	for _, table := range earlier {
		if regexp.MustCompile(`\b` + table + `\b`).MatchString(withoutComments(step.Optional)) {
			errs = append(errs, fmt.Errorf("what is optional may only be about tables of its own step, and names %s", table))
		}
	}
	return errors.Join(errs...)
}

func worksFrom(sql string) (int, error) {
	line, _, _ := strings.Cut(sql, "\n")
	said, found := strings.CutPrefix(line, "-- works-from: ")
	n, err := strconv.Atoi(said)
	if !found || err != nil {
		return 0, errors.New("its first line must be of the form: -- works-from: 1")
	}
	return n, nil
}

// expands judges one statement of a step that has made some tables.
func expands(made []string, statement string) error {
	own := func(table string) bool { return slices.Contains(made, table) }
	switch {
	case createTable.MatchString(statement), createSequence.MatchString(statement):
		return nil
	case createIndex.MatchString(statement):
		m := createIndex.FindStringSubmatch(statement)
		if own(m[2]) {
			return nil
		}
		if m[1] != "" {
			return errors.New("a unique index on a table that is there could refuse what the previous release writes")
		}
		if slices.Contains(growing, m[2]) {
			return errors.New("an index on a large table stops all writing to it while it is made")
		}
		return nil
	case createTrigger.MatchString(statement):
		if !own(createTrigger.FindStringSubmatch(statement)[1]) {
			return errors.New("a trigger on a table that is there changes what the previous release does")
		}
		return nil
	case addColumn.MatchString(statement):
		m := addColumn.FindStringSubmatch(statement)
		if m[3] != "" && m[4] == "" {
			return errors.New("a column that must be filled needs a default, or the previous release cannot write")
		}
		return nil
	case insertInto.MatchString(statement):
		if !own(insertInto.FindStringSubmatch(statement)[1]) {
			return errors.New("rows are put into a table that is there")
		}
		return nil
	}
	return errors.New("it is none of the additions that a migration may be made of")
}

func tablesOf(sql string) (names []string) {
	for _, statement := range statements(sql) {
		if m := createTable.FindStringSubmatch(statement); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}

func withoutComments(sql string) string {
	return regexp.MustCompile(`--[^\n]*`).ReplaceAllString(sql, "")
}

// statements are those of a migration, white space made one blank. A trigger's own end with its END.
func statements(sql string) (list []string) {
	text := strings.Join(strings.Fields(withoutComments(sql)), " ")
	begin, quoted := 0, false
	for i := range len(text) {
		switch {
		case text[i] == '\'':
			quoted = !quoted
		case text[i] == ';' && !quoted:
			one := strings.TrimSpace(text[begin:i])
			if createTrigger.MatchString(one) && strings.Contains(one, "BEGIN") && !strings.HasSuffix(one, "END") {
				continue
			}
			list, begin = append(list, one), i+1
		}
	}
	if rest := strings.TrimSpace(text[begin:]); rest != "" {
		list = append(list, rest)
	}
	return list
}
