package postgres

import (
	"errors"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// aLittle of everything that is listed and swept.
func aLittle(t *testing.T, s *Store) {
	t.Helper()
	ctx, a := t.Context(), testAudit("operator")
	enroll(t, s, "dev")
	redeemed(t, s, "dev", "op-1")
	ordered(t, s, "remote", "op-2")
	_, verdict, err := s.PutGroup(ctx, scope, registration.Group{ID: "line", Certificates: [][32]byte{{1}}, Created: epoch, Updated: epoch}, nil, a, "")
	applied(t, verdict, err)
	verdict, err = s.CreateScope(ctx, registration.Scope{ID: "gone", Hosts: []string{"gone"}}, a)
	applied(t, verdict, err)
	verdict, err = s.DeleteScope(ctx, "gone", a)
	applied(t, verdict, err)
}

// operatorCalls makes the calls that list, count and sweep: what operators and the background of the service cause.
func operatorCalls(t *testing.T, s *Store) {
	t.Helper()
	ctx, a := t.Context(), testAudit("expired")
	_, err1 := s.Unfinished(ctx, epoch.Add(time.Hour), registration.Unfinished{}, 100)
	_, err2 := s.Prune(ctx, epoch.Add(-time.Hour), epoch.Add(-time.Hour), 100)
	_, err3 := s.PruneScopes(ctx, epoch.Add(time.Hour), 100)
	_, _, err4 := s.SealedValues(ctx, "", 100)
	_, err5 := s.Enrollments(ctx, scope, "", 10)
	_, err6 := s.Registrations(ctx, scope, "", "", 10)
	_, err7 := s.Registrations(ctx, scope, "line", "", 10)
	_, err8 := s.Groups(ctx, scope, "", 10)
	_, err9 := s.CACertificates(ctx, scope, "", 10)
	_, err10 := s.Holdings(ctx, scope)
	_, err11 := s.AuditPage(ctx, scope, 0, 10)
	_, err12 := s.AuditByTrackingID(ctx, scope, "operator")
	_, err13 := s.ExpireAudit(ctx, scope, epoch.Add(time.Second), 1, &a)
	work := registration.Outbox{Kind: registration.OutboxAdvance, Object: "op-2"}
	_, err14 := s.ClaimOutbox(ctx, registration.OutboxClaim{ID: "c", Kind: work.Kind, Limit: 10})
	_, err15 := s.PostponeOutbox(ctx, scope, work, "c", 0, "")
	_, err16 := s.SettleOutbox(ctx, scope, work, "c")
	_, err17 := s.OutboxBacklog(ctx)
	_, err18 := s.HubOwner(ctx)
	_, err19 := s.MoveHub(ctx, registration.HubOwner{}, registration.HubOwner{ID: "me"})
	_, err20 := s.MoveHub(ctx, registration.HubOwner{ID: "me"}, registration.HubOwner{ID: "me", Beat: 1})
	_, err21 := s.Identities(ctx, scope, "hub", "", 10)
	_, err22 := s.ExpireMessages(ctx, epoch, 10)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11, err12, err13, err14, err15, err16, err17, err18, err19, err20, err21, err22); err != nil {
		t.Fatal(err)
	}
}

// fillLog gives operations an age, of which one in two hundred is unfinished, and the scope a log.
func fillLog(t *testing.T, s *Store, n int) {
	t.Helper()
	err := s.read(t.Context(), func(c *conn) error {
		_, err := c.exec(`UPDATE operations SET created = revision, status = CASE WHEN revision % 200 = 0 THEN 'assigning' ELSE 'assigned' END`)
		if err != nil {
			return err
		}
		_, err = c.exec(`INSERT INTO outbox (scope, kind, object, created, due, claim, attempts, failure)
			SELECT $1, 'advance', 'x' || i, i, i, '', 0, '' FROM generate_series(1, $2::int) AS i`, scope, n)
		if err != nil {
			return err
		}
		_, err = c.exec(`INSERT INTO hub_messages (scope, hub, device_id, n, id, correlation_id, user_id, ack, properties, enqueued, expires, deliveries, body)
			SELECT $1, 'hub', 'x' || i, 1, '', '', '', '', '', 0, i, 0, '' FROM generate_series(1, $2::int) AS i ON CONFLICT DO NOTHING`, scope, n)
		if err != nil {
			return err
		}
		_, err = c.exec(`INSERT INTO identity_generations (scope, hub, device_id, generation, version, at)
			SELECT $1, 'hub', 'z' || i, 1, 1, i FROM generate_series(1, $2::int) AS i`, scope, n)
		if err != nil {
			return err
		}
		_, err = c.exec(`INSERT INTO audit (scope, at, actor, address, action, object, outcome, reason, tracking_id, detail)
			SELECT $1, i, '', '', '', '', '', 0, 't' || i, '' FROM generate_series(1, $2::int) AS i`, scope, n)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What lists and sweeps reads no more than it returns: no table is walked, none joined as a whole, none put in order that has one already. The
// tenants are few, and what is counted is walked by definition.
func TestOperatorsAndSweepsWalkNoTable(t *testing.T) {
	t.Parallel()
	record := &recorder{calls: map[string][]any{}}
	address := server.Address(newDatabase(t))
	plain := reopen(t, address, Options{})
	defer closeStore(t, plain)
	s := reopen(t, address, Options{tracer: record})
	defer closeStore(t, s)
	aLittle(t, plain)
	operatorCalls(t, s)
	t.Run("nearly empty", func(t *testing.T) { judgeOperatorPlans(t, plain, record) })
	fill(t, plain, 16000)
	fillLog(t, plain, 16000)
	t.Run("filled", func(t *testing.T) { judgeOperatorPlans(t, plain, record) })
	if err := plain.read(t.Context(), func(c *conn) error { _, err := c.exec(`ANALYZE`); return err }); err != nil {
		t.Fatal(err)
	}
	t.Run("analyzed", func(t *testing.T) { judgeOperatorPlans(t, plain, record) })
}

func judgeOperatorPlans(t *testing.T, plain *Store, record *recorder) {
	judged := 0
	for sql, args := range record.calls {
		if strings.Contains(sql, "latchkey_schema") || strings.Contains(sql, "count(*)") {
			continue
		}
		judged++
		var steps []string
		walks := false
		explain(t, plain, sql, args).walk(func(n node) {
			steps = append(steps, n.Type+" "+n.Relation+" "+n.Index)
			switch n.Type {
			case "Seq Scan":
				walks = walks || n.Relation != "scopes"
			case "Hash Join", "Merge Join", "Sort":
				walks = true
			}
		})
		if walks {
			t.Errorf("%s\nis\n%s", sql, strings.Join(steps[:min(len(steps), 12)], "\n"))
		}
	}
	if judged < 40 {
		t.Fatalf("only %d statements were judged", judged)
	}
}
