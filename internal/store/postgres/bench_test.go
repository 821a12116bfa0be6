package postgres

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"latchkey.example/latchkey/internal/registration"
)

// BenchmarkRegistration is what the store does for one device that registers: read, redeem, finish.
func BenchmarkRegistration(b *testing.B) {
	for _, devices := range []int{1, 16} {
		b.Run(fmt.Sprintf("%d at once", devices), func(b *testing.B) {
			s := openNew(b, Options{})
			defer s.Close()
			ctx := context.Background()
			puts := make([]registration.EnrollmentPut, 0, registration.MaxAtomic)
			for i := range b.N {
				id := fmt.Sprint("dev-", i)
				puts = append(puts, registration.EnrollmentPut{Enrollment: registration.Enrollment{ID: id, Created: epoch, Updated: epoch}, Audit: testAudit(id)})
				if len(puts) == cap(puts) || i == b.N-1 {
					if _, err := s.PutAllEnrollments(ctx, scope, puts); err != nil {
						b.Fatal(err)
					}
					puts = puts[:0]
				}
			}
			b.SetParallelism(devices)
			b.ResetTimer()
			var next atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := registerOnce(ctx, s, fmt.Sprint("dev-", next.Add(1)-1)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func registerOnce(ctx context.Context, s *Store, id string) error {
	d, err := s.Device(ctx, scope, id)
	if err != nil || d.Enrollment == nil {
		return fmt.Errorf("device %s: %w", id, err)
	}
	r := registration.Redemption{ID: id, EnrollmentRevision: d.Enrollment.Revision,
		Operation: registration.Operation{ID: id, RegistrationID: id, Status: registration.Assigning, Generation: 1, EK: make([]byte, 314), SRK: make([]byte, 122),
			SealedKey: make([]byte, 100), SealedHubKey: make([]byte, 100), Created: epoch, Updated: epoch},
		Registration: registration.Registration{ID: id, Status: registration.Assigning, Hub: "hub", DeviceID: id, OperationID: id, SRK: make([]byte, 122),
			SealedHubKey: make([]byte, 100), Created: epoch, Updated: epoch},
		Audit: testAudit("redeem " + id)}
	if _, verdict, err := s.Redeem(ctx, scope, r); err != nil || verdict != registration.Applied {
		return fmt.Errorf("redeem: verdict %d, %w", verdict, err)
	}
	if verdict, err := s.Finish(ctx, scope, finishOf(id, id, id)); err != nil || verdict != registration.Applied {
		return fmt.Errorf("finish: verdict %d, %w", verdict, err)
	}
	return nil
}
