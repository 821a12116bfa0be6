package sqlite

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/internal/registration"
)

// conn is one connection with its prepared statements. It belongs to one goroutine at a time.
type conn struct {
	db    *sqlite3.Conn
	stmts map[string]*sqlite3.Stmt
}

// dial opens path with the given flags and runs the pragmas.
func dial(path, vfsName string, flags sqlite3.OpenFlag, pragmas ...string) (*conn, error) {
	db, err := sqlite3.OpenFlags(uri(path, vfsName), flags|sqlite3.OPEN_URI)
	if err != nil {
		return nil, err
	}
	c := &conn{db: db, stmts: map[string]*sqlite3.Stmt{}}
	// A plan must not depend on what is bound: else SQLite prepares each statement with LIMIT ? anew for every run.
	if _, err := db.Config(sqlite3.DBCONFIG_ENABLE_QPSG, true); err != nil {
		c.close()
		return nil, err
	}
	common := []string{"busy_timeout = 5000", "temp_store = MEMORY", "trusted_schema = OFF", "cell_size_check = ON"}
	for _, p := range append(common, pragmas...) {
		if err := db.Exec("PRAGMA " + p); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// uri names the database file so that no character of its path is taken for syntax. The log file takes the
// mode of the database file (modeof), which Create makes readable by its owner only.
func uri(path, vfsName string) string {
	name := filepath.ToSlash(path)
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	u := url.URL{Scheme: "file", Path: name}
	param := url.PathEscape(filepath.ToSlash(path))
	param = strings.NewReplacer("&", "%26", "=", "%3D", "+", "%2B").Replace(param)
	if vfsName != "" {
		return u.String() + "?vfs=" + vfsName
	}
	return u.String() + "?modeof=" + param
}

func (c *conn) close() error {
	for _, st := range c.stmts {
		st.Close()
	}
	c.stmts = nil
	return c.db.Close()
}

// stmt returns the prepared statement of sql with args bound to ?1, ?2 and so on.
func (c *conn) stmt(sql string, args []any) (*sqlite3.Stmt, error) {
	st, ok := c.stmts[sql]
	if !ok {
		var err error
		if st, _, err = c.db.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT); err != nil {
			return nil, err
		}
		c.stmts[sql] = st
	}
	for i, arg := range args {
		if err := bind(st, i+1, arg); err != nil {
			return nil, err
		}
	}
	return st, nil
}

func bind(st *sqlite3.Stmt, i int, arg any) error {
	switch v := arg.(type) {
	case string:
		return st.BindText(i, v)
	case []byte:
		if v == nil {
			v = []byte{} // absent is empty, never NULL
		}
		return st.BindBlob(i, v)
	case uint64:
		return st.BindInt64(i, int64(v))
	case int64:
		return st.BindInt64(i, v)
	case int:
		return st.BindInt64(i, int64(v))
	case bool:
		return st.BindBool(i, v)
	case time.Time:
		return st.BindInt64(i, v.UnixMicro())
	case registration.Status:
		return st.BindText(i, string(v))
	}
	return fmt.Errorf("cannot bind a %T", arg)
}

// exec runs a statement to its end and returns the number of rows it changed.
func (c *conn) exec(sql string, args ...any) (int, error) {
	st, err := c.stmt(sql, args)
	if err != nil {
		return 0, err
	}
	defer st.ClearBindings()
	if err := st.Exec(); err != nil {
		return 0, err
	}
	return int(c.db.Changes()), nil
}

// each calls scan for every row of the answer.
func (c *conn) each(scan func(*row), sql string, args ...any) (err error) {
	st, err := c.stmt(sql, args)
	if err != nil {
		return err
	}
	defer st.ClearBindings()
	for st.Step() {
		scan(&row{st: st})
	}
	if err := st.Err(); err != nil {
		st.Reset()
		return err
	}
	return st.Reset()
}

// one is each for an answer of at most one row; it reports whether there was one.
func (c *conn) one(scan func(*row), sql string, args ...any) (found bool, err error) {
	err = c.each(func(r *row) { scan(r); found = true }, sql, args...)
	return found, err
}

// row reads the columns of one row from left to right.
type row struct {
	st   *sqlite3.Stmt
	next int
}

func (r *row) column() int {
	r.next++
	return r.next - 1
}

// skip passes over n columns.
func (r *row) skip(n int) { r.next += n }

func (r *row) text() string { return r.st.ColumnText(r.column()) }

// blob copies a blob; an empty one is nil.
func (r *row) blob() []byte { return r.st.ColumnBlob(r.column(), nil) }

func (r *row) hash() (h [32]byte) {
	copy(h[:], r.st.ColumnRawBlob(r.column()))
	return h
}

// hashes reads what joined wrote.
func (r *row) hashes() (list [][32]byte) {
	raw := r.st.ColumnRawBlob(r.column())
	for ; len(raw) >= 32; raw = raw[32:] {
		list = append(list, [32]byte(raw))
	}
	return list
}

func (r *row) int() int { return int(r.st.ColumnInt64(r.column())) }

func (r *row) uint() uint64 { return uint64(r.st.ColumnInt64(r.column())) }

func (r *row) bool() bool { return r.st.ColumnInt64(r.column()) != 0 }

func (r *row) time() time.Time { return time.UnixMicro(r.st.ColumnInt64(r.column())).UTC() }

// null reports whether the next column is NULL, without passing over it.
func (r *row) null() bool { return r.st.ColumnType(r.next) == sqlite3.NULL }
