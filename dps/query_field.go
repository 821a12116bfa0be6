package dps

import (
	"slices"
	"strconv"
)

// Field is a path into an object that a query can test.
type Field string

// Fields of all collections. Those of CollectionRegistrations are the fields of
// a RegistrationState, which an enrollment has under "registrationState.".
const (
	FieldRegistrationID      Field = "registrationId"
	FieldEnrollmentGroupID   Field = "enrollmentGroupId"
	FieldDeviceID            Field = "deviceId"
	FieldAttestationType     Field = "attestation.type"
	FieldProvisioningStatus  Field = "provisioningStatus"
	FieldAllocationPolicy    Field = "allocationPolicy"
	FieldIotHubHostName      Field = "iotHubHostName"
	FieldETag                Field = "etag"
	FieldIotEdge             Field = "capabilities.iotEdge"
	FieldUpdateHubAssignment Field = "reprovisionPolicy.updateHubAssignment"
	FieldMigrateDeviceData   Field = "reprovisionPolicy.migrateDeviceData"
	FieldStateStatus         Field = "registrationState.status"
	FieldStateSubstatus      Field = "registrationState.substatus"
	FieldStateAssignedHub    Field = "registrationState.assignedHub"
	FieldStateDeviceID       Field = "registrationState.deviceId"
	FieldStateErrorCode      Field = "registrationState.errorCode"
	FieldStatus              Field = "status"
	FieldSubstatus           Field = "substatus"
	FieldAssignedHub         Field = "assignedHub"
	FieldErrorCode           Field = "errorCode"
)

var (
	entryFields = []Field{FieldAttestationType, FieldProvisioningStatus, FieldAllocationPolicy, FieldIotHubHostName,
		FieldETag, FieldIotEdge, FieldUpdateHubAssignment, FieldMigrateDeviceData}
	enrollmentFields = append([]Field{FieldRegistrationID, FieldDeviceID, FieldStateStatus, FieldStateSubstatus,
		FieldStateAssignedHub, FieldStateDeviceID, FieldStateErrorCode}, entryFields...)
	groupFields        = append([]Field{FieldEnrollmentGroupID}, entryFields...)
	registrationFields = []Field{FieldRegistrationID, FieldDeviceID, FieldStatus, FieldSubstatus, FieldAssignedHub,
		FieldErrorCode, FieldETag}
)

// Fields lists the fields that a query over c can test.
func (c Collection) Fields() []Field { return slices.Clone(c.fields()) }

func (c Collection) fields() []Field {
	switch c {
	case CollectionEnrollments:
		return enrollmentFields
	case CollectionEnrollmentGroups:
		return groupFields
	case CollectionRegistrations:
		return registrationFields
	}
	return nil
}

type kind int

const (
	kindText kind = iota // compared exactly
	kindID               // compared without regard to the case of ASCII letters
	kindBool
	kindInt
)

func (f Field) kind() kind {
	switch f {
	case FieldRegistrationID, FieldEnrollmentGroupID, FieldDeviceID, FieldStateDeviceID:
		return kindID
	case FieldIotEdge, FieldUpdateHubAssignment, FieldMigrateDeviceData:
		return kindBool
	case FieldStateErrorCode, FieldErrorCode:
		return kindInt
	}
	return kindText
}

// fold is the form of a value of f in which it is compared.
func (f Field) fold(value string) string {
	if f.kind() == kindID {
		return FoldID(value)
	}
	return value
}

// Field is the value of f as a query compares it; false if the enrollment does
// not have it. A device that never registered has the status "unassigned", as
// the service shows it, whether RegistrationState says so or is nil.
func (e *IndividualEnrollment) Field(f Field) (string, bool) {
	switch f {
	case FieldRegistrationID:
		return present(e.RegistrationID)
	case FieldDeviceID:
		return present(e.DeviceID)
	case FieldAttestationType:
		return present(e.Attestation.Type)
	case FieldProvisioningStatus:
		return present(e.ProvisioningStatus)
	case FieldAllocationPolicy:
		return present(e.AllocationPolicy)
	case FieldIotHubHostName:
		return present(e.IotHubHostName)
	case FieldETag:
		return present(e.ETag)
	case FieldIotEdge:
		return e.Capabilities.field()
	case FieldUpdateHubAssignment, FieldMigrateDeviceData:
		return e.ReprovisionPolicy.field(f)
	}
	return e.stateField(f)
}

func (e *IndividualEnrollment) stateField(f Field) (string, bool) {
	s := e.RegistrationState
	if s == nil {
		s = &RegistrationState{Status: StatusUnassigned}
	}
	switch f {
	case FieldStateStatus:
		return s.Field(FieldStatus)
	case FieldStateSubstatus:
		return s.Field(FieldSubstatus)
	case FieldStateAssignedHub:
		return s.Field(FieldAssignedHub)
	case FieldStateDeviceID:
		return s.Field(FieldDeviceID)
	case FieldStateErrorCode:
		return s.Field(FieldErrorCode)
	}
	return "", false
}

// Field is the value of f as a query compares it; false if the state does not
// have it.
func (s *RegistrationState) Field(f Field) (string, bool) {
	switch f {
	case FieldRegistrationID:
		return present(s.RegistrationID)
	case FieldDeviceID:
		return present(s.DeviceID)
	case FieldStatus:
		return present(s.Status)
	case FieldSubstatus:
		return present(s.Substatus)
	case FieldAssignedHub:
		return present(s.AssignedHub)
	case FieldETag:
		return present(s.ETag)
	case FieldErrorCode:
		if s.ErrorCode != 0 {
			return strconv.Itoa(int(s.ErrorCode)), true
		}
	}
	return "", false
}

func (c *Capabilities) field() (string, bool) {
	if c == nil {
		return "", false
	}
	return strconv.FormatBool(c.IotEdge), true
}

func (p *ReprovisionPolicy) field(f Field) (string, bool) {
	switch {
	case p == nil:
		return "", false
	case f == FieldUpdateHubAssignment:
		return strconv.FormatBool(p.UpdateHubAssignment), true
	}
	return strconv.FormatBool(p.MigrateDeviceData), true
}

func present(value string) (string, bool) { return value, value != "" }
