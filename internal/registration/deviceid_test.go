package registration_test

import (
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// A broken device is replaced: the new one is enrolled under its own registration id and takes over the old one's device id. While
// the old registration is there the newcomer is refused; once it is deleted the newcomer gets the name with a key of its own, although
// its own count of redemptions is far behind the old device's.
func TestADeviceIDBelongsToOneRegistrationAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	named := map[string]any{"deviceId": "press-07"}
	old := w.device("old-chip", softtpm.ECC, 0)
	old.enroll("", named)
	for range 3 {
		old.register()
	}
	newcomer := w.device("new-chip", softtpm.ECC, 1)
	newcomer.enroll("", named)
	token := newcomer.token(newcomer.challenge(), time.Hour)
	_, err := newcomer.prove(token)
	w.wantFault(err, dps.CodeConflict, registration.ReasonDeviceIDTaken)
	if w.snapshot("new-chip").Registration != nil {
		t.Error("the refused newcomer has a registration")
	}
	w.wantSound("old-chip")

	w.must(w.core.DeleteRegistration(w.ctx, operator, "old-chip", ""))
	got := newcomer.register()
	if at := w.hub.device("press-07"); string(at.key) != string(got.hubKey) || at.cuts != 1 {
		t.Errorf("the hub has not the newcomer's key, or did not cut the old device: %+v", at)
	}
	w.wantSound("new-chip")
}
