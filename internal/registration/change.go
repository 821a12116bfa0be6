package registration

import (
	"encoding/hex"
	"encoding/json"

	"latchkey.example/latchkey/dps"
)

// What audit rows tell of a change: the object before and after it, null where it was not there. Only members listed here are told, so a
// new one, or a secret, is in no row until it is named.

// enrollmentTold is what the audit tells of an enrollment.
type enrollmentTold struct {
	EKKeyID            string `json:"ekKeyId"` // hex of SHA-256 of the SubjectPublicKeyInfo
	DeviceID           string `json:"deviceId,omitempty"`
	ProvisioningStatus string `json:"provisioningStatus"`
	Pinned             bool   `json:"pinned"` // whether it names its owner's key
	AllocationPolicy   string `json:"allocationPolicy,omitempty"`
}

// registrationTold is what the audit tells of a registration.
type registrationTold struct {
	Status    Status `json:"status"`
	Substatus string `json:"substatus,omitempty"`
	Hub       string `json:"hub,omitempty"`
	DeviceID  string `json:"deviceId,omitempty"`
	EKKeyID   string `json:"ekKeyId"`
}

func tellEnrollment(row Enrollment) enrollmentTold {
	told := enrollmentTold{EKKeyID: hex.EncodeToString(row.EKKeyID[:]), DeviceID: row.DeviceID, ProvisioningStatus: dps.EnrollmentEnabled, Pinned: row.PinnedSRK != nil}
	if row.Disabled {
		told.ProvisioningStatus = dps.EnrollmentDisabled
	}
	// A document that cannot be read costs this member and nothing else: such an enrollment can still be replaced and deleted.
	if wire, err := dps.DecodeEnrollment(row.ID, row.Document); err == nil {
		told.AllocationPolicy = wire.AllocationPolicy
	}
	return told
}

func tellRegistration(r Registration) registrationTold {
	return registrationTold{Status: r.Status, Substatus: r.Substatus, Hub: r.Hub, DeviceID: r.DeviceID, EKKeyID: hex.EncodeToString(r.EKKeyID[:])}
}

// changed is the detail of an audit row; nil stands for null, in both places.
func changed(before, after any) string {
	detail, err := json.Marshal(struct {
		Before any `json:"before"`
		After  any `json:"after"`
	}{before, after})
	if err != nil {
		panic(err) // only for types that JSON cannot hold
	}
	return string(detail)
}

// enrollmentChange is the detail of a write: before is nil on create.
func enrollmentChange(before *Enrollment, row Enrollment) string {
	if before == nil {
		return changed(nil, tellEnrollment(row))
	}
	return changed(tellEnrollment(*before), tellEnrollment(row))
}
