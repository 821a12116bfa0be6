package storetest

import "latchkey.example/latchkey/internal/registration"

// enrollmentsAllOrNone: one refused row undoes all, its audit rows and revisions too, and every refused row is told.
func enrollmentsAllOrNone(w *world) {
	there := w.enroll(scope, "there")
	puts := []registration.EnrollmentPut{
		put("new", "1", nil),
		put("there", "2", pointer(there.Revision)),
		put("NEW", "3", anyRevision), // the first row makes it
		put("there", "4", nil),
		put("absent", "5", anyRevision),
		put("last", "6", nil),
	}
	verdicts, err := w.store.PutAllEnrollments(w.ctx, scope, puts)
	w.ok(err)
	w.same("verdicts", verdicts, []registration.Verdict{registration.Applied, registration.Applied, registration.Applied, registration.Exists,
		registration.Missing, registration.Applied})
	w.same("there", *w.device(scope, "there").Enrollment, there)
	for _, id := range []string{"new", "absent", "last"} {
		w.same(id, w.device(scope, id), registration.Device{})
	}
	for _, row := range puts {
		w.audited(scope, row.Audit.TrackingID, 0)
	}

	good := []registration.EnrollmentPut{puts[0], puts[1], puts[2], puts[5]}
	verdicts, err = w.store.PutAllEnrollments(w.ctx, scope, good)
	w.ok(err)
	w.same("verdicts", verdicts, []registration.Verdict{registration.Applied, registration.Applied, registration.Applied, registration.Applied})
	for _, row := range []struct{ id, spelled, salt string }{{"there", "there", "2"}, {"new", "NEW", "3"}, {"last", "last", "6"}} {
		got := *w.device(scope, row.id).Enrollment
		want := enrollment(row.spelled, row.salt)
		want.Revision = got.Revision
		w.same(row.id, got, want)
	}
	for _, name := range []string{"put new 1", "put there 2", "put NEW 3", "put last 6"} {
		w.audited(scope, name, 1)
	}
	w.same("another scope", w.device("other", "new"), registration.Device{})
	verdicts, err = w.store.PutAllEnrollments(w.ctx, scope, nil)
	if err != nil || len(verdicts) != 0 {
		w.Fatalf("none: %v, %v", verdicts, err)
	}
}

// enrollmentsAllAtTheLimit: as many as may be are one transition, and one more is none.
func enrollmentsAllAtTheLimit(w *world) {
	var puts []registration.EnrollmentPut
	for i := range registration.MaxAtomic + 1 {
		puts = append(puts, put(numbered("dev", i), "x", nil))
	}
	if _, err := w.store.PutAllEnrollments(w.ctx, scope, puts); err == nil {
		w.Fatal("one row too many was taken")
	}
	w.same("first", w.device(scope, puts[0].Enrollment.ID), registration.Device{})
	puts[registration.MaxAtomic-1].Expect = anyRevision // the last one is not there
	verdicts, err := w.store.PutAllEnrollments(w.ctx, scope, puts[:registration.MaxAtomic])
	w.ok(err)
	w.same("the last", verdicts[registration.MaxAtomic-1], registration.Missing)
	w.same("first", w.device(scope, puts[0].Enrollment.ID), registration.Device{})
	puts[registration.MaxAtomic-1].Expect = nil
	verdicts, err = w.store.PutAllEnrollments(w.ctx, scope, puts[:registration.MaxAtomic])
	w.ok(err)
	for i, verdict := range verdicts {
		if verdict != registration.Applied {
			w.Fatalf("row %d: verdict %d", i, verdict)
		}
	}
	last, err := w.store.Enrollments(w.ctx, scope, puts[registration.MaxAtomic-2].Enrollment.ID, 1)
	w.ok(err)
	if len(last) == 0 {
		w.Fatal("the last one is not there")
	}
}
