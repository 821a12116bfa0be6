package postgres

import (
	"context"
	"testing"

	"latchkey.example/latchkey/internal/registration"
)

// The table of device ids is kept beside the registrations: a name at a hub is free once its device goes by another one, or goes.
func TestANameThatADeviceLeavesIsFree(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := openNew(t, Options{})
	defer closeStore(t, s)
	for _, id := range []string{"one", "two"} {
		enroll(t, s, id)
		redeemed(t, s, id, "op "+id)
	}
	redeemAs := func(id, operation, name string) registration.Verdict {
		t.Helper()
		r := redemption(t, s, id, operation)
		r.Registration.DeviceID = name
		_, verdict, err := s.Redeem(ctx, scope, r)
		if err != nil {
			t.Fatal(err)
		}
		return verdict
	}
	is := func(got, want registration.Verdict) {
		t.Helper()
		if got != want {
			t.Fatalf("verdict %d, want %d", got, want)
		}
	}
	is(redeemAs("two", "taken", "one"), registration.Taken)
	is(redeemAs("one", "moved", "elsewhere"), registration.Applied) // by a redemption
	is(redeemAs("two", "has it", "one"), registration.Applied)
	is(redeemAs("one", "taken back", "one"), registration.Taken)

	verdict, err := s.Finish(ctx, scope, finishOf("two", "has it", "two again")) // by the end of an operation
	applied(t, verdict, err)
	is(redeemAs("one", "back", "one"), registration.Applied)
	is(redeemAs("two", "wants", "elsewhere"), registration.Applied)

	verdict, err = s.DeleteRegistration(ctx, scope, "one", nil, testAudit("d"), "") // by deletion
	applied(t, verdict, err)
	is(redeemAs("two", "free again", "one"), registration.Applied)
	verdict, err = s.DeleteEnrollment(ctx, scope, "two", nil, testAudit("d"), "")
	applied(t, verdict, err)
	is(redeemAs("one", "last", "one"), registration.Applied)
	names := 0
	err = s.read(ctx, func(c *conn) error { return c.each(func(*row) { names++ }, `SELECT 1 FROM device_ids`) })
	if err != nil || names != 1 {
		t.Fatalf("%d names are held, %v", names, err)
	}
}
