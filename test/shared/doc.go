// Package shared tests built programs whose store is a PostgreSQL database.
package shared
