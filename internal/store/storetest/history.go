package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey.example/latchkey/internal/registration"
)

// A history is a sequence of random calls that is played on several stores at once. Each call gives one line for each store: the method, what it was
// called with, the verdict, every value that came back. The lines must be equal, word for word. The first player is the model: what
// it holds decides what is likely to be interesting next.
//
// What stores are free to choose is replaced by names before lines are compared, and by nothing else:
//   - revisions: which numbers a store gives out is its own matter. They must rise within a scope from one write to the next, which is checked, and then
//     the nth that is seen is called n. What a caller expects is said in these names.
//   - places in the audit log: they rise with gaps, and are named in the same way.
//   - cursors of sealed values: opaque; the pages are read to their end and put in order of kind, scope and key, since a store lists
//     them in an order of its own.
//   - the revision of the scopes may move though nothing changed, so it is only held against what Scopes returned before.
//   - rows of the outbox have ages by each store's own clock, and those that are claimed together have no order.
//   - rows that PruneScopes counts: a store counts what it has, and some keep a row where others keep none. It is called until nothing is left.
//
// Expired audit rows: a store may keep its very newest row for ever, so a row is appended before a call that expires some.

// Draw gives a number from 0 to n-1. What it is for helps who reads a shortened history.
type Draw func(n int, what string) int

// Seeded draws from a seed.
func Seeded(seed uint64) Draw {
	source := rand.New(rand.NewPCG(seed, 0))
	return func(n int, _ string) int { return source.IntN(n) }
}

// History is one sequence of calls.
type History struct {
	// Lines is what was called so far, and what came back.
	Lines []string
	// Verdicts counts lines by method and verdict.
	Verdicts map[string]int

	ctx     context.Context
	draw    Draw
	players []*player
	chosen  []string // the lines of calls that were drawn, without those that only look
	now     time.Time
	moments []time.Time // of all calls
	steps   int
	scopes  []string // that were ever created
	gone    map[string]deletedScope
	ops     []string // operation ids that were ever given
	claims  []string // of the outbox
	sums    int      // of sealed values written anew
}

// player is one store that takes part.
type player struct {
	Store
	revisions map[string]*names // by scope
	places    map[string]*names
	scopes    string // as Scopes returned them last, and their revision before
	moved     uint64
	err       error // the last that a line calls "error"
}

// NewHistory begins a history on empty stores; the first should be a Model.
func NewHistory(ctx context.Context, draw Draw, stores ...Store) *History {
	h := &History{Verdicts: map[string]int{}, ctx: ctx, draw: draw, now: epoch, moments: []time.Time{epoch}, gone: map[string]deletedScope{}}
	for _, s := range stores {
		h.players = append(h.players, &player{Store: s, revisions: map[string]*names{}, places: map[string]*names{}})
	}
	return h
}

// call is one call of a method, as a player makes it. What it returns is the rest of its line.
type call struct {
	method string
	args   string
	run    func(p *player) string
	looks  []key // ids that are read afterwards: what was given a revision shows it, before anything else is
}

// Play makes n calls, and then reads everything. The error is the first difference, with the calls that led to it.
func (h *History) Play(n int) error {
	if h.steps == 0 {
		if err := h.step(h.createScope()); err != nil {
			return err
		}
	}
	for i := range n {
		h.steps++
		h.move()
		if err := h.step(h.choose()); err != nil {
			return err
		}
		if i%100 == 99 || i == n-1 {
			if err := h.all(); err != nil {
				return err
			}
		}
	}
	return nil
}

// choose draws one of the calls in the mix.
func (h *History) choose() call {
	total := 0
	for _, m := range mix {
		total += m.weight
	}
	at := h.draw(total, "call")
	for _, m := range mix {
		if at -= m.weight; at < 0 {
			return m.make(h)
		}
	}
	panic("not reached")
}

// move moves the clock: mostly on, sometimes back, never to a time it has shown before, since the order of rows of one time is left to the stores.
func (h *History) move() {
	seconds := []int{1, 1, 20, 60, 120, 300, 600, -240}[h.draw(8, "seconds")]
	h.now = h.now.Add(time.Duration(seconds)*time.Second + 4096*time.Microsecond)
	h.moments = append(h.moments, h.now)
}

func (h *History) step(c call) error {
	if err := h.play(c); err != nil {
		return err
	}
	h.chosen = append(h.chosen, h.Lines[len(h.Lines)-1])
	slices.SortStableFunc(c.looks, func(a, b key) int { return cmp.Compare(h.enrolled(a), h.enrolled(b)) })
	for _, k := range c.looks {
		if err := h.play(h.look(k.scope, k.id)); err != nil {
			return err
		}
	}
	return nil
}

// enrolled is the revision of an enrollment.
func (h *History) enrolled(k key) uint64 {
	if e := h.model(k.scope, k.id).Enrollment; e != nil {
		return e.Revision
	}
	return 0
}

// play makes a call on every player.
func (h *History) play(c call) error {
	var first string
	for i, p := range h.players {
		p.err = nil
		result := c.run(p)
		line := fmt.Sprintf("%d %s(%s) = %s", h.steps, c.method, c.args, result)
		switch {
		case i == 0:
			first = line
			h.Lines = append(h.Lines, line)
			h.count(c.method, result)
		case line != first:
			return h.difference(i, line, p.err)
		}
	}
	return nil
}

// count notes what a transition came to: the first word behind the call.
func (h *History) count(method, result string) {
	word, _, _ := strings.Cut(result, " ")
	h.Verdicts[method+" "+word]++
}

// difference tells how a player has left the history.
func (h *History) difference(player int, line string, err error) error {
	return fmt.Errorf("after %d calls, store %d differs (error: %v)\nthe last calls:\n  %s\nstore 0: %s\nstore %d: %s",
		h.steps, player, err, strings.Join(h.chosen[max(0, len(h.chosen)-15):], "\n  "), h.Lines[len(h.Lines)-1], player, line)
}

// names gives numbers that a store has chosen names of their own: 1 for the first that is seen, and so on; 0 stands for itself.
type names struct {
	of   map[uint64]uint64
	real []uint64
}

func (n *names) name(real uint64) string {
	if real == 0 {
		return "0"
	}
	name, known := n.of[real]
	if !known {
		if len(n.real) > 0 && real < n.real[len(n.real)-1] {
			return fmt.Sprintf("%d, which does not rise", real)
		}
		n.real = append(n.real, real)
		name = uint64(len(n.real))
		n.of[real] = name
	}
	return fmt.Sprint(name)
}

// number is what a store calls a name; of one that nothing has, a number that nothing has.
func (n *names) number(name uint64) uint64 {
	switch {
	case name == 0:
		return 0
	case name > uint64(len(n.real)):
		return registration.AnyRevision - 1
	}
	return n.real[name-1]
}

func in(of map[string]*names, scope string) *names {
	if of[scope] == nil {
		of[scope] = &names{of: map[uint64]uint64{}}
	}
	return of[scope]
}

func (p *player) revision(scope string) *names { return in(p.revisions, scope) }
func (p *player) place(scope string) *names    { return in(p.places, scope) }

// verdict is how a line tells what a transition came to.
func (p *player) verdict(v registration.Verdict, err error) string {
	if err != nil {
		return p.failed(err)
	}
	return [...]string{"applied", "conflict", "exists", "missing", "superseded", "taken", "last one", "other owner", "full"}[v]
}

// failed is how a line tells an error: of the text it says nothing, which is each store's own.
func (p *player) failed(err error) string {
	if errors.Is(err, registration.ErrNotFound) {
		return "not found"
	}
	p.err = err
	return "error"
}

// Histories plays random histories on a store and on the model. A failure prints the seed and a shortened history.
func Histories(t *testing.T, open func(t *testing.T) Store) {
	rapid.Check(t, func(rt *rapid.T) {
		store := open(t)
		defer func() {
			if err := store.Close(); err != nil {
				rt.Errorf("close: %v", err)
			}
		}()
		draw := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(rt, what) }
		if err := NewHistory(t.Context(), draw, NewModel(), store).Play(rapid.IntRange(1, 60).Draw(rt, "calls")); err != nil {
			rt.Fatal(err)
		}
	})
}

// Methods names what a history calls, in order.
func Methods() (list []string) {
	for _, m := range mix {
		list = append(list, m.method)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
