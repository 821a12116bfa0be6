package dps

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
)

// ImportColumns are the columns of a table of individual enrollments, in the
// order of an export.
//
//	registrationId             as the operator spelled it; of a TPM it may be empty
//	endorsementKey             of a TPM, base64 of the TPM2B_PUBLIC
//	deviceId                   name at the hub; empty: the registration id
//	provisioningStatus         enabled (also if empty) or disabled
//	storageRootKey             of a TPM, base64 of the TPM2B_PUBLIC of its only owner; empty: any
//	attestation                tpm, x509 or symmetricKey; empty: told by the other cells
//	primaryThumbprint          of x509, SHA-256 of the client certificate's DER in hex
//	secondaryThumbprint        of x509, likewise, or empty
//	symmetricKeys              withheld: as KeysWithheld; empty: made anew, or kept
//	allocationPolicy           hashed, geoLatency, static or custom
//	iotHubs                    host names with ; between them
//	iotHubHostName             the old way to name one hub
//	iotEdge                    true or false
//	tags                       of the first twin, a JSON object
//	desired                    likewise, its desired properties
//	optionalDeviceInformation  a JSON object
//	updateHubAssignment        true or false; both empty: no reprovision policy
//	migrateDeviceData          true or false
//	webhookUrl                 of a custom allocation
//	webhookApiVersion          likewise
//
// Of certificates only thumbprints are in a table; who brings one back where the certificate is not has an
// enrollment that holds the thumbprint, which is what devices are judged by.
var ImportColumns = []string{"registrationId", "endorsementKey", "deviceId", "provisioningStatus", "storageRootKey", "attestation", "primaryThumbprint",
	"secondaryThumbprint", "symmetricKeys", "allocationPolicy", "iotHubs", "iotHubHostName", "iotEdge", "tags", "desired", "optionalDeviceInformation",
	"updateHubAssignment", "migrateDeviceData", "webhookUrl", "webhookApiVersion"}

// ImportRow is an individual enrollment as a row of a table: cells by the names of
// their columns. Empty and absent are the same.
type ImportRow map[string]string

// ImportRowOf is the row of an enrollment. The certificates themselves and keys are lost.
func ImportRowOf(e IndividualEnrollment) (ImportRow, error) {
	r := ImportRow{"registrationId": e.RegistrationID, "deviceId": e.DeviceID, "provisioningStatus": e.ProvisioningStatus, "attestation": e.Attestation.Type,
		"allocationPolicy": e.AllocationPolicy, "iotHubs": strings.Join(e.IotHubs, ";"), "iotHubHostName": e.IotHubHostName}
	switch a := e.Attestation; {
	case a.TPM != nil:
		r["endorsementKey"], r["storageRootKey"] = base64.StdEncoding.EncodeToString(a.TPM.EndorsementKey), base64.StdEncoding.EncodeToString(a.TPM.StorageRootKey)
	case a.X509 != nil && a.X509.Client != nil:
		r.thumbprint("primaryThumbprint", a.X509.Client.Primary)
		r.thumbprint("secondaryThumbprint", a.X509.Client.Secondary)
	case a.Type == AttestationSymmetricKey:
		r["symmetricKeys"] = KeysWithheld
	}
	if e.Capabilities != nil {
		r.truth("iotEdge", e.Capabilities.IotEdge)
	}
	if p := e.ReprovisionPolicy; p != nil {
		r.truth("updateHubAssignment", p.UpdateHubAssignment)
		r.truth("migrateDeviceData", p.MigrateDeviceData)
	}
	if c := e.CustomAllocation; c != nil {
		r["webhookUrl"], r["webhookApiVersion"] = c.WebhookURL, c.APIVersion
	}
	twin := InitialTwin{}
	if e.InitialTwin != nil {
		twin = *e.InitialTwin
	}
	for name, object := range map[string]json.RawMessage{"tags": twin.Tags, "desired": twin.Desired, "optionalDeviceInformation": e.OptionalDeviceInformation} {
		line, err := compact(object)
		if err != nil {
			return nil, err
		}
		r[name] = string(line)
	}
	return r, nil
}

func (r ImportRow) thumbprint(column string, c *Certificate) {
	if c != nil {
		r[column] = c.Info.SHA256Thumbprint
	}
}

func (r ImportRow) truth(column string, value bool) {
	r[column] = "false"
	if value {
		r[column] = "true"
	}
}

// Entry judges the cells as DecodeEnrollment does. Errors are *FieldError; the
// entry that comes with one holds the registration id, if that was good.
func (r ImportRow) Entry() (ImportEntry, error) {
	e := ImportEntry{IndividualEnrollment: IndividualEnrollment{ProvisioningStatus: EnrollmentEnabled}}
	for _, column := range ImportColumns {
		if cell := r[column]; cell != "" {
			if err := e.cell(column, cell); err != nil {
				return refusedEntry(r["registrationId"]), err
			}
		}
	}
	err := r.prove(&e)
	if err == nil {
		err = r.allocation(&e)
	}
	if err == nil {
		err = e.check()
	}
	if err != nil {
		return refusedEntry(r["registrationId"]), err
	}
	return e, nil
}

// cell takes a cell that stands for itself.
func (e *ImportEntry) cell(column, cell string) (err error) {
	switch column {
	case "registrationId", "deviceId", "provisioningStatus", "allocationPolicy", "iotHubHostName":
		return e.member([]byte(column), appendString(nil, cell))
	case "symmetricKeys":
		return e.withhold(cell)
	case "iotHubs":
		e.IotHubs, err = hubsCell(cell)
	case "iotEdge":
		e.Capabilities = &Capabilities{}
		e.Capabilities.IotEdge, err = truthCell(column, cell)
	case "updateHubAssignment":
		e.reprovision().UpdateHubAssignment, err = truthCell(column, cell)
	case "migrateDeviceData":
		e.reprovision().MigrateDeviceData, err = truthCell(column, cell)
	case "optionalDeviceInformation":
		e.OptionalDeviceInformation, err = objectCell(column, cell)
	case "tags":
		e.twin().Tags, err = objectCell(column, cell)
	case "desired":
		e.twin().Desired, err = objectCell(column, cell)
	}
	return err
}

func (e *ImportEntry) reprovision() *ReprovisionPolicy {
	if e.ReprovisionPolicy == nil {
		e.ReprovisionPolicy = &ReprovisionPolicy{UpdateHubAssignment: true, MigrateDeviceData: true}
	}
	return e.ReprovisionPolicy
}

func (e *ImportEntry) twin() *InitialTwin {
	if e.InitialTwin == nil {
		e.InitialTwin = new(InitialTwin)
	}
	return e.InitialTwin
}

// proofColumns are the columns of each mechanism.
var proofColumns = map[string][]string{AttestationTPM: {"endorsementKey", "storageRootKey"}, AttestationX509: {"primaryThumbprint", "secondaryThumbprint"},
	AttestationSymmetricKey: {"symmetricKeys"}}

// prove takes the cells of the mechanism.
func (r ImportRow) prove(e *ImportEntry) (err error) {
	a := &e.Attestation
	if cell := r["attestation"]; cell != "" {
		if a.Type, err = wordValue("attestation", appendString(nil, cell), AttestationTPM, AttestationX509, AttestationSymmetricKey); err != nil {
			return err
		}
	} else {
		a.Type = r.mechanism()
	}
	for mechanism, columns := range proofColumns {
		for _, column := range columns {
			if mechanism != a.Type && r[column] != "" {
				return refuse(column, "must be empty in an enrollment whose attestation is %s", a.Type)
			}
		}
	}
	switch a.Type {
	case AttestationTPM:
		a.TPM, err = r.tpm()
	case AttestationX509:
		a.X509, err = r.x509()
	}
	return err
}

// mechanism is told by the cells that are there.
func (r ImportRow) mechanism() string {
	switch {
	case r["endorsementKey"] == "" && r["primaryThumbprint"] != "":
		return AttestationX509
	case r["endorsementKey"] == "" && r["symmetricKeys"] != "":
		return AttestationSymmetricKey
	}
	return AttestationTPM
}

func (r ImportRow) tpm() (*TPMKeys, error) {
	var keys TPMKeys
	var err error
	if keys.EndorsementKey, err = keyText("endorsementKey", r["endorsementKey"]); err != nil {
		return nil, err
	}
	if keys.EndorsementKey == nil {
		return nil, refuse("endorsementKey", "is missing")
	}
	keys.StorageRootKey, err = keyText("storageRootKey", r["storageRootKey"])
	return &keys, err
}

func (r ImportRow) x509() (*X509Attestation, error) {
	var pair CertificatePair
	for column, place := range map[string]**Certificate{"primaryThumbprint": &pair.Primary, "secondaryThumbprint": &pair.Secondary} {
		if r[column] == "" {
			continue
		}
		c := &Certificate{Info: CertificateInfo{SHA256Thumbprint: strings.ToUpper(r[column])}}
		if _, ok := c.Info.Fingerprint(); !ok {
			return nil, refuse(column, "must be the SHA-256 of a certificate in DER, %d hex digits", thumbprintDigits)
		}
		*place = c
	}
	if pair.Primary == nil {
		return nil, refuse("primaryThumbprint", "is missing")
	}
	return &X509Attestation{Client: &pair}, nil
}

func (r ImportRow) allocation(e *ImportEntry) (err error) {
	if r["webhookUrl"] == "" && r["webhookApiVersion"] == "" {
		return nil
	}
	c := CustomAllocation{r["webhookUrl"], r["webhookApiVersion"]}
	e.CustomAllocation, err = decodeCustom(c.appendTo(nil))
	return err
}

func hubsCell(cell string) ([]string, error) {
	hubs := strings.Split(cell, ";")
	for i, hub := range hubs {
		hubs[i] = strings.TrimSpace(hub)
	}
	hubs = slices.DeleteFunc(hubs, func(hub string) bool { return hub == "" })
	return hostsValue("iotHubs", appendStrings(nil, hubs))
}

// truthCell takes TRUE too, as spreadsheets write it.
func truthCell(column, cell string) (bool, error) {
	if cell = strings.ToLower(cell); cell != "true" && cell != "false" {
		return false, refuse(column, "must be true or false")
	}
	return cell == "true", nil
}

func objectCell(column, cell string) (json.RawMessage, error) {
	if checkObject([]byte(cell)) != nil {
		return nil, refuse(column, "must be a JSON object, of at most %d bytes and %d levels, that names no member twice", MaxMessage, maxDepth)
	}
	return compact(json.RawMessage(cell))
}
