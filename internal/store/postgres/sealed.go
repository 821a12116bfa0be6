package postgres

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"latchkey.example/latchkey/internal/registration"
)

// sealedColumn says where the values of a kind lie. SQL that reads selects the parts of the row's key, then the value, of rows whose
// first parts are greater than $2 and so on, at most $1; SQL that writes sets $2 where the row $3 and so on still holds $1.
type sealedColumn struct {
	kind        registration.SealedKind
	cursor      int // parts of the key by which rows are listed
	read, write string
}

// sealedColumns are listed in this order, and within one by the rows' keys, which a row keeps while it lives.
var sealedColumns = []sealedColumn{
	{
		registration.SealedScopeRoot, 1,
		`SELECT id, sealed_root FROM scopes WHERE id > $2 AND sealed_root <> ''::bytea
			ORDER BY id LIMIT $1`,
		`UPDATE scopes SET sealed_root = $2 WHERE id = $3 AND sealed_root = $1`,
	},
	{
		registration.SealedScopeCertificate, 1,
		`SELECT id, sealed_certificate_key FROM scopes WHERE id > $2 AND sealed_certificate_key <> ''::bytea
			ORDER BY id LIMIT $1`,
		`UPDATE scopes SET sealed_certificate_key = $2 WHERE id = $3 AND sealed_certificate_key = $1`,
	},
	{
		registration.SealedPolicyPrimary, 2,
		`SELECT scope, name, sealed_primary FROM access_policies WHERE (scope, name) > ($2, $3) AND sealed_primary <> ''::bytea
			ORDER BY scope, name LIMIT $1`,
		`UPDATE access_policies SET sealed_primary = $2 WHERE scope = $3 AND name = $4 AND sealed_primary = $1`,
	},
	{
		registration.SealedPolicySecondary, 2,
		`SELECT scope, name, sealed_secondary FROM access_policies WHERE (scope, name) > ($2, $3) AND sealed_secondary <> ''::bytea
			ORDER BY scope, name LIMIT $1`,
		`UPDATE access_policies SET sealed_secondary = $2 WHERE scope = $3 AND name = $4 AND sealed_secondary = $1`,
	},
	{
		registration.SealedHubSecret, 2,
		`SELECT scope, name, sealed_secret FROM linked_hubs WHERE (scope, name) > ($2, $3) AND sealed_secret <> ''::bytea
			ORDER BY scope, name LIMIT $1`,
		`UPDATE linked_hubs SET sealed_secret = $2 WHERE scope = $3 AND name = $4 AND sealed_secret = $1`,
	},
	{
		registration.SealedWebhookKey, 1,
		`SELECT scope, sealed_webhook_key FROM scope_allocations WHERE scope > $2 AND sealed_webhook_key <> ''::bytea
			ORDER BY scope LIMIT $1`,
		`UPDATE scope_allocations SET sealed_webhook_key = $2 WHERE scope = $3 AND sealed_webhook_key = $1`,
	},
	{
		registration.SealedEnrollmentFirst, 2,
		`SELECT scope, folded, sealed_primary FROM enrollments WHERE (scope, folded) > ($2, $3) AND sealed_primary <> ''::bytea
			ORDER BY scope, folded LIMIT $1`,
		`UPDATE enrollments SET sealed_primary = $2 WHERE scope = $3 AND folded = $4 AND sealed_primary = $1`,
	},
	{
		registration.SealedEnrollmentSecond, 2,
		`SELECT scope, folded, sealed_secondary FROM enrollments WHERE (scope, folded) > ($2, $3) AND sealed_secondary <> ''::bytea
			ORDER BY scope, folded LIMIT $1`,
		`UPDATE enrollments SET sealed_secondary = $2 WHERE scope = $3 AND folded = $4 AND sealed_secondary = $1`,
	},
	{
		registration.SealedGroupFirst, 2,
		`SELECT scope, folded, sealed_primary FROM enrollment_groups WHERE (scope, folded) > ($2, $3) AND sealed_primary <> ''::bytea
			ORDER BY scope, folded LIMIT $1`,
		`UPDATE enrollment_groups SET sealed_primary = $2 WHERE scope = $3 AND folded = $4 AND sealed_primary = $1`,
	},
	{
		registration.SealedGroupSecond, 2,
		`SELECT scope, folded, sealed_secondary FROM enrollment_groups WHERE (scope, folded) > ($2, $3) AND sealed_secondary <> ''::bytea
			ORDER BY scope, folded LIMIT $1`,
		`UPDATE enrollment_groups SET sealed_secondary = $2 WHERE scope = $3 AND folded = $4 AND sealed_secondary = $1`,
	},
	{
		registration.SealedRegistrationKey, 2,
		`SELECT scope, folded, sealed_hub_key FROM registrations WHERE (scope, folded) > ($2, $3) AND sealed_hub_key <> ''::bytea
			ORDER BY scope, folded LIMIT $1`,
		`UPDATE registrations SET sealed_hub_key = $2 WHERE scope = $3 AND folded = $4 AND sealed_hub_key = $1`,
	},
	{
		registration.SealedHubIdentity, 3,
		`SELECT scope, hub, device_id, sealed_key FROM identities WHERE (scope, hub, device_id) > ($2, $3, $4) AND sealed_key <> ''::bytea
			ORDER BY scope, hub, device_id LIMIT $1`,
		`UPDATE identities SET sealed_key = $2 WHERE scope = $3 AND hub = $4 AND device_id = $5 AND sealed_key = $1`,
	},
	{
		registration.SealedOperationKey, 2,
		`SELECT scope, id, sealed_key FROM operations WHERE (scope, id) > ($2, $3) AND sealed_key <> ''::bytea
			ORDER BY scope, id LIMIT $1`,
		`UPDATE operations SET sealed_key = $2 WHERE scope = $3 AND id = $4 AND sealed_key = $1`,
	},
	{
		registration.SealedOperationHubKey, 2,
		`SELECT scope, id, folded, sealed_hub_key FROM operations WHERE (scope, id) > ($2, $3) AND sealed_hub_key <> ''::bytea
			ORDER BY scope, id LIMIT $1`,
		`UPDATE operations SET sealed_hub_key = $2 WHERE scope = $3 AND id = $4 AND folded = $5 AND sealed_hub_key = $1`,
	},
}

// SealedValues implements registration.SealedStore. The cursor is the number of the column and the key of the last row read.
func (s *Store) SealedValues(ctx context.Context, cursor string, limit int) ([]registration.SealedValue, string, error) {
	from, err := parseCursor(cursor)
	if err != nil || limit < 1 {
		return nil, "", errors.Join(errors.New("sealed values: bad cursor or limit"), err)
	}
	var values []registration.SealedValue
	var to sealedCursor
	err = s.read(ctx, func(c *conn) error {
		values, to = values[:0], from
		for ; to.Column < len(sealedColumns); to = (sealedCursor{Column: to.Column + 1}) {
			err := to.read(c, limit-len(values), func(v registration.SealedValue) { values = append(values, v) })
			if err != nil || len(values) == limit {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	if to.Column == len(sealedColumns) {
		return values, "", nil
	}
	return values, to.String(), nil
}

// sealedCursor is a place in the list of sealed values.
type sealedCursor struct {
	Column int
	Key    []string // of the last row; empty before the first
}

// read reads on from the cursor in its column, and moves it.
func (at *sealedCursor) read(c *conn, limit int, found func(registration.SealedValue)) error {
	col := sealedColumns[at.Column]
	args := []any{limit}
	for i := range col.cursor {
		part := ""
		if i < len(at.Key) {
			part = at.Key[i]
		}
		args = append(args, part)
	}
	return c.each(func(r *row) {
		key := make([]string, len(r.values)-1)
		for i := range key {
			key[i] = r.text()
		}
		at.Key = key[:col.cursor]
		found(registration.SealedValue{Kind: col.kind, Scope: key[0], Key: strings.Join(key[1:], "\x00"), Sealed: r.blob()})
	}, col.read, args...)
}

func (at sealedCursor) String() string {
	text, _ := json.Marshal(at) // an int and strings
	return base64.RawURLEncoding.EncodeToString(text)
}

func parseCursor(cursor string) (at sealedCursor, err error) {
	if cursor == "" {
		return at, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		err = json.Unmarshal(text, &at)
	}
	if err == nil && (at.Column < 0 || at.Column >= len(sealedColumns)) {
		err = strconv.ErrRange
	}
	return at, err
}

// ReplaceSealed implements registration.SealedStore. All replacements of a call are one transition.
func (s *Store) ReplaceSealed(ctx context.Context, values []registration.SealedReplacement) (int, error) {
	replaced := 0
	_, err := s.write(ctx, func(c *conn) (registration.Verdict, error) {
		replaced = 0
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
			replaced += n
		}
		return registration.Applied, nil
	})
	if err != nil {
		return 0, err
	}
	return replaced, nil
}

func replaceSealed(c *conn, v registration.SealedReplacement) (int, error) {
	for _, col := range sealedColumns {
		if col.kind != v.Kind {
			continue
		}
		args := []any{v.Sealed, v.New, v.Scope}
		if v.Key != "" {
			for part := range strings.SplitSeq(v.Key, "\x00") {
				args = append(args, part)
			}
		}
		return c.exec(col.write, args...)
	}
	return 0, fmt.Errorf("no sealed column named %q", v.Kind)
}
