package registration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"latchkey.example/latchkey/dps"
)

// What audit rows tell of a change: the object before and after it, null where it was not there. Only members listed here are told, so a
// new one, or a secret, is in no row until it is named.

// enrollmentTold is what the audit tells of an enrollment.
type enrollmentTold struct {
	Mechanism          Mechanism `json:"mechanism"`
	EKKeyID            string    `json:"ekKeyId,omitempty"`      // of a TPM: hex of SHA-256 of the SubjectPublicKeyInfo
	Certificates       []string  `json:"certificates,omitempty"` // hex of SHA-256 of the DER
	KeysChanged        bool      `json:"keysChanged,omitempty"`  // symmetric keys other than those before
	DeviceID           string    `json:"deviceId,omitempty"`
	ProvisioningStatus string    `json:"provisioningStatus"`
	Pinned             bool      `json:"pinned"`              // whether it names its owner's key
	PinnedSRK          string    `json:"pinnedSrk,omitempty"` // hex of SHA-256 of it
	settingsTold
	Information string `json:"optionalDeviceInformation,omitempty"` // as tags in settingsTold
}

// settingsTold is what the audit tells of the members that enrollments and groups share. Of documents that operators fill, and of a webhook's
// address, which often holds a key, the SHA-256 is told: that they changed shows, what is in them does not.
type settingsTold struct {
	AllocationPolicy string           `json:"allocationPolicy,omitempty"`
	IotHubs          []string         `json:"iotHubs,omitempty"`
	IotHubHostName   string           `json:"iotHubHostName,omitempty"`
	Webhook          string           `json:"webhook,omitempty"` // hex of SHA-256 of its address
	IotEdge          *bool            `json:"iotEdge,omitempty"`
	Reprovision      *reprovisionTold `json:"reprovisionPolicy,omitempty"`
	Tags             string           `json:"tags,omitempty"` // hex of SHA-256 of the JSON as it was sent
	Desired          string           `json:"desired,omitempty"`
}

type reprovisionTold struct {
	UpdateHubAssignment bool `json:"updateHubAssignment"`
	MigrateDeviceData   bool `json:"migrateDeviceData"`
}

func tellSettings(allocation string, hubs []string, hub string, custom *dps.CustomAllocation, capabilities *dps.Capabilities, reprovision *dps.ReprovisionPolicy, twin *dps.InitialTwin) settingsTold {
	told := settingsTold{AllocationPolicy: allocation, IotHubs: hubs, IotHubHostName: hub}
	if custom != nil {
		told.Webhook = tellDocument([]byte(custom.WebhookURL))
	}
	if capabilities != nil {
		told.IotEdge = &capabilities.IotEdge
	}
	if reprovision != nil {
		told.Reprovision = &reprovisionTold{reprovision.UpdateHubAssignment, reprovision.MigrateDeviceData}
	}
	if twin != nil {
		told.Tags, told.Desired = tellDocument(twin.Tags), tellDocument(twin.Desired)
	}
	return told
}

// tellDocument is empty for one that is not there.
func tellDocument(document []byte) string {
	if len(document) == 0 {
		return ""
	}
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:])
}

// registrationTold is what the audit tells of a registration.
type registrationTold struct {
	Status    Status    `json:"status"`
	Substatus string    `json:"substatus,omitempty"`
	Hub       string    `json:"hub,omitempty"`
	DeviceID  string    `json:"deviceId,omitempty"`
	Mechanism Mechanism `json:"mechanism"`
	Group     string    `json:"group,omitempty"`
	EKKeyID   string    `json:"ekKeyId,omitempty"`
}

// groupTold is what the audit tells of an enrollment group.
type groupTold struct {
	Mechanism          Mechanism `json:"mechanism"`
	Certificates       []string  `json:"certificates,omitempty"` // hex of SHA-256 of the DER
	CAReferences       []string  `json:"caReferences,omitempty"`
	KeysChanged        bool      `json:"keysChanged,omitempty"`
	ProvisioningStatus string    `json:"provisioningStatus"`
	settingsTold
}

// caTold is what the audit tells of a CA certificate.
type caTold struct {
	Certificate string `json:"certificate"` // hex of SHA-256 of the DER
	Verified    bool   `json:"verified"`
}

func hexes(sums [][32]byte) (list []string) {
	for _, sum := range sums {
		list = append(list, hex.EncodeToString(sum[:]))
	}
	return list
}

func tellCA(ca CACertificate) caTold {
	sum := sha256.Sum256(ca.DER)
	return caTold{hex.EncodeToString(sum[:]), ca.Verified}
}

func tellGroup(row Group) groupTold {
	told := groupTold{Mechanism: row.Mechanism, Certificates: hexes(row.Certificates), ProvisioningStatus: dps.EnrollmentEnabled}
	if row.Disabled {
		told.ProvisioningStatus = dps.EnrollmentDisabled
	}
	wire, err := dps.DecodeGroup(row.ID, row.Document)
	if err != nil { // costs this much and nothing else, as for enrollments
		return told
	}
	told.settingsTold = tellSettings(wire.AllocationPolicy, wire.IotHubs, wire.IotHubHostName, wire.CustomAllocation, wire.Capabilities, wire.ReprovisionPolicy, wire.InitialTwin)
	if x := wire.Attestation.X509; x != nil {
		told.CAReferences = x.CAReferences.List()
	}
	return told
}

func tellEnrollment(row Enrollment) enrollmentTold {
	told := enrollmentTold{Mechanism: row.Mechanism, Certificates: hexes(row.Certificates), DeviceID: row.DeviceID, ProvisioningStatus: dps.EnrollmentEnabled,
		Pinned: row.PinnedSRK != nil, PinnedSRK: tellDocument(row.PinnedSRK)}
	if row.Mechanism == TPM {
		told.EKKeyID = hex.EncodeToString(row.EKKeyID[:])
	}
	if row.Disabled {
		told.ProvisioningStatus = dps.EnrollmentDisabled
	}
	// A document that cannot be read costs this member and nothing else: such an enrollment can still be replaced and deleted.
	if wire, err := dps.DecodeEnrollment(row.ID, row.Document); err == nil {
		told.settingsTold = tellSettings(wire.AllocationPolicy, wire.IotHubs, wire.IotHubHostName, wire.CustomAllocation, wire.Capabilities, wire.ReprovisionPolicy, wire.InitialTwin)
		told.Information = tellDocument(wire.OptionalDeviceInformation)
	}
	return told
}

func tellRegistration(r Registration) registrationTold {
	told := registrationTold{Status: r.Status, Substatus: r.Substatus, Hub: r.Hub, DeviceID: r.DeviceID, Mechanism: r.Mechanism, Group: r.Group}
	if r.Mechanism == TPM {
		told.EKKeyID = hex.EncodeToString(r.EKKeyID[:])
	}
	return told
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
	after := tellEnrollment(row)
	after.KeysChanged = !row.Keys.same(before.Keys)
	return changed(tellEnrollment(*before), after)
}
