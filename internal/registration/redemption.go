package registration

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"io"
	"time"

	"latchkey.example/latchkey/dps"
)

// redemption composes the rows of an accepted proof.
func (c *Core) redemption(s *scope, r Request, p proof, awaits bool) (Redemption, error) {
	id, now := dps.FoldID(r.ID), c.now()
	operationID, err := c.newOperationID()
	if err != nil {
		return Redemption{}, err
	}
	next, reason, err := c.nextRegistration(s, r, p, now)
	if err != nil {
		return Redemption{}, err
	}
	way, err := c.course(s, r, p)
	if err != nil {
		return Redemption{}, err
	}
	way.plan.Awaits = awaits
	deviceID := next.DeviceID
	way.settle(&next, p.device.Registration)
	next.OperationID = operationID
	tracking := c.track(s, reason)
	redemption := Redemption{
		ID: id, Generation: p.generation, GroupsRevision: p.groupsRevision,
		Operation: Operation{
			ID: operationID, RegistrationID: next.ID, Status: Assigning, Substatus: way.substatus, Generation: p.generation + 1,
			Mechanism: p.mechanism, Group: next.Group, TokenDigest: p.digest,
			SealedHubKey: next.SealedHubKey, Hub: way.hub, DeviceID: deviceID, TrackingID: tracking, Created: now, Updated: now,
			Plan: way.plan.encode(),
		},
		Registration: next,
		Audit:        c.deviceAudit(r, ActionRegister, OutcomeOK, reason, tracking, p.told(operationID)),
	}
	redemption.Outbox = c.order(s.ID, redemption.Operation, way.plan)
	if p.enrollment != nil {
		redemption.EnrollmentRevision = p.enrollment.Revision
	}
	if p.device.Registration != nil {
		redemption.RegistrationBefore = p.device.Registration.Revision
	}
	if p.mechanism == TPM {
		redemption.Operation.EK, redemption.Operation.SRK = p.ek.Bytes(), p.srk.Bytes()
	}
	if p.key != nil {
		redemption.Operation.SealedKey, err = c.sealer.Seal(ContextChallengeKey(s.ID, operationID), p.key)
	}
	return redemption, err
}

// told is what the audit tells of a proof.
func (p *proof) told(operationID string) string {
	told := struct {
		Operation   string    `json:"operation"`
		Mechanism   Mechanism `json:"mechanism"`
		Group       string    `json:"group,omitempty"`
		Owner       string    `json:"owner,omitempty"`       // name of the SRK, hex
		Certificate string    `json:"certificate,omitempty"` // SHA-256 of the DER, hex
	}{Operation: operationID, Mechanism: p.mechanism}
	switch {
	case p.mechanism == TPM:
		told.Owner = hex.EncodeToString(p.srk.Name())
	case p.mechanism == X509:
		told.Certificate = hex.EncodeToString(p.digest[:])
	}
	if p.group != nil {
		told.Group = p.group.ID
	}
	detail, err := json.Marshal(told)
	if err != nil {
		panic(err) // only for types that JSON cannot hold
	}
	return string(detail)
}

// nextRegistration is the registration after this proof. A TPM's hub key is kept while EK and owner are the ones last proven, so that a
// running device is not cut off, and is new otherwise; other devices bring what their hub is to hold.
func (c *Core) nextRegistration(s *scope, r Request, p proof, now time.Time) (Registration, Reason, error) {
	before := p.device.Registration
	next := Registration{
		ID: r.ID, Status: Assigning, Substatus: substatusInitial, Mechanism: p.mechanism,
		DeviceID: r.ID, HubKeyGeneration: p.generation + 1, Created: now, Updated: now,
	}
	switch enrollment := p.enrollment; {
	case enrollment == nil:
		next.Group = p.group.ID
	default:
		next.ID, next.DeviceID = enrollment.ID, cmp.Or(enrollment.DeviceID, enrollment.ID)
	}
	if before != nil {
		next.Substatus, next.Created, next.Saved, next.Payload = before.Substatus, before.Created, before.Saved, before.Payload
		if before.Hub != "" { // the name at the hub is settled by the first assignment; deleting the registration frees it
			next.DeviceID = before.DeviceID
		}
	}
	if p.mechanism == TPM {
		return c.nextOwner(s, p, next)
	}
	sealed, err := c.sealer.Seal(ContextHubKey(s.ID, dps.FoldID(r.ID)), p.credential.Encode())
	next.SealedHubKey = sealed
	return next, ReasonRegistered, err
}

// nextOwner gives the registration of a TPM its owner and hub key.
func (c *Core) nextOwner(s *scope, p proof, next Registration) (Registration, Reason, error) {
	before, enrollment := p.device.Registration, p.enrollment
	next.EKKeyID, next.SRK = enrollment.EKKeyID, p.srk.Bytes()
	if before != nil && before.Mechanism == TPM {
		if before.EKKeyID == enrollment.EKKeyID && bytes.Equal(before.SRK, p.srk.Bytes()) {
			next.SealedHubKey, next.HubKeyGeneration = before.SealedHubKey, before.HubKeyGeneration
			return next, ReasonRegistered, nil
		}
	}
	key := make([]byte, 32)
	if _, err := io.ReadFull(c.rand, key); err != nil {
		return Registration{}, 0, err
	}
	sealed, err := c.sealer.Seal(ContextHubKey(s.ID, dps.FoldID(next.ID)), Credential{Primary: key}.Encode())
	if err != nil {
		return Registration{}, 0, err
	}
	next.SealedHubKey = sealed
	if before != nil {
		return next, ReasonOwnerChanged, nil
	}
	return next, ReasonRegistered, nil
}

// newOperationID makes an opaque, URL-safe id in the shape that clients have seen: digit, 16 hex digits, GUID.
func (c *Core) newOperationID() (string, error) {
	var b [24]byte
	if _, err := io.ReadFull(c.rand, b[:]); err != nil {
		return "", err
	}
	h := hex.EncodeToString(b[:])
	return "5." + h[:16] + "." + h[16:24] + "-" + h[24:28] + "-" + h[28:32] + "-" + h[32:36] + "-" + h[36:], nil
}
