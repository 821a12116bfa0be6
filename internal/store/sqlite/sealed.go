package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"latchkey.example/latchkey/internal/registration"
)

// sealedColumn says where the values of a kind lie. SQL that reads selects seq, scope, key and value after ?1, at most ?2;
// SQL that writes sets ?4 where the row ?1, ?2 still holds ?3.
type sealedColumn struct {
	kind        registration.SealedKind
	read, write string
}

// sealedColumns are listed in this order. Within one, rows come in order of seq: a row keeps its seq while it lives, and rows made
// during a listing come after it.
var sealedColumns = []sealedColumn{
	{
		registration.SealedScopeRoot,
		`SELECT seq, id, '', sealed_root FROM scopes WHERE seq > ?1 AND sealed_root <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE scopes SET sealed_root = ?4 WHERE id = ?1 AND ?2 = '' AND sealed_root = ?3`,
	},
	{
		registration.SealedScopeCertificate,
		`SELECT seq, id, '', sealed_certificate_key FROM scopes WHERE seq > ?1 AND sealed_certificate_key <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE scopes SET sealed_certificate_key = ?4 WHERE id = ?1 AND ?2 = '' AND sealed_certificate_key = ?3`,
	},
	{
		registration.SealedPolicyPrimary,
		`SELECT seq, scope, name, sealed_primary FROM access_policies
			WHERE seq > ?1 AND sealed_primary <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE access_policies SET sealed_primary = ?4 WHERE scope = ?1 AND name = ?2 AND sealed_primary = ?3`,
	},
	{
		registration.SealedPolicySecondary,
		`SELECT seq, scope, name, sealed_secondary FROM access_policies
			WHERE seq > ?1 AND sealed_secondary <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE access_policies SET sealed_secondary = ?4 WHERE scope = ?1 AND name = ?2 AND sealed_secondary = ?3`,
	},
	{
		registration.SealedHubSecret,
		`SELECT seq, scope, name, sealed_secret FROM linked_hubs WHERE seq > ?1 AND sealed_secret <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE linked_hubs SET sealed_secret = ?4 WHERE scope = ?1 AND name = ?2 AND sealed_secret = ?3`,
	},
	{
		registration.SealedWebhookKey,
		`SELECT seq, scope, '', sealed_webhook_key FROM scope_allocations WHERE seq > ?1 AND sealed_webhook_key <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE scope_allocations SET sealed_webhook_key = ?4 WHERE scope = ?1 AND ?2 = '' AND sealed_webhook_key = ?3`,
	},
	{
		registration.SealedEnrollmentFirst,
		`SELECT seq, scope, folded, sealed_primary FROM enrollments WHERE seq > ?1 AND sealed_primary <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE enrollments SET sealed_primary = ?4 WHERE scope = ?1 AND folded = ?2 AND sealed_primary = ?3`,
	},
	{
		registration.SealedEnrollmentSecond,
		`SELECT seq, scope, folded, sealed_secondary FROM enrollments WHERE seq > ?1 AND sealed_secondary <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE enrollments SET sealed_secondary = ?4 WHERE scope = ?1 AND folded = ?2 AND sealed_secondary = ?3`,
	},
	{
		registration.SealedGroupFirst,
		`SELECT seq, scope, folded, sealed_primary FROM enrollment_groups WHERE seq > ?1 AND sealed_primary <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE enrollment_groups SET sealed_primary = ?4 WHERE scope = ?1 AND folded = ?2 AND sealed_primary = ?3`,
	},
	{
		registration.SealedGroupSecond,
		`SELECT seq, scope, folded, sealed_secondary FROM enrollment_groups WHERE seq > ?1 AND sealed_secondary <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE enrollment_groups SET sealed_secondary = ?4 WHERE scope = ?1 AND folded = ?2 AND sealed_secondary = ?3`,
	},
	{
		registration.SealedRegistrationKey,
		`SELECT seq, scope, folded, sealed_hub_key FROM registrations
			WHERE seq > ?1 AND sealed_hub_key <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE registrations SET sealed_hub_key = ?4 WHERE scope = ?1 AND folded = ?2 AND sealed_hub_key = ?3`,
	},
	{
		registration.SealedHubIdentity,
		`SELECT seq, scope, hub || char(0) || device_id, sealed_key FROM identities
			WHERE seq > ?1 AND sealed_key <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE identities SET sealed_key = ?4
			WHERE scope = ?1 AND hub = ?2 AND device_id = ?5 AND sealed_key = ?3`,
	},
	{
		registration.SealedOperationKey,
		`SELECT seq, scope, id, sealed_key FROM operations
			WHERE seq > ?1 AND sealed_key <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE operations SET sealed_key = ?4 WHERE scope = ?1 AND id = ?2 AND sealed_key = ?3`,
	},
	{
		registration.SealedOperationHubKey,
		`SELECT seq, scope, id || char(0) || folded, sealed_hub_key FROM operations
			WHERE seq > ?1 AND sealed_hub_key <> x'' ORDER BY seq LIMIT ?2`,
		`UPDATE operations SET sealed_hub_key = ?4
			WHERE scope = ?1 AND id = ?2 AND folded = ?5 AND sealed_hub_key = ?3`,
	},
}

// pairKey reports whether the key of the kind is two parts joined by a NUL.
func pairKey(kind registration.SealedKind) bool {
	return kind == registration.SealedHubIdentity || kind == registration.SealedOperationHubKey
}

// SealedValues implements registration.SealedStore. The cursor is the number of the column and the seq of the last row read.
func (s *Store) SealedValues(ctx context.Context, cursor string, limit int) ([]registration.SealedValue, string, error) {
	column, seq, err := parseCursor(cursor)
	if err != nil || limit < 1 {
		return nil, "", errors.Join(errors.New("sealed values: bad cursor or limit"), err)
	}
	var values []registration.SealedValue
	err = s.read(ctx, func(c *conn) error {
		for ; column < len(sealedColumns); column, seq = column+1, 0 {
			col := sealedColumns[column]
			err := c.each(func(r *row) {
				seq = r.int()
				values = append(values, registration.SealedValue{Kind: col.kind, Scope: r.text(), Key: r.text(), Sealed: r.blob()})
			}, col.read, seq, limit-len(values))
			if err != nil || len(values) == limit {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	if column == len(sealedColumns) {
		return values, "", nil
	}
	return values, fmt.Sprintf("%d.%d", column, seq), nil
}

func parseCursor(cursor string) (column, seq int, err error) {
	if cursor == "" {
		return 0, 0, nil
	}
	first, second, _ := strings.Cut(cursor, ".")
	column, err1 := strconv.Atoi(first)
	seq, err2 := strconv.Atoi(second)
	if column < 0 || column >= len(sealedColumns) || seq < 0 {
		return 0, 0, strconv.ErrRange
	}
	return column, seq, errors.Join(err1, err2)
}

// ReplaceSealed implements registration.SealedStore. All replacements of a call are one transition.
func (s *Store) ReplaceSealed(ctx context.Context, values []registration.SealedReplacement) (int, error) {
	replaced := new(int) // the writer's until it answers
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		if slices.ContainsFunc(values, func(v registration.SealedReplacement) bool { return v.Kind.InScopes() }) {
			if err := moveScopes(c); err != nil {
				return 0, err
			}
		}
		for _, v := range values {
			n, err := replaceSealed(c, v)
			if err != nil {
				return 0, err
			}
			*replaced += n
		}
		return registration.Applied, nil
	})
	if err != nil {
		return 0, err
	}
	return *replaced, nil
}

func replaceSealed(c *conn, v registration.SealedReplacement) (int, error) {
	for _, col := range sealedColumns {
		if col.kind != v.Kind {
			continue
		}
		if pairKey(v.Kind) {
			first, second, _ := strings.Cut(v.Key, "\x00")
			return c.exec(col.write, v.Scope, first, v.Sealed, v.New, second)
		}
		return c.exec(col.write, v.Scope, v.Key, v.Sealed, v.New)
	}
	return 0, fmt.Errorf("no sealed column named %q", v.Kind)
}
