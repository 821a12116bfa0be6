package storetest

import (
	"sync"

	"latchkey.example/latchkey/internal/registration"
)

func put(id, salt string, expect *uint64) registration.EnrollmentPut {
	return registration.EnrollmentPut{Enrollment: enrollment(id, salt), Expect: expect, Audit: audit("put "+id+" "+salt, epoch)}
}

func enrollmentsPutTogether(w *world) {
	there := w.enroll(scope, "there")
	kept := w.enroll(scope, "kept")
	verdicts, err := w.store.PutEnrollments(w.ctx, scope, []registration.EnrollmentPut{
		put("new", "1", nil),
		put("there", "2", nil),
		put("THERE", "3", pointer(there.Revision)),
		put("there", "4", pointer(there.Revision)), // the row before moved it
		put("absent", "5", anyRevision),
		put("kept", "6", pointer(kept.Revision+100)),
		put("New", "7", nil), // the first row made it
		put("last", "8", nil),
	})
	w.ok(err)
	w.same("verdicts", verdicts, []registration.Verdict{registration.Applied, registration.Exists, registration.Applied, registration.Conflict,
		registration.Missing, registration.Conflict, registration.Exists, registration.Applied})

	revision := there.Revision
	for _, row := range []struct{ id, spelled, salt string }{{"new", "new", "1"}, {"there", "THERE", "3"}, {"last", "last", "8"}} {
		got := *w.device(scope, row.id).Enrollment
		want := enrollment(row.spelled, row.salt)
		want.Revision = got.Revision
		w.same(row.id, got, want)
		if got.Revision <= revision {
			w.Fatalf("%s has revision %d after %d", row.id, got.Revision, revision)
		}
		revision = got.Revision
		w.audited(scope, "put "+row.spelled+" "+row.salt, 1)
	}
	w.same("kept", *w.device(scope, "kept").Enrollment, kept)
	w.same("absent", w.device(scope, "absent"), registration.Device{})
	for _, refused := range []string{"put there 2", "put there 4", "put absent 5", "put kept 6", "put New 7"} {
		w.audited(scope, refused, 0)
	}
	w.same("another scope", w.device("other", "new"), registration.Device{})

	verdicts, err = w.store.PutEnrollments(w.ctx, scope, nil)
	if err != nil || len(verdicts) != 0 {
		w.Fatalf("none: %v, %v", verdicts, err)
	}
}

func enrollmentsTooMany(w *world) {
	var puts []registration.EnrollmentPut
	for i := range registration.MaxPuts + 1 {
		puts = append(puts, put(numbered("dev", i), "x", nil))
	}
	if _, err := w.store.PutEnrollments(w.ctx, scope, puts); err == nil {
		w.Fatal("one row too many was taken")
	}
	w.same("first", w.device(scope, "dev-000"), registration.Device{})
	verdicts, err := w.store.PutEnrollments(w.ctx, scope, puts[1:])
	w.ok(err)
	for i, verdict := range verdicts {
		if verdict != registration.Applied {
			w.Fatalf("row %d: verdict %d", i, verdict)
		}
	}
	if len(verdicts) != registration.MaxPuts {
		w.Fatalf("%d verdicts", len(verdicts))
	}
}

// enrollmentsPutBeside: two writers of many rows and one of single transitions; each row is there once and has one audit row.
func enrollmentsPutBeside(w *world) {
	const batches, size = 5, 40
	var group sync.WaitGroup
	for _, writer := range []string{"one", "two"} {
		group.Go(func() {
			for batch := range batches {
				var puts []registration.EnrollmentPut
				for i := range size {
					puts = append(puts, put(numbered("shared", batch*size+i), writer, nil))
				}
				verdicts, err := w.store.PutEnrollments(w.ctx, scope, puts)
				if err != nil {
					w.Errorf("%s: %v", writer, err)
					return
				}
				for i, verdict := range verdicts {
					if verdict != registration.Applied && verdict != registration.Exists {
						w.Errorf("%s row %d: verdict %d", writer, i, verdict)
					}
				}
			}
		})
	}
	for i := range batches * size {
		e := enrollment(numbered("alone", i), "alone")
		_, verdict, err := w.store.PutEnrollment(w.ctx, scope, e, nil, audit("alone", epoch), "")
		w.applied(verdict, err)
	}
	group.Wait()
	for i := range batches * size {
		id := numbered("shared", i)
		e := w.device(scope, id).Enrollment
		if e == nil {
			w.Fatalf("%s is not there", id)
		}
		winner, loser := "one", "two"
		if string(e.EK) == "ek two" {
			winner, loser = loser, winner
		}
		w.audited(scope, "put "+id+" "+winner, 1)
		w.audited(scope, "put "+id+" "+loser, 0)
	}
}
