package dps

import (
	"slices"
	"time"
)

// EnrollmentGroup is the operator's entry for many devices, which prove
// themselves by a certificate under one of its CAs or by a key derived from
// its own. Fields are those of an IndividualEnrollment that do not speak of
// one device.
type EnrollmentGroup struct {
	GroupID            string // as the operator spelled it
	Attestation        Attestation
	Capabilities       *Capabilities
	IotHubHostName     string
	InitialTwin        *InitialTwin
	ETag               string // set by the service; ignored on input
	ProvisioningStatus string
	ReprovisionPolicy  *ReprovisionPolicy
	Created            time.Time // set by the service; ignored on input, as LastUpdated
	LastUpdated        time.Time
	AllocationPolicy   string
	IotHubs            []string
	CustomAllocation   *CustomAllocation
}

const groupIDName = "enrollmentGroupId"

// entry is the group in the form of an individual enrollment, whose id is the
// group's: the two are read and written alike.
func (g *EnrollmentGroup) entry() *IndividualEnrollment {
	return &IndividualEnrollment{
		RegistrationID: g.GroupID, Attestation: g.Attestation, Capabilities: g.Capabilities, IotHubHostName: g.IotHubHostName,
		InitialTwin: g.InitialTwin, ETag: g.ETag, ProvisioningStatus: g.ProvisioningStatus, ReprovisionPolicy: g.ReprovisionPolicy,
		Created: g.Created, LastUpdated: g.LastUpdated, AllocationPolicy: g.AllocationPolicy, IotHubs: g.IotHubs, CustomAllocation: g.CustomAllocation,
	}
}

func groupOf(e *IndividualEnrollment) EnrollmentGroup {
	return EnrollmentGroup{
		GroupID: e.RegistrationID, Attestation: e.Attestation, Capabilities: e.Capabilities, IotHubHostName: e.IotHubHostName,
		InitialTwin: e.InitialTwin, ETag: e.ETag, ProvisioningStatus: e.ProvisioningStatus, ReprovisionPolicy: e.ReprovisionPolicy,
		Created: e.Created, LastUpdated: e.LastUpdated, AllocationPolicy: e.AllocationPolicy, IotHubs: e.IotHubs, CustomAllocation: e.CustomAllocation,
	}
}

// DecodeGroup reads the body of a PUT of an enrollment group, as
// DecodeEnrollment reads that of an individual enrollment.
func DecodeGroup(pathID string, body []byte) (EnrollmentGroup, error) {
	if err := checkObject(body); err != nil {
		return EnrollmentGroup{}, err
	}
	return decodeGroup(pathID, body)
}

// notOfGroups are members of an individual enrollment that a group does not
// have; they are ignored like any other unknown member.
var notOfGroups = []string{"registrationId", "deviceId", "optionalDeviceInformation"}

func decodeGroup(pathID string, object []byte) (EnrollmentGroup, error) {
	e := IndividualEnrollment{ProvisioningStatus: EnrollmentEnabled}
	err := eachMember(object, func(name, value []byte) (err error) {
		switch n := string(name); {
		case n == groupIDName && !isNull(value):
			e.RegistrationID, err = idValue(groupIDName, value)
		case n == groupIDName, slices.Contains(notOfGroups, n):
		case equalFold(n, groupIDName):
			err = misspelt("", name, groupIDName)
		default:
			err = e.member(name, value)
		}
		return err
	})
	if err == nil {
		err = e.agreeWith(groupIDName, pathID)
	}
	if err == nil {
		err = e.checkGroup()
	}
	if err != nil {
		return EnrollmentGroup{}, err
	}
	return groupOf(&e), nil
}

func (e *IndividualEnrollment) checkGroup() error {
	a := &e.Attestation
	switch {
	case a.Type == "":
		return refuse("attestation", "is missing")
	case a.Type == AttestationTPM:
		return refuse("attestation.type", "tpm is for individual enrollments; a group is x509 or symmetricKey")
	case a.X509 != nil && (a.X509.Client != nil || (a.X509.Signing == nil) == (a.X509.CAReferences == nil)):
		return refuse("attestation.x509", "of a group must hold either signingCertificates or caReferences")
	}
	return e.checkAllocation()
}

// Encode is EncodeShowing without what answers hide.
func (g *EnrollmentGroup) Encode() []byte { return g.EncodeShowing(0) }

// EncodeShowing is the group as JSON, as that of an individual enrollment.
func (g *EnrollmentGroup) EncodeShowing(show Show) []byte {
	return g.entry().appendTo(make([]byte, 0, 1024), groupIDName, show)
}

// MarshalJSON is Encode.
func (g EnrollmentGroup) MarshalJSON() ([]byte, error) { return g.Encode(), nil }

// Field is the value of f as a query compares it; false if the group does not
// have it.
func (g *EnrollmentGroup) Field(f Field) (string, bool) {
	if f == FieldEnrollmentGroupID {
		return present(g.GroupID)
	}
	if !slices.Contains(entryFields, f) {
		return "", false
	}
	return g.entry().Field(f)
}

// BulkGroups is a bulk request for groups, as BulkEnrollments is for individual
// enrollments.
type BulkGroups struct {
	Mode  BulkMode
	Items []BulkGroup
}

// BulkGroup is one group of a bulk request.
type BulkGroup struct {
	GroupID string // valid, as the client spelled it
	ETag    string // as BulkItem.ETag
	Group   EnrollmentGroup
	Err     error // as BulkItem.Err
}

// DecodeBulkGroups reads {"enrollmentGroups":[…],"mode":"…"}, as
// DecodeBulkEnrollments.
func DecodeBulkGroups(body []byte) (BulkGroups, error) {
	const items = "enrollmentGroups"
	mode, list, err := decodeBulk(items, body)
	if err != nil {
		return BulkGroups{}, err
	}
	bulk := BulkGroups{Mode: mode, Items: make([]BulkGroup, 0, len(list))}
	seen := make(map[string]bool, len(list))
	for i, object := range list {
		head, err := decodeBulkHead(items, i, groupIDName, object, seen)
		if err != nil {
			return BulkGroups{}, err
		}
		item := BulkGroup{GroupID: head.id, ETag: head.etag, Err: head.err}
		if mode != BulkDelete && item.Err == nil {
			item.Group, item.Err = decodeGroup(head.id, object)
		}
		bulk.Items = append(bulk.Items, item)
	}
	return bulk, nil
}
