package steps

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"latchkey.example/latchkey/test/pgserver"
)

// loss is what becomes of one exchange between the store and its database: of what is sent up to a Sync or a simple query, and what comes back.
type loss int

const (
	lostBefore loss = iota // the connection ends before the server has seen it
	lostAfter              // the server has answered, and the connection ends before the answer arrives
	terminated             // an administrator has ended the server's side of the connection, as a failover does, right before
	notSerial              // only of a COMMIT: the server answers that it could not serialize, and has rolled back
	losses
)

func (l loss) String() string {
	return [...]string{"is lost before the server sees it", "is answered, and the answer lost", "meets a server that has ended the connection", "is refused as a serialization failure"}[l]
}

// wire stands between a store and its database, and loses what it is told to. It knows of the protocol only where messages end.
type wire struct {
	dir    string // of its socket
	server string // address of the database's socket
	listen net.Listener
	ended  sync.WaitGroup
	end    func(process uint32) // ends the server's side of a connection

	mu        sync.Mutex
	exchanges []string // since it was armed: "commit", or what else a simple query says, or ""
	at        int      // the exchange that is met; -1: none
	loss      loss
	met       bool
	commit    bool // what was met was a COMMIT
	open      map[net.Conn]bool
}

// newWire is a wire to a database, and the address that leads through it.
func newWire(t *testing.T, server *pgserver.Server, database string) (*wire, string) {
	t.Helper()
	u, err := url.Parse(server.Address(database))
	must(t, err)
	query := u.Query()
	w := &wire{dir: t.TempDir(), server: filepath.Join(query.Get("host"), socketName), at: -1, open: map[net.Conn]bool{}}
	w.end = func(process uint32) {
		if err := server.Psql(context.Background(), "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d, 5000)", process)); err != nil {
			t.Error(err)
		}
	}
	query.Set("host", w.dir)
	u.RawQuery = query.Encode()
	w.listen, err = net.Listen("unix", filepath.Join(w.dir, socketName))
	must(t, err)
	w.ended.Go(w.serve)
	t.Cleanup(w.close)
	return w, u.String()
}

const socketName = ".s.PGSQL.5432"

func (w *wire) close() {
	_ = w.listen.Close()
	w.mu.Lock()
	for c := range w.open {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.ended.Wait()
}

// arm makes the nth exchange from now on meet its loss; -1: none.
func (w *wire) arm(nth int, loss loss) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exchanges, w.at, w.loss, w.met, w.commit = nil, nth, loss, false, false
}

// recorded are the exchanges since the wire was armed, whether one was met, and whether that was a COMMIT: on a connection that has just been made
// statements are prepared first, and the exchanges are others than on one that is known.
func (w *wire) recorded() (exchanges []string, met, commit bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.exchanges, w.met, w.commit
}

// enter notes an exchange.
func (w *wire) enter(query string) (meets bool, loss loss) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Only a COMMIT can be refused: where another exchange has taken its place it is the next one.
	if meets = w.at >= 0 && len(w.exchanges) >= w.at && (w.loss != notSerial || query == "commit"); meets {
		w.at, w.met, w.commit = -1, true, query == "commit"
	}
	w.exchanges = append(w.exchanges, query)
	return meets, w.loss
}

func (w *wire) serve() {
	for {
		client, err := w.listen.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", w.server)
		if err != nil { // the database is down
			_ = client.Close()
			continue
		}
		w.mu.Lock()
		w.open[client], w.open[server] = true, true
		w.mu.Unlock()
		l := &line{wire: w, client: client, server: server}
		w.ended.Go(l.up)
		w.ended.Go(l.down)
	}
}

// line is one connection.
type line struct {
	wire           *wire
	client, server net.Conn

	mu      sync.Mutex
	loss    *loss  // of the answer that is under way
	process uint32 // of the server
}

func (l *line) cut() {
	_ = errors.Join(l.client.Close(), l.server.Close())
	l.wire.mu.Lock()
	defer l.wire.mu.Unlock()
	delete(l.wire.open, l.client)
	delete(l.wire.open, l.server)
}

// up passes on what the store sends.
func (l *line) up() {
	defer l.cut()
	first, err := message(l.client, false)
	if err != nil {
		return
	}
	pending := first
	for {
		if _, err := l.server.Write(pending); err != nil {
			return
		}
		var query string
		if pending, query, err = exchange(l.client); err != nil {
			return
		}
		meets, loss := l.wire.enter(query)
		switch {
		case !meets:
		case loss == lostBefore:
			return
		case loss == terminated:
			l.mu.Lock()
			process := l.process
			l.mu.Unlock()
			l.wire.end(process)
		case loss == notSerial:
			pending = append([]byte{'Q', 0, 0, 0, 13}, "rollback\x00"...)
			fallthrough
		default:
			l.mu.Lock()
			l.loss = &loss
			l.mu.Unlock()
		}
	}
}

// exchange reads up to the end of what the server is to answer.
func exchange(from io.Reader) (all []byte, query string, err error) {
	for {
		m, err := message(from, true)
		if err != nil {
			return nil, "", err
		}
		all = append(all, m...)
		switch m[0] {
		case 'Q':
			return all, strings.TrimSuffix(string(m[5:]), "\x00"), nil
		case 'S', 'p', 'X':
			return all, "", nil
		}
	}
}

// down passes on what the server answers.
func (l *line) down() {
	defer l.cut()
	for {
		m, err := message(l.server, true)
		if err != nil {
			return
		}
		l.mu.Lock()
		if m[0] == 'K' { // BackendKeyData: process and secret
			l.process = binary.BigEndian.Uint32(m[5:])
		}
		loss := l.loss
		ready := m[0] == 'Z'
		if ready {
			l.loss = nil
		}
		l.mu.Unlock()
		switch {
		case loss == nil:
		case !ready:
			continue
		case *loss == lostAfter:
			return
		default:
			m = append(refused("40001"), m...)
		}
		if _, err := l.client.Write(m); err != nil {
			return
		}
	}
}

// refused is an ErrorResponse.
func refused(state string) []byte {
	fields := "SERROR\x00VERROR\x00C" + state + "\x00Mcould not serialize access\x00\x00"
	m := append([]byte{'E'}, binary.BigEndian.AppendUint32(nil, uint32(4+len(fields)))...)
	return append(m, fields...)
}

// message reads one message, with its type unless it is the first of a connection.
func message(from io.Reader, typed bool) ([]byte, error) {
	head := make([]byte, 4, 5)
	if typed {
		head = head[:5]
	}
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[len(head)-4:])
	if n < 4 || n > 1<<24 {
		return nil, errors.New("not a message of the protocol")
	}
	m := append(head, make([]byte, n-4)...)
	_, err := io.ReadFull(from, m[len(head):])
	return m, err
}
