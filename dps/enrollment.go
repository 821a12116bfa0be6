package dps

import (
	"encoding/json"
	"time"
)

// Words of provisioningStatus, attestation.type and allocationPolicy.
const (
	EnrollmentEnabled  = "enabled"
	EnrollmentDisabled = "disabled"

	AttestationTPM          = "tpm"
	AttestationX509         = "x509"
	AttestationSymmetricKey = "symmetricKey"

	AllocationHashed     = "hashed"
	AllocationGeoLatency = "geoLatency"
	AllocationStatic     = "static"
	AllocationCustom     = "custom"
)

// IndividualEnrollment is the operator's entry for one device. Its parts are
// valid after DecodeEnrollment; empty and nil mean absent.
type IndividualEnrollment struct {
	RegistrationID            string             // as the operator spelled it
	DeviceID                  string             // wanted name at the hub; absent: the registration id
	RegistrationState         *RegistrationState // answers only; ignored on input
	OptionalDeviceInformation json.RawMessage    // a JSON object for the operator, echoed as it came
	Attestation               Attestation
	Capabilities              *Capabilities
	IotHubHostName            string // the old way to name one hub
	InitialTwin               *InitialTwin
	ETag                      string             // set by the service; ignored on input
	ProvisioningStatus        string             // EnrollmentEnabled or EnrollmentDisabled
	ReprovisionPolicy         *ReprovisionPolicy // nil is a behaviour of its own, see the reference
	Created, LastUpdated      time.Time          // set by the service; ignored on input
	AllocationPolicy          string             // absent: the scope's
	IotHubs                   []string           // host names; absent: all linked hubs
	CustomAllocation          *CustomAllocation
	Latchkey                  *Extension // on input nil leaves the EKs that are there; answers have it where there are some
	ClosedByDevice            time.Time  // when the device closed its registration and so disabled this; set by the service, ignored on input
	TransferredFrom           string     // the scope whose operator gave the device to this one; likewise
}

// Attestation says how the device proves itself. The member that Type names is
// there and no other; that of symmetric keys may be missing, as in answers that
// hide them.
type Attestation struct {
	Type         string   // AttestationTPM, AttestationX509 or AttestationSymmetricKey
	TPM          *TPMKeys // StorageRootKey nil if the entry pins none
	X509         *X509Attestation
	SymmetricKey *SymmetricKeys // nil if no key is given or shown
}

// Show says what of an attestation an encoding shows.
type Show uint8

// What answers hide, each for itself. ShowCertificates is for what is stored or
// exported, never for an answer of the imitated API.
const (
	ShowKeys Show = 1 << iota
	ShowCertificates
)

// Capabilities of the device at its hub.
type Capabilities struct {
	IotEdge bool
}

// InitialTwin is what the device's twin holds when it is first made.
type InitialTwin struct {
	Tags    json.RawMessage // a JSON object as it came, or nil
	Desired json.RawMessage // likewise; properties.desired
}

// ReprovisionPolicy says what happens when a device registers again.
type ReprovisionPolicy struct {
	UpdateHubAssignment bool // default true
	MigrateDeviceData   bool // default true
}

// CustomAllocation names the webhook that picks the hub.
type CustomAllocation struct {
	WebhookURL string // often holds a key in its query: a secret
	APIVersion string
}

// Encode is EncodeShowing without what answers hide.
func (e *IndividualEnrollment) Encode() []byte { return e.EncodeShowing(0) }

// EncodeShowing is the enrollment as JSON, members in the order of the imitated
// service, absent ones left out. attestation and provisioningStatus are always
// there, as the C client cannot read an enrollment without them.
func (e *IndividualEnrollment) EncodeShowing(show Show) []byte {
	return e.appendTo(make([]byte, 0, 1024+len(e.OptionalDeviceInformation)), "registrationId", show)
}

func (e *IndividualEnrollment) appendTo(b []byte, idName string, show Show) []byte {
	b = append(b, '{')
	b = appendPresent(b, idName, e.RegistrationID)
	b = appendPresent(b, "deviceId", e.DeviceID)
	if e.RegistrationState != nil {
		b = e.RegistrationState.appendTo(appendName(b, "registrationState"))
	}
	b = appendRaw(b, "optionalDeviceInformation", e.OptionalDeviceInformation)
	b = e.Attestation.appendTo(appendName(b, "attestation"), show)
	if e.Capabilities != nil {
		b = appendBool(append(b, `,"capabilities":{`...), "iotEdge", e.Capabilities.IotEdge)
		b = append(b, '}')
	}
	b = appendPresent(b, "iotHubHostName", e.IotHubHostName)
	if e.InitialTwin != nil {
		b = e.InitialTwin.appendTo(appendName(b, "initialTwin"))
	}
	b = appendPresent(b, "etag", e.ETag)
	b = appendString(appendName(b, "provisioningStatus"), e.ProvisioningStatus)
	if e.ReprovisionPolicy != nil {
		b = e.ReprovisionPolicy.appendTo(appendName(b, "reprovisionPolicy"))
	}
	b = appendTime(b, "createdDateTimeUtc", e.Created)
	b = appendTime(b, "lastUpdatedDateTimeUtc", e.LastUpdated)
	b = appendPresent(b, "allocationPolicy", e.AllocationPolicy)
	if len(e.IotHubs) > 0 {
		b = appendStrings(appendName(b, "iotHubs"), e.IotHubs)
	}
	if e.CustomAllocation != nil {
		b = e.CustomAllocation.appendTo(appendName(b, "customAllocationDefinition"))
	}
	b = e.appendExtension(b)
	return append(b, '}')
}

// MarshalJSON is Encode.
func (e IndividualEnrollment) MarshalJSON() ([]byte, error) { return e.Encode(), nil }

// EncodeShowing is the attestation as JSON; the attestationmechanism request
// answers it with ShowKeys.
func (a *Attestation) EncodeShowing(show Show) []byte { return a.appendTo(nil, show) }

func (a *Attestation) appendTo(b []byte, show Show) []byte {
	b = appendString(append(b, `{"type":`...), a.Type)
	if a.TPM != nil {
		b = a.TPM.appendTo(appendName(b, "tpm"))
	}
	if a.X509 != nil {
		b = a.X509.appendTo(appendName(b, "x509"), show)
	}
	if k := a.SymmetricKey; k != nil && show&ShowKeys != 0 && (k.Primary != nil || k.Secondary != nil) {
		b = a.SymmetricKey.appendTo(appendName(b, "symmetricKey"))
	}
	return append(b, '}')
}

func (t *InitialTwin) appendTo(b []byte) []byte {
	b = appendRaw(append(b, '{'), "tags", t.Tags)
	if len(t.Desired) > 0 {
		b = appendRaw(append(appendName(b, "properties"), '{'), "desired", t.Desired)
		b = append(b, '}')
	}
	return append(b, '}')
}

func (p *ReprovisionPolicy) appendTo(b []byte) []byte {
	b = appendBool(append(b, '{'), "updateHubAssignment", p.UpdateHubAssignment)
	b = appendBool(b, "migrateDeviceData", p.MigrateDeviceData)
	return append(b, '}')
}

func (c *CustomAllocation) appendTo(b []byte) []byte {
	b = appendPresent(append(b, '{'), "webhookUrl", c.WebhookURL)
	b = appendPresent(b, "apiVersion", c.APIVersion)
	return append(b, '}')
}

func appendBool(b []byte, name string, v bool) []byte {
	if v {
		return append(appendName(b, name), "true"...)
	}
	return append(appendName(b, name), "false"...)
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}
