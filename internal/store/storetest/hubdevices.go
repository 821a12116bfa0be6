package storetest

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// device makes an identity of generation 1 at the hub.
func (w *world) deviceAtHub(id string) {
	w.Helper()
	w.applied(w.store.PutIdentity(w.ctx, scope, identityPut(identity("hub", id, "key", 1), 0), audit("made "+id, epoch)))
}

func deletion(id string, was, generation uint64) registration.IdentityDelete {
	return registration.IdentityDelete{Hub: "hub", DeviceID: id, Was: was, Generation: generation, At: epoch}
}

func (w *world) stored(id string) registration.Identity {
	w.Helper()
	got, err := w.store.Identity(w.ctx, scope, "hub", id)
	w.ok(err)
	return got
}

func (w *world) noIdentity(id string) {
	w.Helper()
	if got, err := w.store.Identity(w.ctx, scope, "hub", id); !isNotFound(err) {
		w.Fatalf("%+v, %v, want not found", got, err)
	}
}

func (w *world) generation(id string, want uint64) {
	w.Helper()
	got, err := w.store.IdentityGeneration(w.ctx, scope, "hub", id)
	w.ok(err)
	if got != want {
		w.Fatalf("generation %d of %s, want %d", got, id, want)
	}
}

// identityRoundTrip: everything is kept, and what the store sets itself is not the caller's.
func identityRoundTrip(w *world) {
	id := identity("hub", "dev", "key", 3)
	id.Cutting, id.Disabled, id.IoTEdge, id.StatusReason, id.StatusUpdated, id.Version = true, true, true, "stolen°", epoch.Add(time.Hour), 99
	w.applied(w.store.PutIdentity(w.ctx, scope, identityPut(id, 0), audit("1", epoch)))
	id.Version = 1
	w.identity(id)
	other := identity("hub", "dev", "other", 4)
	other.Created = epoch.Add(2 * time.Hour)
	w.applied(w.store.PutIdentity(w.ctx, scope, identityPut(other, 3), audit("2", epoch)))
	other.Created, other.Version = id.Created, 2
	w.identity(other)
	long := identityPut(other, 4)
	long.StatusReason = string(bytes.Repeat([]byte("x"), registration.MaxStatusReason+1))
	for _, reason := range []string{long.StatusReason, "not\xffUTF-8", "a NUL\x00"} {
		long.StatusReason = reason
		if _, err := w.store.PutIdentity(w.ctx, scope, long, audit("3", epoch)); err == nil {
			w.Errorf("%q was written", reason[:5])
		}
	}
	w.audited(scope, "3", 0)
	w.identity(other)
}

func identityComparedByVersion(w *world) {
	w.deviceAtHub("dev")
	put := identityPut(identity("hub", "dev", "same generation", 1), 1)
	w.applied(w.store.PutIdentity(w.ctx, scope, put, audit("2", epoch)))
	for _, version := range []uint64{1, 3} {
		put.WasVersion = version
		w.verdict(registration.Conflict)(w.store.PutIdentity(w.ctx, scope, put, audit("3", epoch)))
		d := deletion("dev", 1, 1)
		d.WasVersion = version
		w.verdict(registration.Conflict)(w.store.DeleteIdentity(w.ctx, scope, d, audit("3", epoch)))
	}
	w.audited(scope, "3", 0)
	put.WasVersion = 2
	w.applied(w.store.PutIdentity(w.ctx, scope, put, audit("4", epoch)))
	put.DeviceID, put.Was = "another", 0
	w.verdict(registration.Conflict)(w.store.PutIdentity(w.ctx, scope, put, audit("5", epoch))) // a version of nothing
}

func identitiesListed(w *world) {
	for _, id := range []string{"b", "A", "a", "B", "ä"} {
		w.deviceAtHub(id)
	}
	w.applied(w.store.PutIdentity(w.ctx, scope, identityPut(identity("hub2", "c", "key", 1), 0), audit("1", epoch)))
	w.applied(w.store.PutIdentity(w.ctx, otherScope, identityPut(identity("hub", "d", "key", 1), 0), audit("1", epoch)))
	var seen []string
	for after := ""; ; {
		page, err := w.store.Identities(w.ctx, scope, "hub", after, 2)
		w.ok(err)
		for _, id := range page {
			w.same("of the list", id, w.stored(id.DeviceID))
			seen = append(seen, id.DeviceID)
		}
		if len(page) < 2 {
			break
		}
		after = page[1].DeviceID
	}
	w.same("devices", seen, []string{"A", "B", "a", "b", "ä"})
}

// identityLeavesItsGeneration: a call that comes late does not bring a deleted device back, as long as its generation is kept.
func identityLeavesItsGeneration(w *world) {
	w.deviceAtHub("dev")
	w.generation("dev", 1)
	d := deletion("dev", 1, 7)
	d.At = epoch.Add(time.Minute)
	w.applied(w.store.DeleteIdentity(w.ctx, scope, d, audit("deleted", epoch)))
	w.audited(scope, "deleted", 1)
	w.noIdentity("dev")
	w.generation("dev", 7)
	late := func(generation uint64) registration.IdentityPut {
		return identityPut(identity("hub", "dev", "late", generation), 0)
	}
	w.verdict(registration.Superseded)(w.store.PutIdentity(w.ctx, scope, late(6), audit("late", epoch)))
	w.verdict(registration.Superseded)(w.store.DeleteIdentity(w.ctx, scope, deletion("dev", 0, 6), audit("late", epoch)))
	w.audited(scope, "late", 0)
	w.noIdentity("dev")
	w.applied(w.store.PutIdentity(w.ctx, scope, late(7), audit("again", epoch)))
	if got := w.stored("dev"); got.Version != 2 {
		w.Errorf("version %d after one that was deleted with 1", got.Version)
	}
	d.Was = 7
	w.applied(w.store.DeleteIdentity(w.ctx, scope, d, audit("deleted", epoch)))
	w.prune(time.Time{}, d.At, 10, 0) // deleted at the bound: stays
	w.verdict(registration.Superseded)(w.store.PutIdentity(w.ctx, scope, late(6), audit("late", epoch)))
	w.prune(time.Time{}, d.At.Add(time.Microsecond), 10, 1)
	w.generation("dev", 0)
	w.applied(w.store.PutIdentity(w.ctx, scope, late(1), audit("forgotten", epoch)))
}

func identityDeletedAsRead(w *world) {
	w.verdict(registration.Missing)(w.store.DeleteIdentity(w.ctx, scope, deletion("dev", 3, 3), audit("1", epoch)))
	w.deviceAtHub("dev")
	w.verdict(registration.Conflict)(w.store.DeleteIdentity(w.ctx, scope, deletion("dev", 0, 3), audit("1", epoch)))
	w.verdict(registration.Conflict)(w.store.DeleteIdentity(w.ctx, scope, deletion("dev", 2, 3), audit("1", epoch)))
	other := deletion("dev", 1, 3)
	other.Owner = pointer("another")
	w.verdict(registration.OtherOwner)(w.store.DeleteIdentity(w.ctx, scope, other, audit("1", epoch)))
	for _, d := range []registration.IdentityDelete{deletion("dev", 1, 0), deletion("dev", 2, 1)} {
		if _, err := w.store.DeleteIdentity(w.ctx, scope, d, audit("1", epoch)); err == nil {
			w.Errorf("%+v was done", d)
		}
	}
	w.audited(scope, "1", 0)
	w.generation("dev", 1)
	other.Owner = pointer("")
	w.applied(w.store.DeleteIdentity(w.ctx, scope, other, audit("2", epoch)))
}

// identityMadeOrFenced: of one who makes a device and one who makes sure that there is none by a later proof, at once, one finds what the other did.
func identityMadeOrFenced(w *world) {
	for round := range 20 {
		id := numbered("dev", round)
		var made, fenced registration.Verdict
		var done sync.WaitGroup
		done.Go(func() {
			var err error
			if made, err = w.store.PutIdentity(w.ctx, scope, identityPut(identity("hub", id, "key", 1), 0), audit("made", epoch)); err != nil {
				w.Error(err)
			}
		})
		done.Go(func() {
			var err error
			if fenced, err = w.store.DeleteIdentity(w.ctx, scope, deletion(id, 0, 2), audit("fenced", epoch)); err != nil {
				w.Error(err)
			}
		})
		done.Wait()
		first := made == registration.Applied && fenced == registration.Conflict
		second := made == registration.Superseded && fenced == registration.Applied
		if !first && !second {
			w.Fatalf("made: verdict %d, fenced: verdict %d", made, fenced)
		}
	}
}

func twin(id, salt string, was uint64) registration.TwinPut {
	part := func(name string) []byte { return fmt.Appendf(nil, `{%q:%q}`, name, salt) }
	return registration.TwinPut{Was: was, Twin: registration.Twin{Hub: "hub", DeviceID: id, Tags: part("tag"), Desired: part("desired"), Reported: part("reported"),
		DesiredMetadata: part("dm"), ReportedMetadata: part("rm"), DesiredVersion: 5, ReportedVersion: 6, Updated: epoch}}
}

func (w *world) twin(id string, want registration.TwinPut) {
	w.Helper()
	got, err := w.store.Twin(w.ctx, scope, "hub", id)
	w.ok(err)
	want.Version = want.Was + 1
	w.same("twin", got, want.Twin)
}

func (w *world) noTwin(id string) {
	w.Helper()
	if got, err := w.store.Twin(w.ctx, scope, "hub", id); !isNotFound(err) {
		w.Fatalf("%+v, %v, want not found", got, err)
	}
}

func twinReplacedAsRead(w *world) {
	w.verdict(registration.Missing)(w.store.PutTwin(w.ctx, scope, twin("dev", "1", 0)))
	w.verdict(registration.Missing)(w.store.PutTwin(w.ctx, scope, twin("dev", "1", 1)))
	w.deviceAtHub("dev")
	w.noTwin("dev")
	w.verdict(registration.Conflict)(w.store.PutTwin(w.ctx, scope, twin("dev", "0", 1)))
	for was := range uint64(3) {
		put := twin("dev", fmt.Sprint(was), was)
		w.applied(w.store.PutTwin(w.ctx, scope, put))
		w.twin("dev", put)
		for _, stale := range []uint64{was, was + 2} {
			w.verdict(registration.Conflict)(w.store.PutTwin(w.ctx, scope, twin("dev", "stale", stale)))
		}
		w.twin("dev", put)
	}
	large := twin("dev", "3", 3)
	large.Reported = make([]byte, 1<<20+1)
	if _, err := w.store.PutTwin(w.ctx, scope, large); err == nil {
		w.Error("a megabyte was written")
	}
	if got := w.stored("dev"); got.Version != 1 {
		w.Errorf("the identity has version %d: the twin is none of its", got.Version)
	}
}

func twinOneWins(w *world) {
	w.deviceAtHub("dev")
	for was := range uint64(2) {
		var wins atomic.Int32
		var done sync.WaitGroup
		for i := range 20 {
			done.Go(func() {
				switch verdict, err := w.store.PutTwin(w.ctx, scope, twin("dev", fmt.Sprint(i), was)); {
				case err != nil:
					w.Error(err)
				case verdict == registration.Applied:
					wins.Add(1)
				case verdict != registration.Conflict:
					w.Errorf("verdict %d", verdict)
				}
			})
		}
		done.Wait()
		if wins.Load() != 1 {
			w.Fatalf("%d of 20 wrote in the place of version %d", wins.Load(), was)
		}
	}
}

// twinComesWithItsIdentity: both are written, or neither.
func twinComesWithItsIdentity(w *world) {
	first := identityPut(identity("hub", "dev", "key", 1), 0)
	first.Twin = pointer(twin("somebody else", "1", 0)) // whose it is does not matter: it is the identity's
	w.applied(w.store.PutIdentity(w.ctx, scope, first, audit("1", epoch)))
	w.twin("dev", twin("dev", "1", 0))
	w.noTwin("somebody else")
	second := identityPut(identity("hub", "dev", "other", 2), 1)
	second.Twin = pointer(twin("dev", "2", 0))
	w.verdict(registration.Conflict)(w.store.PutIdentity(w.ctx, scope, second, audit("2", epoch)))
	w.identity(first.Identity)
	w.audited(scope, "2", 0)
	second.Twin.Was = 1
	second.Was = 9
	w.verdict(registration.Conflict)(w.store.PutIdentity(w.ctx, scope, second, audit("2", epoch)))
	w.twin("dev", twin("dev", "1", 0))
	second.Was = 1
	w.applied(w.store.PutIdentity(w.ctx, scope, second, audit("3", epoch)))
	w.twin("dev", twin("dev", "2", 1))
}

func message(id, name string) registration.HubMessage {
	return registration.HubMessage{Hub: "hub", DeviceID: id, ID: name, CorrelationID: "about " + name, UserID: "user", Ack: "full", Properties: []byte("a=b&%24.mid=" + name),
		Body: []byte("do " + name), Enqueued: epoch, Expires: epoch.Add(time.Hour)}
}

func (w *world) enqueued(m registration.HubMessage, want uint64) {
	w.Helper()
	seq, verdict, err := w.store.EnqueueMessage(w.ctx, scope, m, 50)
	w.applied(verdict, err)
	if seq != want {
		w.Fatalf("message %d, want %d", seq, want)
	}
}

// messages asserts what waits for a device, by names.
func (w *world) messages(id string, want ...string) {
	w.Helper()
	list, err := w.store.Messages(w.ctx, scope, "hub", id, 0, 100)
	w.ok(err)
	var names []string
	for _, m := range list {
		names = append(names, m.ID)
	}
	w.same("messages", names, want)
	n, err := w.store.CountMessages(w.ctx, scope, "hub", id)
	w.ok(err)
	if n != len(want) {
		w.Errorf("%d messages are counted, want %d", n, len(want))
	}
}

func messagesWaitInOrder(w *world) {
	_, verdict, err := w.store.EnqueueMessage(w.ctx, scope, message("dev", "none"), 50)
	w.verdict(registration.Missing)(verdict, err)
	w.deviceAtHub("dev")
	w.deviceAtHub("other")
	for i, name := range []string{"a", "b", "c"} {
		w.enqueued(message("dev", name), uint64(i+1))
	}
	w.enqueued(message("other", "x"), 1)
	w.messages("dev", "a", "b", "c")
	list, err := w.store.Messages(w.ctx, scope, "hub", "dev", 1, 1)
	w.ok(err)
	want := message("dev", "b")
	want.Seq = 2
	w.same("the message behind 1", list, []registration.HubMessage{want})
	w.applied(w.store.DeliveredMessage(w.ctx, scope, "hub", "dev", 2))
	w.applied(w.store.DeliveredMessage(w.ctx, scope, "hub", "dev", 2))
	list, err = w.store.Messages(w.ctx, scope, "hub", "dev", 1, 1)
	w.ok(err)
	want.Deliveries = 2
	w.same("after two attempts", list, []registration.HubMessage{want})
	w.applied(w.store.SettleMessage(w.ctx, scope, "hub", "dev", 2))
	for _, seq := range []uint64{0, 2, 4} {
		w.verdict(registration.Missing)(w.store.SettleMessage(w.ctx, scope, "hub", "dev", seq))
		w.verdict(registration.Missing)(w.store.DeliveredMessage(w.ctx, scope, "hub", "dev", seq))
	}
	w.applied(w.store.SettleMessage(w.ctx, scope, "hub", "dev", 3))
	w.enqueued(message("dev", "d"), 4) // no number comes twice
	w.messages("dev", "a", "d")
	w.messages("other", "x")
}

func messagesAreBounded(w *world) {
	w.deviceAtHub("dev")
	var applied, full atomic.Int32
	var numbers sync.Map
	var done sync.WaitGroup
	for i := range 60 {
		done.Go(func() {
			seq, verdict, err := w.store.EnqueueMessage(w.ctx, scope, message("dev", fmt.Sprint(i)), 50)
			switch {
			case err != nil:
				w.Error(err)
			case verdict == registration.Applied:
				applied.Add(1)
				if _, twice := numbers.LoadOrStore(seq, i); twice {
					w.Errorf("number %d twice", seq)
				}
			case verdict == registration.Full && seq == 0:
				full.Add(1)
			default:
				w.Errorf("verdict %d, number %d", verdict, seq)
			}
		})
	}
	done.Wait()
	if applied.Load() != 50 || full.Load() != 10 {
		w.Fatalf("%d of 60 were taken, %d refused", applied.Load(), full.Load())
	}
	w.applied(w.store.SettleMessage(w.ctx, scope, "hub", "dev", 17))
	seq, verdict, err := w.store.EnqueueMessage(w.ctx, scope, message("dev", "more"), 50)
	w.applied(verdict, err)
	if seq != 51 {
		w.Errorf("number %d: the refused ones took some", seq)
	}
	for name, m := range map[string]registration.HubMessage{
		"body": {Body: make([]byte, registration.MaxMessageBody+1)}, "properties": {Properties: make([]byte, registration.MaxMessageProperties+1)},
		"id": {ID: string(make([]byte, 300))}, "user": {UserID: "\xff"}, "correlation": {CorrelationID: "a\x00"},
	} {
		m.Hub, m.DeviceID = "hub", "dev"
		if _, _, err := w.store.EnqueueMessage(w.ctx, scope, m, 100); err == nil {
			w.Errorf("a message whose %s is too much was taken", name)
		}
	}
}

func messagesExpire(w *world) {
	w.deviceAtHub("dev")
	w.applied(w.store.PutIdentity(w.ctx, otherScope, identityPut(identity("hub", "dev", "key", 1), 0), audit("1", epoch)))
	for i, minutes := range []int{3, 1, 2} {
		m := message("dev", fmt.Sprint(minutes))
		m.Expires = epoch.Add(time.Duration(minutes) * time.Minute)
		w.enqueued(m, uint64(i+1))
	}
	elsewhere := message("dev", "elsewhere")
	elsewhere.Expires = epoch
	_, verdict, err := w.store.EnqueueMessage(w.ctx, otherScope, elsewhere, 50)
	w.applied(verdict, err)
	expire := func(before time.Time, limit int, want ...string) {
		w.Helper()
		expired, err := w.store.ExpireMessages(w.ctx, before, limit)
		w.ok(err)
		got := map[string]bool{}
		for _, e := range expired {
			got[e.Scope+" "+e.ID] = e.Body == nil && e.Hub == "hub" && e.DeviceID == "dev" && e.Ack == "full" && e.Seq > 0
		}
		all := map[string]bool{}
		for _, name := range want {
			all[name] = true
		}
		w.same("expired", got, all)
	}
	expire(epoch, 10)
	expire(epoch.Add(time.Hour), 2, otherScope+" elsewhere", scope+" 1")
	expire(epoch.Add(2*time.Minute), 10) // at the bound: stays
	expire(epoch.Add(2*time.Minute+time.Microsecond), 10, scope+" 2")
	w.messages("dev", "3")
}

// deletedDevicesLeaveNothing: twin and messages go with the identity, also those that come at the same moment.
func deletedDevicesLeaveNothing(w *world) {
	for round := range 10 {
		id := numbered("dev", round)
		w.deviceAtHub(id)
		w.applied(w.store.PutTwin(w.ctx, scope, twin(id, "1", 0)))
		w.enqueued(message(id, "a"), 1)
		var done sync.WaitGroup
		done.Go(func() {
			if _, _, err := w.store.EnqueueMessage(w.ctx, scope, message(id, "late"), 50); err != nil {
				w.Error(err)
			}
		})
		done.Go(func() {
			if _, err := w.store.PutTwin(w.ctx, scope, twin(id, "late", 1)); err != nil {
				w.Error(err)
			}
		})
		w.applied(w.store.DeleteIdentity(w.ctx, scope, deletion(id, 1, 1), audit("deleted", epoch)))
		done.Wait()
		w.messages(id)
		w.noTwin(id)
		w.deviceAtHub(id)
		w.noTwin(id)
		w.enqueued(message(id, "new"), 1)
	}
	w.applied(w.store.CreateScope(w.ctx, registration.Scope{ID: otherScope, Hosts: []string{"other"}}, audit("scope", epoch)))
	w.applied(w.store.PutIdentity(w.ctx, otherScope, identityPut(identity("hub", "dev", "key", 1), 0), audit("1", epoch)))
	w.applied(w.store.PutTwin(w.ctx, otherScope, twin("dev", "1", 0)))
	_, verdict, err := w.store.EnqueueMessage(w.ctx, otherScope, message("dev", "a"), 50)
	w.applied(verdict, err)
	w.applied(w.store.DeleteIdentity(w.ctx, otherScope, deletion("gone", 0, 3), audit("2", epoch)))
	w.applied(w.store.DeleteScope(w.ctx, otherScope, audit("deleted", epoch)))
	for removed := -1; removed != 0; {
		removed, err = w.store.PruneScopes(w.ctx, epoch.Add(time.Hour), 2)
		w.ok(err)
		if removed > 2 {
			w.Errorf("%d rows at once, want at most 2", removed)
		}
	}
	_, err1 := w.store.Identity(w.ctx, otherScope, "hub", "dev")
	_, err2 := w.store.Twin(w.ctx, otherScope, "hub", "dev")
	n, err3 := w.store.CountMessages(w.ctx, otherScope, "hub", "dev")
	generation, err4 := w.store.IdentityGeneration(w.ctx, otherScope, "hub", "gone")
	if !isNotFound(err1) || !isNotFound(err2) || n != 0 || err3 != nil || generation != 0 || err4 != nil {
		w.Errorf("left of a deleted scope: %v, %v, %d messages, generation %d, %v, %v", err1, err2, n, generation, err3, err4)
	}
}
