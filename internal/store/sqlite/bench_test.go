package sqlite

import (
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

const benchDevices = 2000

// filled opens a database on the real file system with enrolled devices whose rows are of real size.
func filled(b *testing.B) (*Store, []registration.Enrollment) {
	b.Helper()
	s := openNew(b, Options{})
	b.Cleanup(func() { s.Close() })
	enrolled := make([]registration.Enrollment, benchDevices)
	for first := 0; first < benchDevices; first += batchLimit {
		last := min(first+batchLimit, benchDevices)
		if _, err := s.write(b.Context(), func(c *conn) (registration.Verdict, error) {
			for i := first; i < last; i++ {
				e := registration.Enrollment{ID: rand.Text() + rand.Text(), EK: random(316), Document: random(560), Created: time.Now()}
				if verdict, err := putEnrollment(c, testScope, e, nil, registration.Audit{}, &enrolled[i]); err != nil {
					return verdict, err
				}
			}
			return registration.Applied, nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	return s, enrolled
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// redeemer redeems the challenges of one device, one after the other, without reading in between.
type redeemer struct {
	store    *Store
	enrolled registration.Enrollment
	seal     []byte
	blob     []byte
}

func (r *redeemer) redeem(b *testing.B, n uint64) {
	d, err := r.store.Device(b.Context(), testScope, r.enrolled.ID)
	if err != nil {
		b.Error(err)
		return
	}
	op := fmt.Sprintf("4.%s.%d", r.enrolled.ID[:16], n)
	redemption := registration.Redemption{
		ID: r.enrolled.ID, Generation: d.Generation, EnrollmentRevision: r.enrolled.Revision,
		Operation: registration.Operation{
			ID: op, RegistrationID: r.enrolled.ID, Status: registration.Assigning, Generation: d.Generation + 1,
			SealedKey: r.seal, EK: r.blob, SRK: r.blob, SealedHubKey: r.seal, TrackingID: op, Created: time.Now(),
		},
		Registration: registration.Registration{
			ID: r.enrolled.ID, Status: registration.Assigning, DeviceID: r.enrolled.ID, SRK: r.blob, SealedHubKey: r.seal, OperationID: op, Created: time.Now(),
		},
		Audit: registration.Audit{At: time.Now(), Actor: "device", Action: "register", Object: r.enrolled.ID, TrackingID: op},
	}
	if d.Registration != nil {
		redemption.RegistrationBefore = d.Registration.Revision
	}
	if _, verdict, err := r.store.Redeem(b.Context(), testScope, redemption); err != nil || verdict != registration.Applied {
		b.Errorf("verdict %d, %v", verdict, err)
	}
}

// BenchmarkRedeem is one read of the device and one redemption. batch is how many transitions shared a commit.
func BenchmarkRedeem(b *testing.B) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s, enrolled := filled(b)
			var next, count atomic.Uint64
			before := s.Stats()
			b.SetParallelism(max(1, clients/2)) // of two processors
			b.ReportAllocs()
			b.ResetTimer()
			work := func(more func() bool) {
				for more() {
					r := redeemer{s, enrolled[next.Add(1)%benchDevices], make([]byte, 72), make([]byte, 316)}
					r.redeem(b, count.Add(1))
				}
			}
			if clients == 1 {
				work(b.Loop)
			} else {
				b.RunParallel(func(pb *testing.PB) { work(pb.Next) })
			}
			after := s.Stats()
			b.ReportMetric(float64(after.Transitions-before.Transitions)/float64(after.Commits-before.Commits), "batch")
		})
	}
}

// BenchmarkDevice reads a device with all its parts.
func BenchmarkDevice(b *testing.B) {
	s, enrolled := filled(b)
	for i, e := range enrolled[:500] {
		r := redeemer{s, e, make([]byte, 72), make([]byte, 316)}
		r.redeem(b, uint64(i))
	}
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			mustRead(b, s, enrolled[i%500].ID)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				mustRead(b, s, enrolled[i%500].ID)
			}
		})
	})
}

func mustRead(b *testing.B, s *Store, id string) {
	d, err := s.Device(b.Context(), testScope, id)
	if err != nil || d.Operation == nil {
		b.Errorf("%+v, %v", d, err)
	}
}

// BenchmarkRememberOwner is one first contact.
func BenchmarkRememberOwner(b *testing.B) {
	s := openNew(b, Options{})
	defer s.Close()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		srk := fmt.Appendf(make([]byte, 300), "%d", i)
		if err := s.RememberOwner(b.Context(), testScope, fmt.Sprint("dev", i%5000), srk, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkImport puts new enrollments of real size together, as an import does; an operation is one enrollment.
func BenchmarkImport(b *testing.B) {
	s := openNew(b, Options{})
	defer s.Close()
	b.ReportAllocs()
	puts := make([]registration.EnrollmentPut, 0, registration.MaxPuts)
	flush := func() {
		verdicts, err := s.PutEnrollments(b.Context(), testScope, puts)
		if err != nil {
			b.Fatal(err)
		}
		for _, verdict := range verdicts {
			if verdict != registration.Applied {
				b.Fatalf("verdict %d", verdict)
			}
		}
		puts = puts[:0]
	}
	for b.Loop() {
		id := rand.Text() + rand.Text()
		puts = append(puts, registration.EnrollmentPut{
			Enrollment: registration.Enrollment{ID: id, EK: random(316), Document: random(560), Created: time.Now(), Updated: time.Now()},
			Audit:      registration.Audit{At: time.Now(), Actor: "policy:owner", Action: registration.ActionEnrollmentPut, Object: id, Outcome: registration.OutcomeOK, Detail: `{"before":null,"after":{}}`},
		})
		if len(puts) == registration.MaxPuts {
			flush()
		}
	}
	flush()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
