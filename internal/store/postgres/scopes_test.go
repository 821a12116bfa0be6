package postgres

import (
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// The memory of owners would age away by itself, but a deleted scope leaves it no more than the rest.
func TestADeletedScopesOwnersGo(t *testing.T) {
	t.Parallel()
	s := openNew(t, Options{})
	defer closeStore(t, s)
	for _, id := range []string{"kept", "gone"} {
		verdict, err := s.CreateScope(t.Context(), registration.Scope{ID: id, Hosts: []string{id}}, testAudit("create"))
		applied(t, verdict, err)
		for _, srk := range []string{"a", "b"} {
			if err := s.RememberOwner(t.Context(), id, "dev", []byte(srk), epoch); err != nil {
				t.Fatal(err)
			}
		}
	}
	verdict, err := s.DeleteScope(t.Context(), "gone", testAudit("delete"))
	applied(t, verdict, err)
	for _, want := range []int{1, 1, 0} {
		if n, err := s.PruneScopes(t.Context(), epoch.Add(time.Hour), 1); n != want || err != nil {
			t.Fatalf("%d rows removed, %v, want %d", n, err, want)
		}
	}
	for id, want := range map[string]int{"kept": 2, "gone": 0} {
		if srks, err := s.Owners(t.Context(), id, "dev", epoch); len(srks) != want || err != nil {
			t.Errorf("%s: %d owners, %v, want %d", id, len(srks), err, want)
		}
	}
}
