package dps

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

const (
	maxHubs    = 50
	maxWebhook = 2048
)

// DecodeEnrollment reads the body of a PUT of an individual enrollment whose id
// in the path is pathID (decoded), or one that stands alone if pathID is empty.
// The ids must agree but for letter case; the body may leave its own out
// if the path has one. Members that only the service may set are ignored, null
// counts as absent, and what is left out gets its default. Whether keys are good
// keys and hubs are linked hubs is not judged here. Errors are *FieldError.
func DecodeEnrollment(pathID string, body []byte) (IndividualEnrollment, error) {
	if err := checkObject(body); err != nil {
		return IndividualEnrollment{}, err
	}
	return decodeEnrollment(pathID, body)
}

// decodeEnrollment reads an object that checkObject has accepted, or that is
// part of one.
func decodeEnrollment(pathID string, object []byte) (IndividualEnrollment, error) {
	e := IndividualEnrollment{ProvisioningStatus: EnrollmentEnabled}
	err := eachMember(object, e.member)
	if err == nil {
		err = e.agreeWith("registrationId", pathID)
	}
	if err == nil {
		err = e.check()
	}
	if err != nil {
		return IndividualEnrollment{}, err
	}
	return e, nil
}

var enrollmentMembers = []string{"registrationId", "deviceId", "optionalDeviceInformation", "attestation",
	"capabilities", "iotHubHostName", "initialTwin", "provisioningStatus", "reprovisionPolicy", "allocationPolicy",
	"iotHubs", "customAllocationDefinition", extensionName}

func (e *IndividualEnrollment) member(name, value []byte) (err error) {
	n := string(name)
	if !slices.Contains(enrollmentMembers, n) {
		return misspelt("", name, enrollmentMembers...)
	}
	if isNull(value) {
		return nil
	}
	switch n {
	case "registrationId":
		e.RegistrationID, err = idValue(n, value)
	case "deviceId":
		e.DeviceID, err = deviceIDValue(n, value)
	case "optionalDeviceInformation":
		e.OptionalDeviceInformation, err = objectValue(n, value)
	case "attestation":
		err = e.Attestation.decode(value)
	case "capabilities":
		e.Capabilities, err = decodeCapabilities(value)
	case "iotHubHostName":
		e.IotHubHostName, err = hostValue(n, value)
	case "initialTwin":
		e.InitialTwin, err = decodeTwin(value)
	case "provisioningStatus":
		e.ProvisioningStatus, err = wordValue(n, value, EnrollmentEnabled, EnrollmentDisabled)
	case "reprovisionPolicy":
		e.ReprovisionPolicy, err = decodeReprovision(value)
	case "allocationPolicy":
		e.AllocationPolicy, err = wordValue(n, value, AllocationHashed, AllocationGeoLatency, AllocationStatic, AllocationCustom)
	case "iotHubs":
		e.IotHubs, err = hostsValue(n, value)
	case "customAllocationDefinition":
		e.CustomAllocation, err = decodeCustom(value)
	case extensionName:
		e.Latchkey, err = e.decodeExtension(value)
	}
	return err
}

func (e *IndividualEnrollment) agreeWith(idName, pathID string) error {
	if pathID != "" && !ValidRegistrationID(pathID) {
		return refuse(idName, "the one in the path is not a valid id")
	}
	switch {
	case pathID == "" && e.RegistrationID == "":
		return refuse(idName, "is missing")
	case e.RegistrationID == "":
		e.RegistrationID = pathID
	case pathID != "" && !equalFold(pathID, e.RegistrationID):
		return refuse(idName, "is not the one in the path")
	}
	return nil
}

// check judges members against each other. The two sentences about allocation
// are those of the imitated service.
func (e *IndividualEnrollment) check() error {
	switch {
	case e.Attestation.Type == "":
		return refuse("attestation", "is missing")
	case e.Attestation.X509 != nil && (e.Attestation.X509.Client == nil || e.Attestation.X509.Signing != nil || e.Attestation.X509.CAReferences != nil):
		return refuse("attestation.x509", "must hold clientCertificates and nothing else; CAs belong to an enrollment group")
	case e.Attestation.TPM == nil && e.Latchkey != nil && len(e.Latchkey.ExtraKeys) > 0:
		return refuse(extraKeysPath, "must be left out of an enrollment that is not of a TPM")
	}
	return e.checkAllocation()
}

func (e *IndividualEnrollment) checkAllocation() error {
	switch {
	case len(e.IotHubs) > 0 && e.AllocationPolicy == "":
		return refuse("", "Enrollment allocationPolicy must be specified when iotHubs are specified.")
	case e.AllocationPolicy == AllocationCustom && e.CustomAllocation == nil:
		return refuse("", "A CustomAllocationDefinition is required when the allocation policy is set to 'Custom'")
	}
	return nil
}

func (a *Attestation) decode(object []byte) error {
	if object[0] != '{' {
		return refuse("attestation", "must be an object")
	}
	symmetric := false
	err := eachMember(object, func(name, value []byte) (err error) {
		if isNull(value) {
			return nil
		}
		switch n := string(name); n {
		case "type":
			a.Type, err = wordValue("attestation.type", value, AttestationTPM, AttestationX509, AttestationSymmetricKey)
		case AttestationTPM:
			a.TPM, err = decodeTPM("attestation.tpm", value)
		case AttestationX509:
			a.X509, err = decodeX509(value)
		case AttestationSymmetricKey:
			a.SymmetricKey, err = decodeSymmetric(value)
			symmetric = true
		default:
			err = misspelt("attestation.", name, "type", AttestationTPM, AttestationX509, AttestationSymmetricKey)
		}
		return err
	})
	if err != nil {
		return err
	}
	return a.check(symmetric)
}

// check: symmetric says whether there was a member for symmetric keys; without one keys are made, or kept.
func (a *Attestation) check(symmetric bool) error {
	if a.Type == "" {
		return refuse("attestation.type", "is missing")
	}
	for _, part := range []struct {
		name  string
		there bool
	}{
		{AttestationTPM, a.TPM != nil},
		{AttestationX509, a.X509 != nil},
		{AttestationSymmetricKey, symmetric || a.Type == AttestationSymmetricKey},
	} {
		if part.there != (part.name == a.Type) {
			return refuse("attestation", "must hold the member that its type names, and no other mechanism")
		}
	}
	return nil
}

func decodeCapabilities(object []byte) (*Capabilities, error) {
	var c Capabilities
	err := eachBool("capabilities", object, map[string]*bool{"iotEdge": &c.IotEdge})
	return &c, err
}

func decodeReprovision(object []byte) (*ReprovisionPolicy, error) {
	p := ReprovisionPolicy{UpdateHubAssignment: true, MigrateDeviceData: true}
	err := eachBool("reprovisionPolicy", object, map[string]*bool{
		"updateHubAssignment": &p.UpdateHubAssignment,
		"migrateDeviceData":   &p.MigrateDeviceData,
	})
	return &p, err
}

// eachBool reads an object whose known members are booleans.
func eachBool(path string, object []byte, known map[string]*bool) error {
	if object[0] != '{' {
		return refuse(path, "must be an object")
	}
	return eachMember(object, func(name, value []byte) error {
		dst, ok := known[string(name)]
		if !ok {
			for k := range known {
				if err := misspelt(path+".", name, k); err != nil {
					return err
				}
			}
			return nil
		}
		switch string(value) {
		case "true":
			*dst = true
		case "false":
			*dst = false
		case "null":
		default:
			return refuse(path+"."+string(name), "must be true or false")
		}
		return nil
	})
}

// decodeTwin takes tags and properties.desired apart and keeps both as they
// came.
func decodeTwin(object []byte) (*InitialTwin, error) {
	if object[0] != '{' {
		return nil, refuse("initialTwin", "must be an object")
	}
	var t InitialTwin
	err := eachMember(object, func(name, value []byte) (err error) {
		switch {
		case isNull(value):
		case string(name) == "tags":
			t.Tags, err = objectValue("initialTwin.tags", value)
		case string(name) == "properties":
			t.Desired, err = decodeDesired(value)
		default:
			err = misspelt("initialTwin.", name, "tags", "properties")
		}
		return err
	})
	return &t, err
}

func decodeDesired(object []byte) (desired json.RawMessage, err error) {
	if object[0] != '{' {
		return nil, refuse("initialTwin.properties", "must be an object")
	}
	err = eachMember(object, func(name, value []byte) (err error) {
		switch {
		case isNull(value):
		case string(name) == "desired":
			desired, err = objectValue("initialTwin.properties.desired", value)
		default:
			err = misspelt("initialTwin.properties.", name, "desired")
		}
		return err
	})
	return desired, err
}

func decodeCustom(object []byte) (*CustomAllocation, error) {
	const path = "customAllocationDefinition"
	if object[0] != '{' {
		return nil, refuse(path, "must be an object")
	}
	var c CustomAllocation
	err := eachMember(object, func(name, value []byte) (err error) {
		switch {
		case isNull(value):
		case string(name) == "webhookUrl":
			c.WebhookURL, err = stringValue(path+".webhookUrl", value)
		case string(name) == "apiVersion":
			c.APIVersion, err = stringValue(path+".apiVersion", value)
		default:
			err = misspelt(path+".", name, "webhookUrl", "apiVersion")
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !strings.HasPrefix(c.WebhookURL, "https://") && !strings.HasPrefix(c.WebhookURL, "http://"),
		len(c.WebhookURL) > maxWebhook, !printable(c.WebhookURL):
		return nil, refuse(path+".webhookUrl", "must be an http or https address of at most %d characters", maxWebhook)
	case !KnownAPIVersion(c.APIVersion), c.APIVersion < "2018-09-01":
		return nil, refuse(path+".apiVersion", "must be a known api-version from 2018-09-01-preview on")
	}
	return &c, nil
}

func objectValue(path string, value []byte) (json.RawMessage, error) {
	if value[0] != '{' {
		return nil, refuse(path, "must be an object")
	}
	return bytes.Clone(value), nil
}

func wordValue(path string, value []byte, words ...string) (string, error) {
	word, err := stringValue(path, value)
	if err == nil && !slices.Contains(words, word) {
		err = refuse(path, "must be one of: %s", strings.Join(words, ", "))
	}
	return word, err
}

// badDeviceID is what a device id that is none is told; it is a format.
const badDeviceID = "must be 1 to 128 ASCII letters, digits and - . %% _ * ? ! ( ) , : = @ $ '"

// deviceIDValue takes an empty text for an absent one.
func deviceIDValue(path string, value []byte) (string, error) {
	id, err := stringValue(path, value)
	if err == nil && id != "" && !ValidDeviceID(id) {
		err = refuse(path, badDeviceID)
	}
	return id, err
}

// hostValue takes an empty text for an absent one.
func hostValue(path string, value []byte) (string, error) {
	host, err := stringValue(path, value)
	if err == nil && host != "" && !validHost(host) {
		err = refuse(path, "must be a host name")
	}
	return host, err
}

func hostsValue(path string, value []byte) ([]string, error) {
	var hosts []string
	if value[0] != '[' || json.Unmarshal(value, &hosts) != nil {
		return nil, refuse(path, "must be an array of strings")
	}
	if len(hosts) > maxHubs {
		return nil, refuse(path, "holds more than %d host names", maxHubs)
	}
	for _, h := range hosts {
		if !validHost(h) {
			return nil, refuse(path, "must hold host names only")
		}
	}
	if len(hosts) == 0 {
		return nil, nil
	}
	return hosts, nil
}
