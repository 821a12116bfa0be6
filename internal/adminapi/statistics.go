package adminapi

import (
	"context"

	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// Statistics is the answer of GET /latchkey/v1/statistics. Kinds of which there are none are left out.
type Statistics struct {
	Enrollments         map[string]uint64 `json:"enrollments"` // by mechanism
	DisabledEnrollments uint64            `json:"disabledEnrollments"`
	EnrollmentGroups    map[string]uint64 `json:"enrollmentGroups"` // by mechanism
	Registrations       map[string]uint64 `json:"registrations"`    // by status
}

func (a *API) statistics(ctx context.Context, _ web.Call, by registration.Caller) (web.Reply, error) {
	held, err := a.core.Statistics(ctx, by)
	return jsonReply(Statistics{Enrollments: named(held.Enrollments), DisabledEnrollments: held.Disabled,
		EnrollmentGroups: named(held.Groups), Registrations: named(held.Registrations)}, err)
}

func named[K ~string](counts map[K]uint64) map[string]uint64 {
	all := make(map[string]uint64, len(counts))
	for name, n := range counts {
		all[string(name)] = n
	}
	return all
}
