package embedded

import (
	"context"
	"time"
)

// A write that was to end a session, and of which this process does not know what became of it, may take effect after it was given up: then the
// session would go on with what the store holds no more, and nobody would call again. So the session is ended at once (a device that is still let in
// comes back), and who is connected is judged again until the write must have been seen.

// doubtTimes are when, after the write.
var doubtTimes = []time.Duration{time.Second, 5 * time.Second, 20 * time.Second, time.Minute}

// maxDoubts bounds the devices that are looked at so at one time. Of more than these the sessions are ended, once.
const maxDoubts = 1000

// doubt does both. The caller has locked the device.
func (h *Hub) doubt(scope, hub, deviceID string, why cause) {
	key := deviceKey(hub, deviceID)
	ctx, cancel := context.WithTimeout(h.base, loginTimeout)
	defer cancel()
	if err := h.end(ctx, key, why); err != nil {
		h.log.Error("hub: ending a session", "hub", hub, "device", deviceID, "error", err)
	}
	if h.doubts.Add(1) > maxDoubts {
		h.doubts.Add(-1)
		return
	}
	go func() {
		defer h.doubts.Add(-1)
		begin := time.Now()
		for _, at := range doubtTimes {
			if !h.pause(at - time.Since(begin)) {
				return
			}
			h.judgeSession(scope, hub, deviceID)
		}
	}()
}

// judgeSession ends the device's session if the identity does not let it in as it is now.
func (h *Hub) judgeSession(scope, hub, deviceID string) {
	ctx, cancel := context.WithTimeout(h.base, loginTimeout)
	defer cancel()
	key := deviceKey(hub, deviceID)
	unlock, err := h.logins.lock(ctx, key)
	if err != nil {
		return
	}
	defer unlock()
	identity, known, err := h.readIdentity(ctx, scope, hub, deviceID)
	if err != nil {
		return // looked at again
	}
	why, digests := causeRemoved, [][32]byte(nil)
	switch {
	case known && identity.Disabled:
		why = causeDisabled
	case known:
		credential, err := h.credentialOf(scope, identity)
		if err != nil {
			return
		}
		why, digests = causeRekeyed, digestsOf(credential)
	}
	if h.boundToOther(key, digests...) {
		_ = h.end(ctx, key, why) // the connection is cut, whether its end is waited for or not
	}
}
