package sdk

import (
	"testing"

	"latchkey.example/latchkey/test/rig"
)

func TestNodeHubServiceSDKManagesDevicesOverREST(t *testing.T) {
	newNode(t, rig.New(t, rig.Config{})).run(t, "hubservice.js", "registry")
}

func TestNodeHubServiceSDKCallsADeviceThatIsConnected(t *testing.T) {
	newNode(t, rig.New(t, rig.Config{})).run(t, "hubservice.js", "calls")
}
