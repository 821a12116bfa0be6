package storetest

import (
	"slices"

	"latchkey.example/latchkey/internal/registration"
)

// news claims what devices are to be told.
func (w *world) news(claim string) (objects []string) {
	w.Helper()
	rows, err := w.store.ClaimOutbox(w.ctx, registration.OutboxClaim{ID: claim, Kind: registration.OutboxDevice, Lease: longLease, Limit: 9})
	w.ok(err)
	for _, row := range rows {
		w.applied(w.store.SettleOutbox(w.ctx, row.Scope, row.Outbox, claim))
		objects = append(objects, row.Object)
	}
	slices.Sort(objects)
	return objects
}

func newsOfDev(unique string) *registration.Outbox {
	return registration.DeviceNews("hub", "dev", unique)
}

// newsComesWithWhatIsNew: a twin or a message comes with the row that tells of it, or neither does.
func newsComesWithWhatIsNew(w *world) {
	twin := func(was uint64, unique string) registration.TwinPut {
		return registration.TwinPut{Was: was, Outbox: newsOfDev(unique), Twin: registration.Twin{Hub: "hub", DeviceID: "dev", Tags: []byte("{}"), Desired: []byte("{}"),
			Reported: []byte("{}"), DesiredMetadata: []byte("{}"), ReportedMetadata: []byte("{}"), DesiredVersion: 1, ReportedVersion: 1, Updated: epoch}}
	}
	message := func(unique string) registration.HubMessage {
		return registration.HubMessage{Hub: "hub", DeviceID: "dev", Body: []byte("x"), Enqueued: epoch, Expires: epoch, Outbox: newsOfDev(unique)}
	}
	enqueued := func(want registration.Verdict, m registration.HubMessage) {
		w.Helper()
		_, verdict, err := w.store.EnqueueMessage(w.ctx, scope, m, 1)
		w.verdict(want)(verdict, err)
	}
	w.verdict(registration.Missing)(w.store.PutTwin(w.ctx, scope, twin(0, "no identity")))
	enqueued(registration.Missing, message("no identity"))
	w.putIdentity(scope, identity("hub", "dev", "key", 1), "")
	w.applied(w.store.PutTwin(w.ctx, scope, twin(0, "first")))
	w.applied(w.store.PutTwin(w.ctx, scope, twin(1, "second")))
	w.verdict(registration.Conflict)(w.store.PutTwin(w.ctx, scope, twin(1, "not as it was read")))
	enqueued(registration.Applied, message("message"))
	enqueued(registration.Full, message("too many"))
	w.same("news", w.news("a"), []string{"hub/dev/first", "hub/dev/message", "hub/dev/second"})
	w.same("news that was told", w.news("b"), []string(nil))
	kept, err := w.store.Messages(w.ctx, scope, "hub", "dev", 0, 9)
	if w.ok(err); len(kept) != 1 || kept[0].Outbox != nil {
		w.Errorf("messages: %+v", kept)
	}
}

// purgedWithItsIdentity: what waits for a device, and its session, goes in the transition that gives it to another owner, or does not.
func purgedWithItsIdentity(w *world) {
	w.putIdentity(scope, identity("hub", "dev", "key", 1), "")
	w.putIdentity(scope, identity("hub", "other", "key", 1), "")
	for _, id := range []string{"dev", "dev", "other"} {
		_, verdict, err := w.store.EnqueueMessage(w.ctx, scope, registration.HubMessage{Hub: "hub", DeviceID: id, Enqueued: epoch, Expires: epoch}, 9)
		w.applied(verdict, err)
	}
	count := func(id string, want int) {
		w.Helper()
		n, err := w.store.CountMessages(w.ctx, scope, "hub", id)
		w.ok(err)
		w.same("messages of "+id, n, want)
	}
	put := identityPut(identity("hub", "dev", "another", 2), 7)
	put.Purge = true
	w.verdict(registration.Conflict)(w.store.PutIdentity(w.ctx, scope, put, audit("", epoch)))
	count("dev", 2)
	w.verdict(registration.Missing)(w.store.PutSession(w.ctx, scope, "hub", "nobody", 7))
	w.applied(w.store.PutSession(w.ctx, scope, "hub", "dev", 5))
	w.applied(w.store.PutSession(w.ctx, scope, "hub", "dev", 63))
	w.applied(w.store.PutSession(w.ctx, scope, "hub", "other", 7))
	session := func(id string, want uint32) {
		w.Helper()
		listens, err := w.store.Session(w.ctx, scope, "hub", id)
		w.ok(err)
		w.same("session of "+id, listens, want)
	}
	session("dev", 63)
	session("nobody", 0)
	put.Was = 1
	w.applied(w.store.PutIdentity(w.ctx, scope, put, audit("", epoch)))
	count("dev", 0)
	count("other", 1)
	session("dev", 0)
	session("other", 7)
	seq, verdict, err := w.store.EnqueueMessage(w.ctx, scope, registration.HubMessage{Hub: "hub", DeviceID: "dev", Enqueued: epoch, Expires: epoch}, 9)
	w.applied(verdict, err)
	w.same("number of the next message", seq, uint64(3))
}
