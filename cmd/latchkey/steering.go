package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"latchkey.example/latchkey/dps"
)

// steeringFlags say which hub a device gets and what it finds there: members of an entry that --from-json may say too.
type steeringFlags struct {
	allocation, reprovision, twin string
	hubs                          []string
	edge                          bool
	flags                         *pflag.FlagSet
}

// reprovisions are the words of --reprovision; none takes the policy away.
var reprovisions = map[string]*dps.ReprovisionPolicy{
	"migrate": {UpdateHubAssignment: true, MigrateDeviceData: true}, "reset": {UpdateHubAssignment: true}, "never": {}, "none": nil,
}

// steeringRows show what an entry says of hubs, and nothing of what it leaves to the scope.
func steeringRows(row func(name, value string), allocation string, hubs []string, policy *dps.ReprovisionPolicy, twin *dps.InitialTwin, can *dps.Capabilities) {
	row("Allocation", allocation)
	row("Linked hubs", strings.Join(hubs, ", "))
	for word, means := range reprovisions {
		if policy != nil && means != nil && policy.UpdateHubAssignment == means.UpdateHubAssignment && (policy.MigrateDeviceData == means.MigrateDeviceData || !means.UpdateHubAssignment) {
			row("Reprovision", word)
		}
	}
	if twin != nil {
		row("Initial twin", "set")
	}
	if can != nil && can.IotEdge {
		row("IoT Edge", "yes")
	}
}

func (f *steeringFlags) add(cmd *cobra.Command) {
	f.flags = cmd.Flags()
	f.flags.StringVar(&f.allocation, "allocation", "", "allocation policy: hashed, geoLatency, static or custom, which --from-json gives its webhook; empty: the scope's")
	f.flags.StringSliceVar(&f.hubs, "hub", nil, "linked hub that a device may be given to; give it again for more, empty for all that take part")
	f.flags.StringVar(&f.reprovision, "reprovision", "", "what happens when a device registers again: migrate (its data moves along), reset (it finds the initial twin), never (it keeps its hub), or none")
	f.flags.StringVar(&f.twin, "initial-twin", "", "file with the initial twin as JSON, - for standard input; empty: none")
	f.flags.BoolVar(&f.edge, "iot-edge", false, "the device is an IoT Edge device")
}

// lay puts what the flags say over the members of --from-json.
func (f *steeringFlags) lay(o *overlay, stdin io.Reader) error {
	for _, member := range []struct {
		flag, name string
		value      func() (any, error)
	}{
		{"allocation", "allocationPolicy", func() (any, error) { return unlessEmpty(f.allocation), nil }},
		{"hub", "iotHubs", f.named},
		{"reprovision", "reprovisionPolicy", f.policy},
		{"initial-twin", "initialTwin", func() (any, error) { return f.initialTwin(stdin) }},
		{"iot-edge", "capabilities", func() (any, error) { return map[string]bool{"iotEdge": f.edge}, nil }},
	} {
		if !f.flags.Changed(member.flag) {
			continue
		}
		value, err := member.value()
		if err != nil {
			return err
		}
		if o.members == nil {
			o.members = map[string]json.RawMessage{}
		}
		if o.members[member.name], err = json.Marshal(value); err != nil {
			return err
		}
	}
	return nil
}

func (f *steeringFlags) given() bool {
	return slices.ContainsFunc([]string{"allocation", "hub", "reprovision", "initial-twin", "iot-edge"}, f.flags.Changed)
}

// unlessEmpty is nil, which takes a member away, for an empty text.
func unlessEmpty(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func (f *steeringFlags) named() (any, error) {
	hubs := slices.DeleteFunc(slices.Clone(f.hubs), func(hub string) bool { return hub == "" })
	if len(hubs) == 0 {
		return nil, nil
	}
	return hubs, nil
}

func (f *steeringFlags) policy() (any, error) {
	policy, known := reprovisions[f.reprovision]
	switch {
	case !known:
		return nil, usageError{fmt.Errorf("--reprovision: %q; use migrate, reset, never or none", f.reprovision)}
	case policy == nil:
		return nil, nil
	}
	return map[string]bool{"updateHubAssignment": policy.UpdateHubAssignment, "migrateDeviceData": policy.MigrateDeviceData}, nil
}

func (f *steeringFlags) initialTwin(stdin io.Reader) (any, error) {
	if f.twin == "" {
		return nil, nil
	}
	data, err := readInput(f.twin, stdin, dps.MaxMessage)
	if err != nil {
		return nil, err
	}
	if !json.Valid(data) {
		return nil, fmt.Errorf("%s: %w", inputName(f.twin), errors.New(`the initial twin must be JSON, such as {"tags": {}, "properties": {"desired": {}}}`))
	}
	return json.RawMessage(data), nil
}
