package fsck_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"testing"

	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/sqlite"
)

// copies is how many enrollments crowd adds: more than two pages of values that nothing opens.
const copies = 600

// crowd copies an enrollment's sealed keys to others. They are bound to the first, so none of them opens.
func (h *house) crowd() {
	h.t.Helper()
	h.damage(fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO enrollments (scope, folded, id, revision, mechanism, ek, ek_key_id, pinned_srk, sealed_primary, sealed_secondary, certificates,
			device_id, disabled, document, created, updated)
		SELECT scope, 'copy-' || i, 'copy-' || i, 1, mechanism, ek, ek_key_id, pinned_srk, sealed_primary, sealed_secondary, certificates,
			device_id, disabled, document, created, updated FROM enrollments, n WHERE folded = 'valve'`, copies))
}

// watched is the store, which says when a page of sealed values or a device was read.
type watched struct {
	*sqlite.Store
	pages  int
	read   func(page int)
	device func(id string)
}

func (w *watched) Device(ctx context.Context, scope, id string) (registration.Device, error) {
	d, err := w.Store.Device(ctx, scope, id)
	if w.device != nil {
		w.device(id)
	}
	return d, err
}

func (w *watched) SealedValues(ctx context.Context, cursor string, limit int) ([]registration.SealedValue, string, error) {
	values, next, err := w.Store.SealedValues(ctx, cursor, limit)
	w.pages++
	if w.read != nil {
		w.read(w.pages)
	}
	return values, next, err
}

// shut checks the store and returns the secrets that the master key does not open.
func (h *house) shut(w *watched) (problems []string, sum fsck.Summary) {
	h.t.Helper()
	w.Store = h.store
	pattern := regexp.MustCompile("(enrollment|group|hub|operation|registration|identity|scope|policy).*: the master key does not open it$")
	sum, err := fsck.Check(h.t.Context(), w, h.ring, func(p fsck.Problem) {
		if pattern.MatchString(p.String()) {
			problems = append(problems, p.String())
		}
	})
	must(h.t, err)
	return problems, sum
}

// A wrong key ring opens nothing: what does not open costs one more reading of its page, and not of the whole store.
func TestSecretsThatDoNotOpenCostOneMoreReadingOfTheirPage(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.crowd()
	w := &watched{}
	problems, sum := h.shut(w)
	if len(problems) != 2*copies || sum.SealedValues < 2*copies {
		t.Errorf("%d secrets do not open, of %d, want %d", len(problems), sum.SealedValues, 2*copies)
	}
	if most := 2 * (sum.SealedValues/500 + 1); w.pages > most {
		t.Errorf("%d pages were read for %d values, want at most %d", w.pages, sum.SealedValues, most)
	}
}

// A value that comes into a page while it is read again pushes the last one out: that one is still told.
func TestASecretThatIsPushedOutOfItsPageIsStillLookedAt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.crowd()
	w := &watched{read: func(page int) {
		if page == 1 {
			h.damage("UPDATE enrollments SET sealed_primary = (SELECT sealed_primary FROM enrollments WHERE folded = 'valve') WHERE folded = 'pump'")
		}
	}}
	problems, _ := h.shut(w)
	slices.Sort(problems)
	if told := slices.Compact(slices.Clone(problems)); len(told) != 2*copies+1 || len(problems) != len(told) {
		t.Errorf("%d problems, %d of them different, want %d", len(problems), len(told), 2*copies+1)
	}
}

// A secret that was written anew while its page was looked at is judged by what it is now.
func TestASecretWrittenAnewMeanwhileIsNotAProblem(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.damage("UPDATE scopes SET sealed_certificate_key = sealed_root")
	w := &watched{read: func(page int) {
		if page == 1 {
			h.damage("UPDATE scopes SET sealed_certificate_key = x''")
		}
	}}
	if problems, _ := h.shut(w); len(problems) > 0 || w.pages != 2 {
		t.Errorf("%q after %d readings", problems, w.pages)
	}
}
