package device

import (
	"time"

	"latchkey.example/latchkey/dps"
)

// HubToken makes the SAS token with which a device logs in at its hub, valid
// for ttl from now by this computer's clock. It is the MQTT password, and a
// secret until it expires. key is the hub key: an Assignment's Key, or one
// that LoadKey loaded.
func HubToken(key dps.Signer, hub, deviceID string, ttl time.Duration) (string, error) {
	return HubTokenUntil(key, hub, deviceID, time.Now().Add(ttl))
}

// HubTokenUntil is HubToken with the time of expiry.
func HubTokenUntil(key dps.Signer, hub, deviceID string, expiry time.Time) (string, error) {
	return dps.NewToken(key, hub+"/devices/"+deviceID, expiry, "")
}

// HubUsername is the MQTT user name of a device at its hub. The client id is
// the device id.
func HubUsername(hub, deviceID string) string {
	return hub + "/" + deviceID + "/?api-version=2021-04-12"
}
