package sqlite

import (
	"context"

	"latchkey.example/latchkey/internal/registration"
)

// HubOwner reads which process has the sessions of the embedded hub.
func (s *Store) HubOwner(ctx context.Context) (owner registration.HubOwner, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(func(r *row) {
			owner = registration.HubOwner{ID: r.text(), Host: r.text(), Since: r.time(), Beat: r.uint()}
		}, `SELECT id, host, since, beat FROM hub_owner WHERE one = 1`)
		return err
	})
	return owner, err
}

// MoveHub makes to the owner of the embedded hub in the place of from: Conflict if the owner is another by now, or his beat has moved. With the same id it is
// a beat.
func (s *Store) MoveHub(ctx context.Context, from, to registration.HubOwner) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		sql, args := `UPDATE hub_owner SET id = ?3, beat = ?4, host = ?5, since = ?6 WHERE one = 1 AND id = ?1 AND beat = ?2`, []any{from.ID, from.Beat, to.ID, to.Beat, to.Host, to.Since}
		if from.ID == to.ID {
			sql, args = `UPDATE hub_owner SET beat = ?3 WHERE one = 1 AND id = ?1 AND beat = ?2`, []any{from.ID, from.Beat, to.Beat}
		}
		n, err := c.exec(sql, args...)
		if n == 0 || err != nil {
			return registration.Conflict, err
		}
		return registration.Applied, nil
	})
}

// ownsHub says whether the owner is the one named. Transitions come one after the other, so he stays it until the commit.
func ownsHub(c *conn, id string) (bool, error) {
	return c.one(func(*row) {}, `SELECT 1 FROM hub_owner WHERE one = 1 AND id = ?1`, id)
}
