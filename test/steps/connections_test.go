package steps

import (
	"fmt"
	"slices"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/test/pgserver"
)

// openThrough opens a database of its own through a wire. One connection, so that what goes over it comes in the same order each time.
func openThrough(t *testing.T, server *pgserver.Server) (*postgres.Store, *wire) {
	t.Helper()
	databases.Lock()
	databases.made++
	name := fmt.Sprintf("wired_%d", databases.made)
	databases.Unlock()
	must(t, server.Psql(t.Context(), "postgres", "CREATE DATABASE "+name))
	must(t, postgres.Create(t.Context(), server.Address(name)))
	w, address := newWire(t, server, name)
	s, err := postgres.Open(t.Context(), address, postgres.Options{Conns: 1})
	must(t, err)
	return s, w
}

// Every exchange of a registration with the database is lost on either side, and every COMMIT refused once. What is known to have changed nothing is tried
// again by the service, and the device does not notice; what is not known is answered with 503 and when to ask again, and the
// device's own repeat finds out: one registration, one proof redeemed, whether the COMMIT took effect or not.
func TestConnectionsAreLost(t *testing.T) {
	t.Parallel()
	store, w := openThrough(t, server)
	s := newStage(t, store)
	s.chance, s.share = sample(t), 12
	if long() {
		s.share = 1
	}
	n := s.start().overHTTP()
	unknown := 0
	for _, name := range []string{"a TPM's first registration", "a TPM's new owner", "a TPM that is refused", "a symmetric key's first registration", "a TPM's poll"} {
		story := stories[slices.IndexFunc(stories, func(s story) bool { return s.name == name })]
		n.lose(w, story, 0, -1, "") // so that all statements are known to the connection
		exchanges := n.exchanges(w, story)
		for nth, query := range exchanges {
			for loss := range losses {
				if loss == notSerial && query != "commit" || !s.chosen() && query != "commit" {
					continue
				}
				unknown += n.lose(w, story, loss, nth, query)
			}
		}
	}
	if unknown == 0 {
		t.Error("no device was told to ask again: the test looks in the wrong place")
	}
	t.Logf("%d requests were answered with 503", unknown)
	s.clean()
}

// exchanges records those of a story in which nothing is lost.
func (n *node) exchanges(w *wire, story story) []string {
	n.Helper()
	d, before := n.begin(story)
	w.arm(-1, 0)
	refused := story.play(d, n)
	exchanges, _, _ := w.recorded()
	story.end(d, before, refused)
	return slices.Clone(exchanges)
}

// lose plays a story in which one exchange is lost, and says how often the device was told to ask again.
func (n *node) lose(w *wire, story story, loss loss, nth int, query string) int {
	n.Helper()
	d, before := n.begin(story)
	had := n.generation(d)
	w.arm(nth, loss)
	refused := story.play(d, n)
	_, met, commit := w.recorded()
	w.arm(-1, 0)
	what := fmt.Sprintf("%s: exchange %d %q %s", d.id, nth, query, loss)
	story.end(d, before, refused)
	if nth >= 0 && !met {
		n.Errorf("%s: it was not made", what)
	}
	if spent := n.generation(d) - had; spent < story.spent || spent > story.spent+story.lost {
		n.Errorf("%s: %d proofs were redeemed, want %d", what, spent, story.spent)
	}
	if known := !commit || loss == notSerial; known && d.repeats > 0 {
		n.Errorf("%s: the device was told to ask again, though nothing can have changed", what)
	}
	n.restarted(d, refused)
	return d.repeats
}

// The database is started anew between any two requests, and is down for one of them: what it cannot answer is answered with 503, and nothing is lost or doubled.
func TestTheDatabaseIsStartedAnewBetweenRequests(t *testing.T) {
	t.Parallel()
	own, err := pgserver.Start() // others are at work on the one of all tests
	must(t, err)
	t.Cleanup(func() { must(t, own.Stop()) })
	store, _ := openThrough(t, own)
	s := newStage(t, store)
	n := s.start().overHTTP()
	restart := func(down func()) {
		t.Helper()
		must(t, own.Kill())
		down()
		must(t, own.Run())
	}
	d := enrolledChip(n, s.name("pump"))
	nobody := func() {}
	restart(nobody)
	if refused := d.authorize(n); refused != nil {
		t.Fatalf("%+v", refused)
	}
	for _, down := range []func(){nobody, func() {
		_, err := n.register(s.ctx, d.request(n, d.token))
		if fault := asFault(t, err); fault.Code != dps.CodeUnavailable || fault.RetryAfter <= 0 {
			t.Errorf("with the database down a proof got %+v", fault)
		}
	}} {
		restart(down)
		answer, refused := d.put(n, d.token)
		if refused != nil {
			t.Fatalf("%+v", refused)
		}
		d.operation = answer.Status.OperationID
		restart(nobody)
		if refused := d.await(n); refused != nil {
			t.Fatalf("%+v", refused)
		}
	}
	if spent := n.generation(d); spent != 1 || d.repeats > 0 {
		t.Errorf("%d proofs were redeemed, and %d requests refused though the database was back", spent, d.repeats)
	}
	s.clean()
}
