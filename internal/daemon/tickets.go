package daemon

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"latchkey.example/latchkey/internal/keyring"
)

const (
	// ticketSlot is how long session tickets are issued under one key. Those of the slot before and after are taken too, for sessions that go on
	// and nodes whose clocks differ: a ticket is good for one to two slots.
	ticketSlot = 12 * time.Hour
	// ticketRings is how many keys of the ring count for tickets: the primary and the newest others. Each costs a HMAC for every forged ticket.
	ticketRings = 4
	// resumeFor is how long after a whole handshake, in which a client shows that it holds its certificate's key, a session may be resumed. TLS 1.3
	// sends a new ticket with each resumption; without an end of its own a stolen session would go on for ever, without the key.
	resumeFor = 24 * time.Hour
)

// tickets has every node with the same key ring resume the TLS sessions of the others. Its keys are derived from the ring, the listener's name
// and the time slot, so that nodes need not speak with each other and nothing is stored.
type tickets struct {
	ring *keyring.Ring
	now  func() time.Time

	mu      sync.Mutex
	configs map[string]*tls.Config // by listener; they issue and open
}

func newTickets(ring *keyring.Ring, now func() time.Time) *tickets {
	return &tickets{ring: ring, now: now, configs: map[string]*tls.Config{}}
}

// share makes of a listener's configuration one that resumes sessions as all nodes do. The keys are changed on the configuration behind the
// answer: net/http serves a clone of what it is given, and keys that are set on the original never reach a clone.
func (t *tickets) share(listener string, config *tls.Config) *tls.Config {
	t.mu.Lock()
	t.configs[listener] = config
	t.mu.Unlock()
	t.rotate()
	front := config.Clone()
	front.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		s := session{config: config, host: strings.ToLower(hello.ServerName), now: t.now()}
		own := config.Clone()
		own.WrapSession, own.UnwrapSession = s.wrap, s.unwrap
		return own, nil
	}
	return front
}

// rotate sets the keys of this moment.
func (t *tickets) rotate() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for listener, config := range t.configs {
		config.SetSessionTicketKeys(t.keys(listener))
	}
}

// keys are those that open tickets of a listener now; the first one issues them.
func (t *tickets) keys(listener string) (keys [][32]byte) {
	slot := t.now().Unix() / int64(ticketSlot/time.Second)
	for _, n := range []int64{slot, slot - 1, slot + 1} {
		derived := t.ring.Derive(fmt.Sprintf("latchkey TLS session tickets, %s, slot %d", listener, n))
		keys = append(keys, derived[:min(len(derived), ticketRings)]...)
	}
	return keys
}

// run rotates until ctx ends. It is a loop of its own, since maintenance may wait for the store.
func (t *tickets) run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.rotate()
		}
	}
}

// session is one connection on its way through the handshake.
type session struct {
	config  *tls.Config
	host    string // that the client asks for
	now     time.Time
	resumed time.Time // when the session began whose ticket was opened last
}

// wrap makes the ticket that the client gets.
func (s *session) wrap(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	began := s.now
	if state.DidResume {
		began = s.resumed
	}
	session.Extra = append(session.Extra, origin{s.host, began}.encode())
	return s.config.EncryptTicket(state, session)
}

// unwrap opens a ticket. One that cannot be used is none: the handshake is done whole.
func (s *session) unwrap(ticket []byte, state tls.ConnectionState) (*tls.SessionState, error) {
	session, err := s.config.DecryptTicket(ticket, state)
	if err != nil || session == nil {
		return nil, err
	}
	before, ok := originOf(session.Extra)
	// RFC 6066, 3: a session of one host name is not resumed under another.
	if !ok || before.host != s.host || s.now.Sub(before.began).Abs() > resumeFor {
		return nil, nil
	}
	s.resumed = before.began
	return session, nil
}

// origin is where a session comes from: the host name that the client asked for, and when its whole handshake was.
type origin struct {
	host  string
	began time.Time
}

const originMark = "latchkey origin 1:"

func (o origin) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte(originMark), uint64(o.began.Unix()))
	return append(b, o.host...)
}

// originOf finds it in a session's extras, which others may add to.
func originOf(extra [][]byte) (origin, bool) {
	at := slices.IndexFunc(extra, func(e []byte) bool { return strings.HasPrefix(string(e), originMark) })
	if at < 0 || len(extra[at]) < len(originMark)+8 {
		return origin{}, false
	}
	rest := extra[at][len(originMark):]
	return origin{host: string(rest[8:]), began: time.Unix(int64(binary.BigEndian.Uint64(rest)), 0)}, true
}
