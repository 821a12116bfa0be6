package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Place names the database at an address, without what is secret about the address.
func Place(address string) string {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return "PostgreSQL"
	}
	return place(config)
}

// place names a database without what is secret about its address.
func place(c *pgx.ConnConfig) string {
	hosts := []string{c.Host}
	for _, other := range c.Fallbacks {
		if !slices.Contains(hosts, other.Host) {
			hosts = append(hosts, other.Host)
		}
	}
	return fmt.Sprintf("%s at %s", c.Database, strings.Join(hosts, " or "))
}

// of says which database an error is of. Where there is no connection, the driver's tale of each host becomes one line.
func of(place string, err error) error {
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) {
		return fmt.Errorf("database %s: %w", place, err)
	}
	tale := strings.NewReplacer(":\n\t", ": ", "\n\t", "; ").Replace(connect.Error())
	return &unconnected{fmt.Sprintf("database %s: %s. Start the server, or mend the address", place, tale), err}
}

// unconnected has the driver's error inside, for who asks what kind it is.
type unconnected struct {
	sentence string
	err      error
}

func (u *unconnected) Error() string { return u.sentence }

func (u *unconnected) Unwrap() error { return u.err }
