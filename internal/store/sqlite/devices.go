package sqlite

import (
	"context"
	"strings"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// Device implements registration.DeviceStore. One statement reads all parts, so they are of one snapshot.
func (s *Store) Device(ctx context.Context, scope, id string) (registration.Device, error) {
	var d registration.Device
	err := s.read(ctx, func(c *conn) error {
		_, err := c.one(func(r *row) { d = scanDevice(r) }, deviceSQL, scope, dps.FoldID(id))
		return err
	})
	if err != nil {
		return registration.Device{}, err
	}
	return d, nil
}

const deviceSQL = `SELECT ` + deviceColumns + `
FROM (SELECT ?1 AS scope, ?2 AS folded) AS k ` + deviceJoins

// deviceColumns are what scanDevice reads, of the id that k names.
const deviceColumns = `coalesce(g.generation, 0),
	e.seq, e.id, e.revision, e.mechanism, e.ek, e.ek_key_id, e.pinned_srk, e.sealed_primary, e.sealed_secondary, e.certificates,
	e.device_id, e.disabled, e.document, e.created, e.updated,
	r.seq, r.id, r.revision, r.status, r.substatus, r.hub, r.device_id, r.mechanism, r.group_id, r.ek_key_id, r.srk, r.sealed_hub_key,
	r.hub_key_generation, r.operation_id, r.error_code, r.error_message, r.created, r.updated, r.leaving, r.saved, r.payload,
	o.seq, o.id, o.registration_id, o.status, o.substatus, o.generation, o.revision, o.mechanism, o.group_id, o.token_digest, o.sealed_key, o.ek, o.srk,
	o.sealed_hub_key, o.hub, o.device_id, o.error_code, o.error_message, o.tracking_id, o.created, o.updated, o.plan,
	coalesce(v.revision, 0)`

const deviceJoins = `LEFT JOIN generations   AS g ON g.scope = k.scope AND g.folded = k.folded
LEFT JOIN enrollments   AS e ON e.scope = k.scope AND e.folded = k.folded
LEFT JOIN registrations AS r ON r.scope = k.scope AND r.folded = k.folded
LEFT JOIN operations    AS o ON o.scope = r.scope AND o.id = r.operation_id AND o.folded = r.folded
LEFT JOIN group_revisions AS v ON v.scope = k.scope`

func scanDevice(r *row) registration.Device {
	d := registration.Device{Generation: r.uint()}
	if !r.absent(enrollmentColumns) {
		e := scanEnrollment(r)
		d.Enrollment = &e
	}
	if !r.absent(registrationColumns) {
		reg := scanRegistration(r)
		d.Registration = &reg
	}
	if !r.absent(operationColumns) {
		op := scanOperation(r)
		d.Operation = &op
	}
	d.GroupsRevision = r.uint()
	return d
}

// absent passes over the seq column of a joined row and, if the join found none, over its n other columns.
func (r *row) absent(n int) bool {
	none := r.null()
	r.skip(1)
	if none {
		r.skip(n)
	}
	return none
}

// Columns that the scan functions read, in the order of the fields.
const (
	enrollmentColumns   = 14
	registrationColumns = 20
	operationColumns    = 21
)

func scanEnrollment(r *row) registration.Enrollment {
	return registration.Enrollment{
		ID: r.text(), Revision: r.uint(), Mechanism: registration.Mechanism(r.text()), EK: r.blob(), EKKeyID: r.hash(), PinnedSRK: r.blob(),
		Keys: registration.SealedKeys{Primary: r.blob(), Secondary: r.blob()}, Certificates: r.hashes(), DeviceID: r.text(),
		Disabled: r.bool(), Document: r.blob(), Created: r.time(), Updated: r.time(),
	}
}

func scanRegistration(r *row) registration.Registration {
	return registration.Registration{
		ID: r.text(), Revision: r.uint(), Status: registration.Status(r.text()), Substatus: r.text(), Hub: r.text(),
		DeviceID: r.text(), Mechanism: registration.Mechanism(r.text()), Group: r.text(), EKKeyID: r.hash(), SRK: r.blob(), SealedHubKey: r.blob(), HubKeyGeneration: r.uint(),
		OperationID: r.text(), ErrorCode: r.int(), ErrorMessage: r.text(), Created: r.time(), Updated: r.time(),
		Leaving: strings.Fields(r.text()), Saved: r.blob(), Payload: r.blob(),
	}
}

func scanOperation(r *row) registration.Operation {
	return registration.Operation{
		ID: r.text(), RegistrationID: r.text(), Status: registration.Status(r.text()), Substatus: r.text(),
		Generation: r.uint(), Revision: r.uint(), Mechanism: registration.Mechanism(r.text()), Group: r.text(),
		TokenDigest: r.hash(), SealedKey: r.blob(), EK: r.blob(), SRK: r.blob(),
		SealedHubKey: r.blob(), Hub: r.text(), DeviceID: r.text(), ErrorCode: r.int(), ErrorMessage: r.text(),
		TrackingID: r.text(), Created: r.time(), Updated: r.time(), Plan: r.blob(),
	}
}

// Operation implements registration.DeviceStore.
func (s *Store) Operation(ctx context.Context, scope, operationID string) (registration.Operation, error) {
	var op registration.Operation
	err := s.read(ctx, func(c *conn) error {
		found, err := c.one(func(r *row) { op = scanOperation(r) },
			`SELECT id, registration_id, status, substatus, generation, revision, mechanism, group_id, token_digest, sealed_key, ek, srk,
				sealed_hub_key, hub, device_id, error_code, error_message, tracking_id, created, updated, plan
			FROM operations WHERE scope = ?1 AND id = ?2`, scope, operationID)
		if err == nil && !found {
			err = registration.ErrNotFound
		}
		return err
	})
	return op, err
}
