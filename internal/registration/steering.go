package registration

import (
	"strings"

	"latchkey.example/latchkey/dps"
)

// steering is what an entry says of the hub that its devices go to, and of what they have there.
type steering struct {
	policy      string   // allocation policy, spelled as on the wire; empty: the scope's
	hubs        []string // lower case; empty: all that are linked
	reprovision *dps.ReprovisionPolicy
	start       DeviceData // what a device has where it did not exist before
}

func steeringOf(e dps.IndividualEnrollment) steering {
	s := steering{policy: e.AllocationPolicy, reprovision: e.ReprovisionPolicy}
	for _, hub := range e.IotHubs {
		s.hubs = append(s.hubs, strings.ToLower(hub))
	}
	if e.IotHubHostName != "" && e.AllocationPolicy == "" && len(e.IotHubs) == 0 { // the old way to say static, with one hub
		s.policy, s.hubs = dps.AllocationStatic, []string{strings.ToLower(e.IotHubHostName)}
	}
	if twin := e.InitialTwin; twin != nil {
		s.start.Tags, s.start.Desired = twin.Tags, twin.Desired
	}
	s.start.IoTEdge = e.Capabilities != nil && e.Capabilities.IotEdge
	return s
}

func groupSteering(g dps.EnrollmentGroup) steering {
	return steeringOf(dps.IndividualEnrollment{AllocationPolicy: g.AllocationPolicy, ReprovisionPolicy: g.ReprovisionPolicy, IotHubs: g.IotHubs,
		IotHubHostName: g.IotHubHostName, InitialTwin: g.InitialTwin, Capabilities: g.Capabilities})
}

// stickyUntil is the last api-version whose devices stay at their hub where the entry has no reprovision policy.
const stickyUntil = "2018-04-01"

// keepsHub says whether a device that registers again stays at the hub it has. A policy that is there decides, whatever the device's api-version;
// without one only a device that speaks an old one stays.
func (s steering) keepsHub(apiVersion string) bool {
	if s.reprovision != nil {
		return !s.reprovision.UpdateHubAssignment
	}
	return apiVersion != "" && apiVersion[:min(len(apiVersion), len(stickyUntil))] <= stickyUntil
}

// resets says whether a device that registers again begins anew with what its entry says, and does not keep what it has.
func (s steering) resets() bool {
	return s.reprovision != nil && s.reprovision.UpdateHubAssignment && !s.reprovision.MigrateDeviceData
}
