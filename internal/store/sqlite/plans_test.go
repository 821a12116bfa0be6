package sqlite

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"latchkey.example/latchkey/internal/registration"
)

// A million enrollments must not be walked for one device: after every kind of call has been made, none of the statements that
// the connections have prepared walks a table, but the few that list or prune by an index.
func TestNoStatementWalksATable(t *testing.T) {
	t.Parallel()
	s, _ := openOnDisk(t, Options{})
	everyCall(t, s)
	checked := 0
	eachConn(t, s, func(c *conn) {
		for sql := range c.stmts {
			first := strings.Fields(sql)[0]
			if first == "PRAGMA" || strings.Contains("SAVEPOINT RELEASE ROLLBACK", first) {
				continue
			}
			for _, step := range plan(t, c, sql) {
				checked++
				if strings.HasPrefix(step, "SCAN") && !walksOnPurpose(step) && !strings.Contains(sql, "count(*), min(created) FROM outbox") { // which counts all there is
					t.Errorf("%s:\n%s", step, sql)
				}
			}
		}
	})
	if checked < 30 {
		t.Fatalf("only %d steps were checked", checked)
	}
}

// eachConn calls check with the store's writing connection, one that reads and that of the owners.
func eachConn(t *testing.T, s *Store, check func(c *conn)) {
	t.Helper()
	if _, err := s.write(t.Context(), func(c *conn) (registration.Verdict, error) { check(c); return registration.Conflict, nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.read(t.Context(), func(c *conn) error { check(c); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.owners.with(t.Context(), func(c *conn) error { check(c); return nil }); err != nil {
		t.Fatal(err)
	}
}

// Statements are planned once for all that is bound to them: SQLite would plan one with a bound LIMIT anew for each limit.
func TestNoStatementIsPlannedTwice(t *testing.T) {
	t.Parallel()
	s, _ := openOnDisk(t, Options{})
	everyCall(t, s)
	now := time.Unix(1000, 0)
	for limit := range 20 {
		_, err1 := s.Unfinished(t.Context(), now, registration.Unfinished{}, limit+1)
		_, err2 := s.Enrollments(t.Context(), testScope, "", limit+1)
		_, _, err3 := s.SealedValues(t.Context(), "", limit+1)
		_, err4 := s.Prune(t.Context(), now, now, limit+1)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
	}
	often := 0
	eachConn(t, s, func(c *conn) {
		for sql, st := range c.stmts {
			if n := st.Status(sqlite3.STMTSTATUS_REPREPARE, false); n > 0 {
				t.Errorf("planned anew %d times:\n%s", n, sql)
			}
			if strings.Contains(sql, "LIMIT ?") && st.Status(sqlite3.STMTSTATUS_RUN, false) >= 20 {
				often++
			}
		}
	})
	if often < 4 {
		t.Fatalf("only %d statements with a limit were run often", often)
	}
}

// walksOnPurpose: the tenants are few, and neither a constant row nor k, the one row of keys in deviceSQL, is a table.
func walksOnPurpose(step string) bool {
	return strings.HasPrefix(step, "SCAN scopes") || strings.Contains(step, "CONSTANT ROW") || step == "SCAN k"
}

func plan(t *testing.T, c *conn, sql string) (steps []string) {
	t.Helper()
	st, _, err := c.db.Prepare("EXPLAIN QUERY PLAN " + sql)
	if err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
	defer st.Close()
	for st.Step() {
		steps = append(steps, st.ColumnText(3))
	}
	if err := st.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}

func everyCall(t *testing.T, s *Store) {
	t.Helper()
	ctx, now := t.Context(), time.Unix(1000, 0)
	var a registration.Audit
	verdict, err := s.CreateScope(ctx, registration.Scope{ID: testScope, Hosts: []string{"h"}, Policies: []registration.AccessPolicy{{Name: "p"}}}, a)
	mustApply(t, verdict, err)
	e, verdict, err := s.PutEnrollment(ctx, testScope, registration.Enrollment{ID: "dev"}, nil, a, "")
	mustApply(t, verdict, err)
	_, verdict, err = s.Redeem(ctx, testScope, registration.Redemption{
		ID: "dev", EnrollmentRevision: e.Revision,
		Operation:    registration.Operation{ID: "op", RegistrationID: "dev", Generation: 1, Status: registration.Assigning},
		Registration: registration.Registration{ID: "dev", OperationID: "op"},
	})
	mustApply(t, verdict, err)
	verdict, err = s.Finish(ctx, testScope, registration.Finish{OperationID: "op", RegistrationID: "dev", Status: registration.Assigned})
	mustApply(t, verdict, err)
	verdict, err = s.Refuse(ctx, testScope, registration.Refused{ID: "dev", Generation: 1})
	mustApply(t, verdict, err)
	put := registration.IdentityPut{Identity: registration.Identity{Hub: "h", DeviceID: "d", Generation: 1}, Owner: new(string)}
	for put.Was = range uint64(2) {
		verdict, err = s.PutIdentity(ctx, testScope, put, a)
		mustApply(t, verdict, err)
	}
	_, err1 := s.Scopes(ctx)
	_, err2 := s.Device(ctx, testScope, "dev")
	_, err3 := s.Operation(ctx, testScope, "op")
	_, err4 := s.Identity(ctx, testScope, "h", "d")
	_, err5 := s.AuditByTrackingID(ctx, testScope, "")
	_, err6 := s.Owners(ctx, testScope, "dev", now)
	_, _, err7 := s.SealedValues(ctx, "", 100)
	err8 := s.RememberOwner(ctx, testScope, "dev", []byte("srk"), now)
	var replacements []registration.SealedReplacement
	for _, column := range sealedColumns {
		replacements = append(replacements, registration.SealedReplacement{SealedValue: registration.SealedValue{Kind: column.kind, Scope: testScope}})
	}
	_, err9 := s.ReplaceSealed(ctx, replacements)
	_, err10 := s.Enrollments(ctx, testScope, "", 100)
	_, err11 := s.Unfinished(ctx, now, registration.Unfinished{}, 100)
	_, err12 := s.AuditPage(ctx, testScope, 1, 100)
	for _, err := range []error{err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11, err12} {
		if err != nil {
			t.Fatal(err)
		}
	}
	everyGroupCall(t, s, a)
	everyHubCall(t, s, a)
	everyIdentityCall(t, s, a)
	everyOutboxCall(t, s)
	verdict, err = s.DeleteRegistration(ctx, testScope, "dev", nil, a, "")
	mustApply(t, verdict, err)
	verdict, err = s.DeleteEnrollment(ctx, testScope, "dev", nil, a, "")
	mustApply(t, verdict, err)
	if _, err := s.Prune(ctx, now, now, 10); err != nil {
		t.Fatal(err)
	}
}

func everyHubCall(t *testing.T, s *Store, a registration.Audit) {
	t.Helper()
	ctx := t.Context()
	_, verdict, err := s.PutHub(ctx, testScope, registration.LinkedHub{Name: "hub.example"}, nil, a)
	mustApply(t, verdict, err)
	_, verdict, err = s.PutAllocation(ctx, testScope, registration.AllocationSettings{}, nil, a)
	mustApply(t, verdict, err)
	_, err1 := s.HubDevices(ctx, testScope)
	_, err2 := s.Scopes(ctx)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	verdict, err = s.DeleteHub(ctx, testScope, "hub.example", nil, a)
	mustApply(t, verdict, err)
}

func everyOutboxCall(t *testing.T, s *Store) {
	t.Helper()
	ctx, work := t.Context(), &registration.Outbox{Kind: registration.OutboxAdvance, Object: "op-2"}
	device, err := s.Device(ctx, testScope, "dev")
	if err != nil {
		t.Fatal(err)
	}
	_, verdict, err := s.Redeem(ctx, testScope, registration.Redemption{
		ID: "dev", EnrollmentRevision: device.Enrollment.Revision, RegistrationBefore: device.Registration.Revision, Generation: device.Generation,
		Operation:    registration.Operation{ID: "op-2", RegistrationID: "dev", Generation: device.Generation + 1, Status: registration.Assigning},
		Registration: registration.Registration{ID: "dev", OperationID: "op-2"},
		Outbox:       work,
	})
	mustApply(t, verdict, err)
	rows, err := s.ClaimOutbox(ctx, registration.OutboxClaim{ID: "c", Kind: registration.OutboxAdvance, Limit: 10})
	if err != nil || len(rows) != 1 {
		t.Fatalf("claimed %+v, %v", rows, err)
	}
	if _, err := s.OutboxBacklog(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ClaimOutbox(ctx, registration.OutboxClaim{ID: "d", Kind: registration.OutboxAdvance, Limit: 10}); err != nil {
		t.Fatal(err)
	}
	verdict, err = s.PostponeOutbox(ctx, testScope, *work, "d", 0, "")
	mustApply(t, verdict, err)
	verdict, err = s.SettleOutbox(ctx, testScope, *work, "d")
	if verdict != registration.Conflict || err != nil {
		t.Fatalf("verdict %d, %v", verdict, err)
	}
	owner, err := s.HubOwner(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"me", "me", ""} {
		next := registration.HubOwner{ID: id, Beat: owner.Beat + 1}
		verdict, err = s.MoveHub(ctx, owner, next)
		mustApply(t, verdict, err)
		owner = next
	}
}

func everyGroupCall(t *testing.T, s *Store, a registration.Audit) {
	t.Helper()
	ctx, now := t.Context(), time.Unix(1000, 0)
	_, verdict, err := s.PutGroup(ctx, testScope, registration.Group{ID: "g", Certificates: [][32]byte{{1}}}, nil, a, "")
	mustApply(t, verdict, err)
	_, verdict, err = s.PutCACertificate(ctx, testScope, registration.CACertificate{Name: "ca"}, nil, a)
	mustApply(t, verdict, err)
	revision, err := s.GroupsRevision(ctx, testScope)
	if err != nil {
		t.Fatal(err)
	}
	_, verdict, err = s.Redeem(ctx, testScope, registration.Redemption{
		ID: "member", GroupsRevision: revision,
		Operation:    registration.Operation{ID: "op-m", RegistrationID: "member", Generation: 1, Group: "g"},
		Registration: registration.Registration{ID: "member", OperationID: "op-m", Group: "g", DeviceID: "m"},
	})
	mustApply(t, verdict, err)
	_, err1 := s.Group(ctx, testScope, "g")
	_, err2 := s.Groups(ctx, testScope, "", 10)
	_, err3 := s.CACertificates(ctx, testScope, "", 10)
	_, err4 := s.Registrations(ctx, testScope, "", "", 10)
	_, err5 := s.Registrations(ctx, testScope, "g", "", 10)
	_, err6 := s.Holdings(ctx, testScope)
	_, err7 := s.ExpireAudit(ctx, testScope, now, 10, &a)
	_, err8 := s.PutScopeCertificate(ctx, testScope, nil, nil, a)
	for _, err := range []error{err1, err2, err3, err4, err5, err6, err7, err8} {
		if err != nil {
			t.Fatal(err)
		}
	}
	verdict, err = s.DeleteGroup(ctx, testScope, "g", nil, a, "")
	mustApply(t, verdict, err)
	verdict, err = s.DeleteCACertificate(ctx, testScope, "ca", nil, a)
	mustApply(t, verdict, err)
	verdict, err = s.CreateScope(ctx, registration.Scope{ID: "0negone", Hosts: []string{"gone"}}, a)
	mustApply(t, verdict, err)
	verdict, err = s.DeleteScope(ctx, "0negone", a)
	mustApply(t, verdict, err)
	for range 2 {
		if _, err := s.PruneScopes(ctx, now, 100); err != nil {
			t.Fatal(err)
		}
	}
}

// everyIdentityCall is all that the embedded hub asks for of a device that has an identity of generation 1.
func everyIdentityCall(t *testing.T, s *Store, a registration.Audit) {
	t.Helper()
	ctx := t.Context()
	for was := range uint64(2) {
		verdict, err := s.PutTwin(ctx, testScope, registration.TwinPut{Twin: registration.Twin{Hub: "h", DeviceID: "d"}, Was: was})
		mustApply(t, verdict, err)
	}
	for range 2 {
		_, verdict, err := s.EnqueueMessage(ctx, testScope, registration.HubMessage{Hub: "h", DeviceID: "d"}, 50)
		mustApply(t, verdict, err)
	}
	verdict, err := s.DeliveredMessage(ctx, testScope, "h", "d", 1)
	mustApply(t, verdict, err)
	verdict, err = s.SettleMessage(ctx, testScope, "h", "d", 1)
	mustApply(t, verdict, err)
	_, err1 := s.Twin(ctx, testScope, "h", "d")
	_, err2 := s.Messages(ctx, testScope, "h", "d", 0, 50)
	_, err3 := s.CountMessages(ctx, testScope, "h", "d")
	_, err4 := s.ExpireMessages(ctx, time.Unix(1000, 0), 50)
	_, err5 := s.Identities(ctx, testScope, "h", "", 50)
	_, err6 := s.IdentityGeneration(ctx, testScope, "h", "d")
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	for _, was := range []uint64{1, 0} {
		verdict, err = s.DeleteIdentity(ctx, testScope, registration.IdentityDelete{Hub: "h", DeviceID: "d", Was: was, Generation: 1, Owner: new(string)}, a)
		mustApply(t, verdict, err)
	}
}
