package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"latchkey.example/latchkey/internal/registration"
)

// recorder keeps every statement with its arguments.
type recorder struct {
	mu    sync.Mutex
	calls map[string][]any
}

func (r *recorder) note(sql string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch word, _, _ := strings.Cut(strings.TrimSpace(sql), " "); word {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH":
		if _, found := r.calls[sql]; !found && !strings.Contains(sql, "current_setting") {
			r.calls[sql] = args
		}
	}
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	r.note(q.SQL, q.Args)
	return ctx
}
func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (r *recorder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, b pgx.TraceBatchStartData) context.Context {
	for _, q := range b.Batch.QueuedQueries {
		r.note(q.SQL, q.Arguments)
	}
	return ctx
}
func (r *recorder) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (r *recorder) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// node is a step of a plan.
type node struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Plans    []node
}

func (n node) walk(visit func(node)) {
	visit(n)
	for _, below := range n.Plans {
		below.walk(visit)
	}
}

// deviceCalls makes every kind of call that a device causes.
func deviceCalls(t *testing.T, s *Store) {
	redeemed(t, s, "dev", "op-1")
	remote := redemption(t, s, "dev", "op-2")
	remote.Outbox = &registration.Outbox{Kind: registration.OutboxAdvance, Object: "op-2"}
	_, verdict, err := s.Redeem(t.Context(), scope, remote)
	applied(t, verdict, err)
	verdict, err = s.Finish(t.Context(), scope, finishOf("dev", "op-2", "another name"))
	applied(t, verdict, err)
	if _, err := s.Operation(t.Context(), scope, "op-2"); err != nil {
		t.Fatal(err)
	}
	verdict, err = s.Refuse(t.Context(), scope, registration.Refused{ID: "dev", Generation: 2, Audit: testAudit("refuse")})
	applied(t, verdict, err)
	verdict, err = s.Refuse(t.Context(), scope, registration.Refused{ID: "stranger", Audit: testAudit("refuse")})
	applied(t, verdict, err)
	r := redemption(t, s, "member", "op-3")
	r.Registration.Group = "line"
	_, verdict, err = s.Redeem(t.Context(), scope, r)
	applied(t, verdict, err)
	if err := s.RememberOwner(t.Context(), scope, "dev", []byte("srk"), epoch); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Owners(t.Context(), scope, "dev", epoch); err != nil {
		t.Fatal(err)
	}
	put := registration.IdentityPut{Identity: registration.Identity{Hub: "hub", DeviceID: "dev", Generation: 1, Updated: epoch}, Owner: new(string)}
	for put.Was = range uint64(2) {
		verdict, err = s.PutIdentity(t.Context(), scope, put, testAudit("i"))
		applied(t, verdict, err)
	}
	if _, err := s.Identity(t.Context(), scope, "hub", "dev"); err != nil {
		t.Fatal(err)
	}
	hubCalls(t, s)
}

// hubCalls makes every kind of call that the embedded hub makes about one device, which has an identity of generation 1.
func hubCalls(t *testing.T, s *Store) {
	for was := range uint64(2) {
		verdict, err := s.PutTwin(t.Context(), scope, registration.TwinPut{Twin: registration.Twin{Hub: "hub", DeviceID: "dev"}, Was: was})
		applied(t, verdict, err)
	}
	for range 2 {
		_, verdict, err := s.EnqueueMessage(t.Context(), scope, registration.HubMessage{Hub: "hub", DeviceID: "dev"}, 50)
		applied(t, verdict, err)
	}
	verdict, err := s.DeliveredMessage(t.Context(), scope, "hub", "dev", 1)
	applied(t, verdict, err)
	verdict, err = s.SettleMessage(t.Context(), scope, "hub", "dev", 1)
	applied(t, verdict, err)
	_, err1 := s.Twin(t.Context(), scope, "hub", "dev")
	_, err2 := s.Messages(t.Context(), scope, "hub", "dev", 0, 50)
	_, err3 := s.CountMessages(t.Context(), scope, "hub", "dev")
	_, err4 := s.IdentityGeneration(t.Context(), scope, "hub", "dev")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	for _, was := range []uint64{1, 0} {
		verdict, err = s.DeleteIdentity(t.Context(), scope, registration.IdentityDelete{Hub: "hub", DeviceID: "dev", Was: was, Generation: 1, Owner: new(string)}, testAudit("d"))
		applied(t, verdict, err)
	}
}

// Whatever a device does touches one partition of each table, and finds its row there by the primary key.
func TestDevicesTouchOnePartitionByPrimaryKey(t *testing.T) {
	t.Parallel()
	record := &recorder{calls: map[string][]any{}}
	address := server.Address(newDatabase(t))
	operator := reopen(t, address, Options{})
	defer closeStore(t, operator)
	enroll(t, operator, "dev")
	_, verdict, err := operator.PutGroup(t.Context(), scope, registration.Group{ID: "line", Created: epoch, Updated: epoch}, nil, testAudit("g"), "")
	applied(t, verdict, err)
	s := reopen(t, address, Options{tracer: record})
	defer closeStore(t, s)
	deviceCalls(t, s)
	if len(record.calls) < 20 {
		t.Fatalf("only %d statements were seen", len(record.calls))
	}
	t.Run("empty", func(t *testing.T) { judgePlans(t, operator, record) })
	fill(t, operator, 16000)
	t.Run("filled", func(t *testing.T) { judgePlans(t, operator, record) })
	err = operator.read(t.Context(), func(c *conn) error { _, err := c.exec(`ANALYZE`); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Run("analyzed", func(t *testing.T) { judgePlans(t, operator, record) })
}

// fill gives the scope a number of registered devices, of which the planner knows nothing yet.
func fill(t *testing.T, s *Store, n int) {
	t.Helper()
	for _, sql := range []string{
		`INSERT INTO generations (scope, folded, generation) SELECT $1, 'x' || i, 1 FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO enrollments (scope, folded, id, revision, mechanism, ek, ek_key_id, pinned_srk, sealed_primary, sealed_secondary, certificates,
				device_id, disabled, document, created, updated)
			SELECT $1, 'x' || i, 'x' || i, i, 'tpm', '', '', '', '', '', '', '', false, '', 0, 0 FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO registrations (scope, folded, id, revision, status, substatus, hub, device_id, mechanism, group_id, group_folded, ek_key_id, srk,
				sealed_hub_key, hub_key_generation, operation_id, error_code, error_message, created, updated)
			SELECT $1, 'x' || i, 'x' || i, i, 'assigned', '', 'hub', 'x' || i, 'tpm', '', '', '', '', '', 1, 'x' || i, 0, '', 0, 0
			FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO device_ids (scope, hub, device_id, folded) SELECT $1, 'hub', 'x' || i, 'x' || i FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO operations (scope, id, folded, registration_id, status, substatus, generation, revision, mechanism, group_id, token_digest,
				sealed_key, ek, srk, sealed_hub_key, hub, device_id, error_code, error_message, tracking_id, created, updated)
			SELECT $1, 'x' || i, 'x' || i, 'x' || i, 'assigned', '', 1, i, 'tpm', '', '', '', '', '', '', 'hub', 'x' || i, 0, '', '', 0, 0
			FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO owners (scope, folded, digest, srk, at) SELECT $1, 'x' || i, '', '', 0 FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO identities (scope, hub, device_id, sealed_key, generation, updated) SELECT $1, 'hub', 'x' || i, '', 1, 0 FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO identity_generations (scope, hub, device_id, generation, version, at) SELECT $1, 'hub', 'y' || i, 1, 1, 0 FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO twins (scope, hub, device_id, tags, desired, reported, desired_metadata, reported_metadata, desired_version, reported_version, version, updated)
			SELECT $1, 'hub', 'x' || i, '', '', '', '', '', 1, 1, 1, 0 FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO hub_queues (scope, hub, device_id, last) SELECT $1, 'hub', 'x' || i, 1 FROM generate_series(1, $2::int) AS i`,
		`INSERT INTO hub_messages (scope, hub, device_id, n, id, correlation_id, user_id, ack, properties, enqueued, expires, deliveries, body)
			SELECT $1, 'hub', 'x' || i, 1, '', '', '', '', '', 0, 0, 0, '' FROM generate_series(1, $2::int) AS i`,
	} {
		err := s.read(t.Context(), func(c *conn) error { _, err := c.exec(sql, scope, n); return err })
		if err != nil {
			t.Fatalf("%v:\n%s", err, sql)
		}
	}
}

func judgePlans(t *testing.T, operator *Store, record *recorder) {
	scans := 0
	for sql, args := range record.calls {
		if strings.Contains(sql, "latchkey_schema") {
			continue
		}
		parts := map[string]string{}
		explain(t, operator, sql, args).walk(func(n node) {
			table, _, partitioned := cutPartition(n.Relation)
			if n.Relation == "" || n.Type == "ModifyTable" {
				return
			}
			scans++
			if partitioned && parts[table] != "" && parts[table] != n.Relation {
				t.Errorf("%s and %s are touched by\n%s", parts[table], n.Relation, sql)
			}
			parts[table] = n.Relation
			if n.Index == "" && n.Type != "Bitmap Heap Scan" || n.Index != "" && !strings.HasSuffix(n.Index, "_pkey") {
				t.Errorf("%s of %s by %q in\n%s", n.Type, n.Relation, n.Index, sql)
			}
		})
	}
	if scans < 20 {
		t.Fatalf("only %d scans were judged", scans)
	}
	// And the check is not blind: a list walks them all.
	walked := map[string]bool{}
	explain(t, operator, enrollmentsSQL, []any{scope, "", 10}).walk(func(n node) { walked[n.Relation] = true })
	if len(walked) < 16 {
		t.Fatalf("a list walks %v", walked)
	}
}

var partition = regexp.MustCompile(`^(.*)_(\d\d)$`)

func cutPartition(relation string) (table, number string, ok bool) {
	found := partition.FindStringSubmatch(relation)
	if found == nil {
		return relation, "", false
	}
	return found[1], found[2], true
}

// explain is the plan as the store's connections use it: one for all arguments, of which the executor then leaves out what these do not need.
func explain(t *testing.T, s *Store, sql string, args []any) node {
	t.Helper()
	literals := make([]string, len(args))
	for i, arg := range args {
		literals[i] = literal(arg)
	}
	execute := `EXPLAIN (FORMAT JSON) EXECUTE judged`
	if len(args) > 0 {
		execute += ` (` + strings.Join(literals, `, `) + `)`
	}
	var text string
	err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `PREPARE judged AS `+sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		if err := tx.QueryRow(t.Context(), execute, pgx.QueryExecModeSimpleProtocol).Scan(&text); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `DEALLOCATE judged`)
		return err
	})
	if err != nil {
		t.Fatalf("%v:\n%s", err, sql)
	}
	var plans []struct{ Plan node }
	if err := json.Unmarshal([]byte(text), &plans); err != nil || len(plans) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	return plans[0].Plan
}

// literal writes an argument so that it takes the type of its parameter.
func literal(arg any) string {
	switch v := arg.(type) {
	case []byte:
		return fmt.Sprintf(`'\x%x'`, v)
	case [][]byte:
		return list(v, func(b []byte) string { return fmt.Sprintf(`"\\x%x"`, b) })
	case []string:
		return list(v, func(s string) string { return `"` + s + `"` })
	case []int64:
		return list(v, func(n int64) string { return fmt.Sprint(n) })
	}
	return `'` + strings.ReplaceAll(fmt.Sprint(arg), `'`, `''`) + `'`
}

func list[T any](items []T, write func(T) string) string {
	written := make([]string, len(items))
	for i, item := range items {
		written[i] = write(item)
	}
	return `'{` + strings.Join(written, `,`) + `}'`
}
