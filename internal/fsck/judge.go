package fsck

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
)

// judgeEnrollment compares the columns that devices are judged by with the document that operators see.
func (c *checker) judgeEnrollment(e registration.Enrollment) (wrong []string) {
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	wire, err := dps.DecodeEnrollment(e.ID, e.Document)
	if err != nil {
		add("its document cannot be read: %v", err)
		return wrong
	}
	if string(e.Mechanism) != wire.Attestation.Type || e.Disabled != (wire.ProvisioningStatus == dps.EnrollmentDisabled) || e.DeviceID != wire.DeviceID || e.Revision == 0 {
		add("its document says something else than its columns")
	}
	switch e.Mechanism {
	case registration.TPM:
		ek, err := attest.ParseEK(e.EK)
		switch {
		case err != nil:
			add("its endorsement key is not acceptable: %v", err)
		case ek.KeyID() != e.EKKeyID:
			add("the identity of its endorsement key is not that of the key")
		case wire.Attestation.TPM == nil || !sameKey(wire.Attestation.TPM.EndorsementKey, ek):
			add("its document shows another endorsement key than devices are compared with")
		}
	case registration.SymmetricKey:
		wrong = append(wrong, c.judgeKeys(registration.ContextEnrollmentKey, e.ID, e.Keys)...)
	case registration.X509:
		if wire.Attestation.X509 == nil || !sameCertificates(wire.Attestation.X509.Client, e.Certificates) {
			add("its document shows other certificates than devices are compared with")
		}
	default:
		add("its mechanism %q is none", e.Mechanism)
	}
	return wrong
}

func sameKey(shown []byte, ek *attest.EK) bool {
	public, err := attest.ParsePublic(shown)
	return err == nil && public.KeyID() == ek.KeyID()
}

func sameCertificates(pair *dps.CertificatePair, sums [][32]byte) bool {
	var shown [][32]byte
	for _, certificate := range pair.List() {
		if sum, ok := certificate.Info.Fingerprint(); ok && !slices.Contains(shown, sum) {
			shown = append(shown, sum)
		}
	}
	return slices.Equal(shown, sums)
}

func (c *checker) judgeKeys(context func(scope, id, slot string) string, id string, keys registration.SealedKeys) (wrong []string) {
	for slot, sealed := range map[string][]byte{"primary": keys.Primary, "secondary": keys.Secondary} {
		key, err := c.sealer.Open(context(c.scope.ID, dps.FoldID(id), slot), sealed)
		if err != nil || len(key) < dps.MinSymmetricKey || len(key) > dps.MaxSymmetricKey {
			wrong = append(wrong, "its "+slot+" key cannot be opened, or is none")
		}
	}
	return wrong
}

func (c *checker) judgeGroup(g registration.Group) (wrong []string) {
	wire, err := dps.DecodeGroup(g.ID, g.Document)
	if err != nil {
		return []string{fmt.Sprintf("its document cannot be read: %v", err)}
	}
	if string(g.Mechanism) != wire.Attestation.Type || g.Disabled != (wire.ProvisioningStatus == dps.EnrollmentDisabled) || g.Revision == 0 {
		wrong = append(wrong, "its document says something else than its columns")
	}
	if g.Mechanism == registration.SymmetricKey {
		return append(wrong, c.judgeKeys(registration.ContextGroupKey, g.ID, g.Keys)...)
	}
	x := wire.Attestation.X509
	if x == nil || !sameCertificates(x.Signing, g.Certificates) {
		return append(wrong, "its document shows other certificates than its columns")
	}
	for _, certificate := range x.Signing.List() {
		if certificate.DER == nil {
			wrong = append(wrong, "the certificate of its CA is missing")
		}
	}
	return wrong
}

// judgeDevice holds a registration against the promises.
func (c *checker) judgeDevice(id string, d registration.Device) (wrong []Problem, err error) {
	add := func(promise, format string, args ...any) {
		wrong = append(wrong, Problem{promise, c.scope.ID, "registration " + d.Registration.ID, fmt.Sprintf(format, args...)})
	}
	r := *d.Registration
	credential, broken := c.credential(id, r.SealedHubKey)
	switch {
	case broken != nil:
		add("P1", "what its hub is to hold cannot be opened: %v", broken)
	case !fits(credential, r.Mechanism):
		add("P1", "its mechanism is %s, and what its hub is to hold is of another", r.Mechanism)
	}
	if r.Mechanism == registration.TPM {
		if _, err := attest.ParseSRK(r.SRK); err != nil {
			add("P1", "the storage root key that proved itself is not acceptable: %v", err)
		}
	}
	if other, taken := c.claim(id, r); taken {
		add("P2", "its device id %s at %s is %s's too", r.DeviceID, r.Hub, other)
	}
	if d.Generation == 0 {
		add("P4", "its redemptions are not counted: a challenge that was redeemed could be redeemed again")
	}
	switch {
	case d.Operation != nil:
		c.judgeOperation(id, d, add)
	case r.Status == registration.Assigning:
		add("P1", "it is assigning, and its operation is gone: nothing will end it")
	}
	if r.Status == registration.Assigned && broken == nil {
		err = c.judgeIdentity(d, credential, add)
	}
	return wrong, err
}

func fits(credential registration.Credential, mechanism registration.Mechanism) bool {
	switch mechanism {
	case registration.TPM:
		return credential.Certificate == nil && credential.Secondary == nil
	case registration.SymmetricKey:
		return credential.Certificate == nil && credential.Secondary != nil
	case registration.X509:
		return credential.Certificate != nil
	}
	return false
}

func (c *checker) credential(id string, sealed []byte) (registration.Credential, error) {
	encoded, err := c.sealer.Open(registration.ContextHubKey(c.scope.ID, id), sealed)
	if err != nil {
		return registration.Credential{}, err
	}
	return registration.DecodeCredential(encoded)
}

// claim notes a device id, and says who had it before.
func (c *checker) claim(id string, r registration.Registration) (other string, taken bool) {
	key := sha256.Sum256([]byte(r.Hub + "\x00" + r.DeviceID))
	if other, taken = c.devices[key]; !taken {
		c.devices[key] = id
		c.homes[sha256.Sum256([]byte(r.DeviceID))] = id
	}
	return other, taken && other != id
}

type complain func(promise, format string, args ...any)

func (c *checker) judgeOperation(id string, d registration.Device, add complain) {
	r, o := *d.Registration, *d.Operation
	if o.ID != r.OperationID || dps.FoldID(o.RegistrationID) != id {
		add("P2", "its current operation is another's")
	}
	if o.Generation > d.Generation {
		add("P4", "its operation was redeemed as number %d, and only %d are counted", o.Generation, d.Generation)
	}
	if o.Status != r.Status {
		add("P1", "it is %s, and its operation is %s", r.Status, o.Status)
	}
	if !bytes.Equal(o.SealedHubKey, r.SealedHubKey) {
		mine, err := c.credential(id, r.SealedHubKey)
		others, err2 := c.credential(id, o.SealedHubKey)
		if err != nil || err2 != nil || !mine.Equal(others) {
			add("P1", "its operation gives the device another key than the hub is to hold")
		}
	}
	if o.Status != registration.Assigned {
		return
	}
	// The row cannot have expired: audit rows are kept for a day at least, and operations for minutes.
	rows, err := c.store.AuditByTrackingID(c.ctx, c.scope.ID, o.TrackingID)
	if err != nil {
		add("P3", "its audit rows cannot be read: %v", err)
		return
	}
	assigned := func(a registration.Audit) bool {
		return a.Action == registration.ActionAssign && a.Outcome == registration.OutcomeOK && dps.FoldID(a.Object) == id
	}
	if !slices.ContainsFunc(rows, assigned) {
		add("P3", "it is assigned, and no audit row says so")
	}
}

// judgeHub lists what is wrong with a linked hub.
func judgeHub(scope registration.Scope, hub registration.LinkedHub) (wrong []string) {
	if !dps.ValidHubName(hub.Name) {
		wrong = append(wrong, "its name is not a host name in lower case")
	}
	if len(scope.Hosts) > 0 && hub.Name == scope.Hosts[0] && hub.Kind != registration.HubEmbedded {
		wrong = append(wrong, fmt.Sprintf("it is the scope's own hub, and linked as %s", hub.Kind))
	}
	switch hub.Kind {
	case registration.HubEmbedded, registration.HubAzure, registration.HubBroker:
	default:
		wrong = append(wrong, fmt.Sprintf("its kind %q is none that is known", hub.Kind))
	}
	if hub.Weight < 1 || hub.Weight > registration.MaxHubWeight {
		wrong = append(wrong, fmt.Sprintf("its weight is %d", hub.Weight))
	}
	if len(hub.Settings) > 0 && !json.Valid(hub.Settings) {
		wrong = append(wrong, "its settings cannot be read")
	}
	return wrong
}

// identitiesHere says whether the identities of a hub's devices are in this store: those of an IoT hub are there, and those of a hub that is not
// linked any more are nobody's to judge.
func (c *checker) identitiesHere(name string) bool {
	for _, hub := range c.scope.Hubs {
		if hub.Name == name {
			return hub.Kind != registration.HubAzure
		}
	}
	return len(c.scope.Hosts) > 0 && c.scope.Hosts[0] == name
}

// judgeIdentity: an assigned device is at its hub, with what it was given unless a newer proof is on its way.
func (c *checker) judgeIdentity(d registration.Device, credential registration.Credential, add complain) error {
	r := *d.Registration
	if !c.identitiesHere(r.Hub) {
		return nil
	}
	identity, err := c.store.Identity(c.ctx, c.scope.ID, r.Hub, r.DeviceID)
	switch {
	case errors.Is(err, registration.ErrNotFound):
		removed, err := c.wasRemoved(r.DeviceID)
		if err == nil && !removed {
			add("P1", "it is assigned, and its hub does not know the device %s", r.DeviceID)
		}
		return err
	case err != nil:
		return err
	}
	// Without its operation the registration was settled minutes ago: a newer proof since then has moved its revision, and it is read again.
	if d.Operation != nil && identity.Generation > d.Operation.Revision {
		return nil
	}
	encoded, err := c.sealer.Open(registration.ContextIdentityKey(c.scope.ID, r.Hub, r.DeviceID), identity.SealedKey)
	if err != nil {
		add("P1", "what its hub holds cannot be opened: %v", err)
		return nil
	}
	if held, err := registration.DecodeCredential(encoded); err != nil || !held.Equal(credential) {
		add("P1", "its hub holds another key than the device was given")
	}
	return nil
}
