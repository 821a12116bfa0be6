package embedded

import (
	"context"
	"crypto/rand"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// A twin can be changed, and a message be sent, by a process that does not have the device's session. Then an outbox row comes with it, in the same
// transition, and the process that serves the hub takes the row within newsEvery and looks what is new for the device. If none serves it there is no
// session to tell, and the rows wait for the one that will.

const (
	newsEvery = time.Second
	newsLease = 30 * time.Second
	newsLimit = 200
)

// newsFor is the row that tells another process, or nil if no other can have the device's session.
func (h *Hub) newsFor(hub, deviceID string) *registration.Outbox {
	if h.config.News == nil || h.owner.serving() {
		return nil
	}
	return registration.DeviceNews(hub, deviceID, rand.Text())
}

// takeNews looks for what other processes have to tell, as long as the hub is served here.
func (h *Hub) takeNews() {
	if h.config.News == nil {
		return
	}
	for h.pause(newsEvery) {
		for h.owner.serving() && h.takeNewsOnce(h.base) {
		}
	}
}

// takeNewsOnce reports whether there may be more. Waking a device is remembered by its connection alone, so a row may be settled before it has been told: if the
// connection ends, the device asks for itself when it is back.
func (h *Hub) takeNewsOnce(ctx context.Context) (more bool) {
	ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	claim := rand.Text()
	rows, err := h.config.News.ClaimOutbox(ctx, registration.OutboxClaim{ID: claim, Kind: registration.OutboxDevice, Lease: newsLease, Limit: newsLimit})
	for _, row := range rows {
		if hub, deviceID, ok := registration.NewsOf(row.Object); ok {
			h.wakeDevice(deviceKey(hub, deviceID), newTwin|newMessages)
		}
		if _, settleErr := h.config.News.SettleOutbox(ctx, row.Scope, row.Outbox, claim); err == nil {
			err = settleErr
		}
	}
	if err != nil && h.base.Err() == nil {
		if missed, ok := h.newsFails.take(h.config.Now()); ok {
			h.log.Error("hub: what other nodes have for devices cannot be read, and is told later", "error", err, "missed", missed)
		}
	}
	return err == nil && len(rows) == newsLimit
}
