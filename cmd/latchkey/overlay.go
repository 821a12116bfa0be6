package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

const fromJSONHelp = `

--from-json takes an object with members of the entry as the management API has them, such as
    {"initialTwin":{"tags":{"line":4}},"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":false},"allocationPolicy":"hashed"}
Each member replaces the one that is there, and null takes it away; what another flag says goes before it. What 'show ID --json' printed is
such an object too.`

// entryMembers are what --from-json may say; the last ones are the service's own, ignored as the service ignores them.
var (
	entryMembers = []string{"attestation", "capabilities", "iotHubHostName", "initialTwin", "provisioningStatus", "reprovisionPolicy",
		"allocationPolicy", "iotHubs", "customAllocationDefinition"}
	enrollmentMembers = append([]string{"registrationId", "deviceId", "optionalDeviceInformation"}, entryMembers...)
	groupMembers      = append([]string{"enrollmentGroupId"}, entryMembers...)
	serviceMembers    = []string{"etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc", "registrationState"}
)

// overlay is what --from-json names: members that are laid over an entry.
type overlay struct {
	file    string
	steer   steeringFlags
	members map[string]json.RawMessage // nil: not given
}

// given says whether anything is to be laid over an entry.
func (o *overlay) given() bool { return o.file != "" || o.steer.given() }

func (o *overlay) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.file, "from-json", "", "file with members of the entry as JSON, - for standard input")
	o.steer.add(cmd)
	cmd.Long += fromJSONHelp
}

// read reads the object, and puts over it what other flags say. Values are judged with the whole entry, once they are laid over one.
func (o *overlay) read(stdin io.Reader, known []string) error {
	if err := o.readObject(stdin, known); err != nil {
		return err
	}
	return o.steer.lay(o, stdin)
}

func (o *overlay) readObject(stdin io.Reader, known []string) error {
	if o.file == "" {
		return nil
	}
	data, err := readInput(o.file, stdin, dps.MaxMessage)
	if err != nil {
		return err
	}
	object := json.NewDecoder(bytes.NewReader(data))
	if start, err := object.Token(); err != nil || start != json.Delim('{') {
		return o.wrong(errors.New("it must hold a JSON object"))
	}
	o.members = map[string]json.RawMessage{}
	for object.More() {
		if err := o.member(object, known); err != nil {
			return o.wrong(err)
		}
	}
	if _, err := object.Token(); err != nil {
		return o.wrong(errors.New("the JSON object does not end"))
	}
	if _, err := object.Token(); err != io.EOF {
		return o.wrong(errors.New("something follows the JSON object"))
	}
	return nil
}

func (o *overlay) member(object *json.Decoder, known []string) error {
	token, err := object.Token()
	if err != nil {
		return err
	}
	name := token.(string) // in an object, what is not its end is a name
	var value json.RawMessage
	if err := object.Decode(&value); err != nil {
		return err
	}
	switch {
	case slices.Contains(serviceMembers, name):
		return nil
	case !slices.Contains(known, name):
		return fmt.Errorf("there is no member %q", name)
	case o.members[name] != nil:
		return fmt.Errorf("the member %q is there twice", name)
	}
	o.members[name] = value
	return nil
}

func (o *overlay) wrong(err error) error {
	if o.file == "" {
		return usageError{err} // flags alone have said it
	}
	return fmt.Errorf("%s: %w", inputName(o.file), err)
}

// over lays the members over an entry, except those that flags have said.
func (o *overlay) over(entry []byte, except ...string) ([]byte, error) {
	if len(o.members) == 0 {
		return entry, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(entry, &all); err != nil {
		return nil, errors.New("the service's answer is no entry")
	}
	for name, value := range o.members {
		if !slices.Contains(except, name) {
			all[name] = value
		}
	}
	return json.Marshal(all)
}

// enrollment lays the members over an enrollment and judges what comes of it.
func (o *overlay) enrollment(e dps.IndividualEnrollment, except ...string) (dps.IndividualEnrollment, error) {
	if o.members == nil {
		return e, nil
	}
	data, err := o.over(e.EncodeShowing(dps.ShowKeys|dps.ShowCertificates), except...)
	if err != nil {
		return dps.IndividualEnrollment{}, err
	}
	laid, err := dps.DecodeEnrollment("", data)
	switch {
	case err != nil:
		return dps.IndividualEnrollment{}, o.wrong(err)
	case dps.FoldID(laid.RegistrationID) != dps.FoldID(e.RegistrationID):
		return dps.IndividualEnrollment{}, o.wrong(fmt.Errorf("registrationId is not %s", e.RegistrationID))
	}
	laid.RegistrationID = e.RegistrationID
	return laid, nil
}

// group is enrollment for a group.
func (o *overlay) group(g dps.EnrollmentGroup, except ...string) (dps.EnrollmentGroup, error) {
	if o.members == nil {
		return g, nil
	}
	data, err := o.over(g.EncodeShowing(dps.ShowKeys|dps.ShowCertificates), except...)
	if err != nil {
		return dps.EnrollmentGroup{}, err
	}
	laid, err := dps.DecodeGroup("", data)
	switch {
	case err != nil:
		return dps.EnrollmentGroup{}, o.wrong(err)
	case dps.FoldID(laid.GroupID) != dps.FoldID(g.GroupID):
		return dps.EnrollmentGroup{}, o.wrong(fmt.Errorf("enrollmentGroupId is not %s", g.GroupID))
	}
	laid.GroupID, laid.ETag = g.GroupID, g.ETag
	return laid, nil
}
