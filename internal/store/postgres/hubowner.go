package postgres

import (
	"context"

	"latchkey.example/latchkey/internal/registration"
)

// HubOwner reads which process has the sessions of the embedded hub.
func (s *Store) HubOwner(ctx context.Context) (owner registration.HubOwner, err error) {
	err = s.read(ctx, func(c *conn) error {
		_, err := c.one(func(r *row) {
			owner = registration.HubOwner{ID: r.text(), Host: r.text(), Since: r.time(), Beat: r.uint()}
		}, `SELECT o.id, o.host, o.since, b.beat FROM hub_owner AS o JOIN hub_beats AS b ON b.one = o.one WHERE o.one = 1`)
		return err
	})
	return owner, err
}

// MoveHub makes to the owner of the embedded hub in the place of from: Conflict if the owner is another by now, or his beat has moved. With the same id it is
// a beat.
func (s *Store) MoveHub(ctx context.Context, from, to registration.HubOwner) (registration.Verdict, error) {
	return s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if from.ID != to.ID {
			n, err := c.exec(`UPDATE hub_owner SET id = $2, host = $3, since = $4 WHERE one = 1 AND id = $1`, from.ID, to.ID, clean(to.Host), to.Since)
			if n == 0 || err != nil {
				return registration.Conflict, err
			}
		}
		n, err := c.exec(`UPDATE hub_beats SET owner = $3, beat = $4 WHERE one = 1 AND owner = $1 AND beat = $2`, from.ID, from.Beat, to.ID, to.Beat)
		if n == 0 || err != nil {
			return registration.Conflict, err
		}
		return registration.Applied, nil
	})
}

// ownsHub says whether the owner is the one named, and keeps it so until the commit.
func ownsHub(c *conn, id string) (bool, error) {
	return c.one(func(*row) {}, `SELECT 1 FROM hub_owner WHERE one = 1 AND id = $1 FOR SHARE`, id)
}
