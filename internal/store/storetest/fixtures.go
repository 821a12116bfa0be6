package storetest

import (
	"crypto/sha256"
	"fmt"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Fixtures fill every field with something that no other field holds, so that a column taken for another shows.

func audit(trackingID string, at time.Time) registration.Audit {
	return registration.Audit{
		At: at, Actor: "policy:owner", Address: "192.0.2.1:5671", Action: "test", Object: "object of " + trackingID,
		Outcome: "ok", Reason: registration.ReasonRegistered, TrackingID: trackingID, Detail: `{"n":1}`,
	}
}

func enrollment(id, salt string) registration.Enrollment {
	return registration.Enrollment{
		ID: id, Mechanism: registration.Mechanism("mechanism " + salt), EK: []byte("ek " + salt), EKKeyID: sha256.Sum256([]byte("ek " + salt)), PinnedSRK: []byte("pinned " + salt),
		Keys:     registration.SealedKeys{Primary: []byte("primary " + salt), Secondary: []byte("secondary " + salt)},
		DeviceID: "device " + salt, Disabled: len(salt)%2 == 0, Document: []byte(`{"salt":"` + salt + `"}`),
		Created: epoch, Updated: epoch.Add(time.Second),
	}
}

func group(id, salt string) registration.Group {
	return registration.Group{
		ID: id, Mechanism: registration.Mechanism("mechanism " + salt),
		Keys:         registration.SealedKeys{Primary: []byte("primary " + salt), Secondary: []byte("secondary " + salt)},
		Certificates: [][32]byte{sha256.Sum256([]byte("ca " + salt)), sha256.Sum256([]byte("other ca " + salt))},
		Disabled:     len(salt)%2 == 0, Document: []byte(`{"group":"` + salt + `"}`), Created: epoch, Updated: epoch.Add(time.Second),
	}
}

func caCertificate(name, salt string) registration.CACertificate {
	return registration.CACertificate{Name: name, DER: []byte("der " + salt), Verified: len(salt)%2 == 0, Created: epoch, Updated: epoch.Add(time.Second)}
}

// redemption redeems the challenge that the snapshot allows; operationID is its salt.
func redemption(id string, d registration.Device, operationID string, at time.Time) registration.Redemption {
	r := registration.Redemption{
		ID: id, Generation: d.Generation,
		Operation: registration.Operation{
			ID: operationID, RegistrationID: id, Status: registration.Assigning, Substatus: "initial " + operationID,
			Generation: d.Generation + 1, Mechanism: registration.Mechanism("op mechanism " + operationID), TokenDigest: sha256.Sum256([]byte("token " + operationID)),
			SealedKey: []byte("challenge key " + operationID), EK: []byte("op ek " + operationID),
			SRK: []byte("op srk " + operationID), SealedHubKey: []byte("hub key " + operationID),
			Hub: "op hub " + operationID, DeviceID: "op device " + operationID, ErrorCode: 11, ErrorMessage: "op error",
			TrackingID: "tracking " + operationID, Created: at, Updated: at.Add(time.Microsecond), Plan: []byte("plan " + operationID),
		},
		Registration: registration.Registration{
			ID: id, Status: registration.Assigning, Substatus: "reg " + operationID, Hub: "reg hub " + operationID,
			DeviceID: "reg device " + operationID, Mechanism: registration.Mechanism("reg mechanism " + operationID), EKKeyID: sha256.Sum256([]byte("reg ek " + operationID)),
			SRK: []byte("reg srk " + operationID), SealedHubKey: []byte("hub key " + operationID),
			HubKeyGeneration: d.Generation + 1, OperationID: operationID, ErrorCode: 12, ErrorMessage: "reg error",
			Created: at.Add(2 * time.Microsecond), Updated: at.Add(3 * time.Microsecond),
			Leaving: []string{"leaving." + operationID}, Saved: []byte("saved " + operationID), Payload: []byte("payload " + operationID),
		},
		Audit: audit("redeem "+operationID, at),
	}
	if d.Enrollment != nil {
		r.EnrollmentRevision = d.Enrollment.Revision
	}
	if d.Registration != nil {
		r.RegistrationBefore = d.Registration.Revision
	}
	return r
}

func finish(id, operationID string, status registration.Status, at time.Time) registration.Finish {
	return registration.Finish{
		OperationID: operationID, RegistrationID: id, Status: status, Substatus: "done " + operationID,
		Hub: "hub.example " + operationID, DeviceID: "at hub " + operationID, ErrorCode: 21, ErrorMessage: "why " + operationID,
		Payload: []byte("returned " + operationID),
		At:      at, Audit: audit("finish "+operationID, at),
	}
}

// finished is what Finish makes of an operation, finishedRegistration of a registration (but for its revision).
func finished(o registration.Operation, f registration.Finish) registration.Operation {
	o.Status, o.Substatus, o.Hub, o.DeviceID = f.Status, f.Substatus, f.Hub, f.DeviceID
	o.ErrorCode, o.ErrorMessage, o.Updated, o.Plan = f.ErrorCode, f.ErrorMessage, f.At, nil
	return o
}

func finishedRegistration(r registration.Registration, f registration.Finish) registration.Registration {
	r.Status, r.ErrorCode, r.ErrorMessage, r.Updated, r.Payload = f.Status, f.ErrorCode, f.ErrorMessage, f.At, f.Payload
	if f.Status == registration.Assigned {
		r.Substatus, r.Hub, r.DeviceID, r.Leaving, r.Saved = f.Substatus, f.Hub, f.DeviceID, nil, nil
	}
	return r
}

// allocated is what Allocate makes of an operation and a registration, but for its revision.
func allocated(o registration.Operation, r registration.Registration, a registration.Allocated) (registration.Operation, registration.Registration) {
	o.Hub, o.DeviceID, o.Substatus, o.Plan, o.Updated = a.Hub, a.DeviceID, a.Substatus, a.Plan, a.At
	r.Hub, r.DeviceID, r.Leaving, r.Updated = a.Hub, a.DeviceID, a.Leaving, a.At
	return o, r
}

func allocation(id, operationID string, at time.Time) registration.Allocated {
	return registration.Allocated{
		OperationID: operationID, RegistrationID: id, Hub: "hub.example " + operationID, DeviceID: "late device " + operationID,
		Leaving: []string{"left." + operationID, "left.too"}, Substatus: "late " + operationID, Plan: []byte("late plan " + operationID), At: at,
	}
}

func savedMove(id, operationID string, at time.Time) registration.SavedMove {
	return registration.SavedMove{OperationID: operationID, RegistrationID: id, Data: []byte("data of " + operationID), At: at}
}

// enroll creates an enrollment and returns it as stored.
func (w *world) enroll(scope, id string) registration.Enrollment {
	w.Helper()
	e, verdict, err := w.store.PutEnrollment(w.ctx, scope, enrollment(id, id), nil, audit("enroll "+dps.FoldID(id), epoch), "")
	w.applied(verdict, err)
	return e
}

// group creates a group and returns it as stored.
func (w *world) group(scope, id string) registration.Group {
	w.Helper()
	g, verdict, err := w.store.PutGroup(w.ctx, scope, group(id, id), nil, audit("group "+dps.FoldID(id), epoch), "")
	w.applied(verdict, err)
	return g
}

// redeem redeems the id's current challenge.
func (w *world) redeem(scope, id, operationID string, at time.Time) registration.Redemption {
	w.Helper()
	r := redemption(id, w.device(scope, id), operationID, at)
	r.Operation.Revision = w.redeemed(w.store.Redeem(w.ctx, scope, r))
	return r
}

func (w *world) finish(scope, id, operationID string, status registration.Status) {
	w.Helper()
	w.applied(w.store.Finish(w.ctx, scope, finish(id, operationID, status, epoch.Add(time.Minute))))
}

func pointer[T any](v T) *T { return &v }

var anyRevision = pointer(uint64(registration.AnyRevision))

func numbered(prefix string, n int) string { return fmt.Sprintf("%s-%03d", prefix, n) }
