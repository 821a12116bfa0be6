package pgserver

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
)

// Dump is a database as SQL that makes it again, as pg_dump writes it.
func (s *Server) Dump(database string) ([]byte, error) {
	out, err := s.command("pg_dump", "-h", s.dir, "-U", "latchkey", "--no-owner", "-d", database).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return nil, fmt.Errorf("pg_dump: %w\n%s", err, failed.Stderr)
	}
	// Newer programs write a line that older ones do not know.
	return regexp.MustCompile(`(?m)^\\(un)?restrict .*\n`).ReplaceAll(out, nil), err
}

// Load runs such SQL in an empty database.
func (s *Server) Load(database string, sql io.Reader) error {
	cmd := s.command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", s.dir, "-U", "latchkey", "-d", database, "-o", "/dev/null")
	cmd.Stdin = sql
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("psql: %w\n%s", err, out)
	}
	return nil
}
