package sqlite

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3/vfs"

	"latchkey.example/latchkey/internal/registration"
)

const (
	powerPath  = "/power/latchkey.db"
	powerScope = "0ne00000001"
	powerIDs   = 3
)

// runs is how many seeds a test walks: short, or long if LATCHKEY_LONG=1.
func runs(short, long int) int {
	if os.Getenv("LATCHKEY_LONG") == "1" {
		return long
	}
	return short
}

// firstSeed is LATCHKEY_SEED or drawn anew. Seeds choose when the power goes and what survives; the goroutines choose the rest.
func firstSeed(t *testing.T) uint64 {
	seed := rand.Uint64N(1 << 40)
	if text := os.Getenv("LATCHKEY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("first seed: LATCHKEY_SEED=%d", seed)
	return seed
}

func TestPowerLossLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	first, acknowledged, whole, taken, ids := firstSeed(t), 0, 0, 0, [powerIDs]int{}
	for i := range runs(150, 3000) {
		run := powerRun{seed: first + uint64(i)}
		run.loseAndReopen(t)
		if len(run.found) > 0 {
			t.Fatalf("seed %d: %v", run.seed, run.found)
		}
		acknowledged += run.acknowledged(&ids)
		for _, all := range run.togethers {
			if all.acknowledged {
				whole++
			}
		}
		for _, m := range run.sent {
			if m.seq != 0 {
				taken++
			}
		}
	}
	if taken < 100 {
		t.Fatalf("only %d messages were taken before the power went", taken)
	}
	if whole < 200 {
		t.Fatalf("only %d all-or-nothing writes were acknowledged before the power went", whole)
	}
	if acknowledged < 1000 || slices.Min(ids[:]) < acknowledged/(2*powerIDs) {
		t.Fatalf("only %d redemptions were acknowledged before the power went, by id %d: the test tests little", acknowledged, ids)
	}
	t.Logf("%d redemptions and %d all-or-nothing writes acknowledged and kept", acknowledged, whole)
}

// The negative controls: a store that does not flush, and one that answers before its commit, must be caught.
func TestPowerLossTestCatchesAStoreThatDoesNotSync(t *testing.T) {
	t.Parallel()
	mustBeCaught(t, faults{neverSync: true})
}

func TestPowerLossTestCatchesAStoreThatAnswersBeforeItsCommit(t *testing.T) {
	t.Parallel()
	mustBeCaught(t, faults{answerBeforeWrite: true})
}

func mustBeCaught(t *testing.T, f faults) {
	first, caught, n := firstSeed(t), 0, runs(30, 300)
	for i := range n {
		run := powerRun{seed: first + uint64(i), faults: f}
		run.loseAndReopen(t)
		if len(run.found) > 0 {
			caught++
		}
	}
	t.Logf("%d of %d power losses showed the fault", caught, n)
	if caught < n/10 {
		t.Fatalf("only %d of %d power losses showed the fault", caught, n)
	}
}

// powerRun is one life of a database: created, used by several clients at once, cut off at a random call, opened again on what survived.
type powerRun struct {
	seed   uint64
	faults faults
	opts   Options

	created  bool // Create has returned nil
	enrolled [powerIDs]*registration.Enrollment

	mu        sync.Mutex
	attempts  []attempt
	togethers []together // the operator's alone until he has ended
	sent      []sent     // the application's alone until it has ended
	found     []string   // what is wrong after the loss
}

// attempt is a redemption that a client has asked for.
type attempt struct {
	id           int
	redemption   registration.Redemption
	acknowledged bool
}

// together is an all-or-nothing write of enrollments that the operator has asked for.
type together struct {
	puts         []registration.EnrollmentPut
	acknowledged bool
}

func (r *powerRun) wrong(format string, args ...any) {
	r.found = append(r.found, fmt.Sprintf(format, args...))
}

// acknowledged counts what clients were told, by id too.
func (r *powerRun) acknowledged(ids *[powerIDs]int) (n int) {
	for _, a := range r.attempts {
		if a.acknowledged {
			n++
			ids[a.id]++
		}
	}
	return n
}

func (r *powerRun) loseAndReopen(t *testing.T) {
	rng := rand.New(rand.NewPCG(r.seed, 0))
	d := newDisk(t)
	// A life makes about 2800 calls, 1500 with a linger: most cuts fall into it, some into Create, some after all is done.
	r.opts = Options{VFS: d.name, Readers: 1, faults: r.faults, checkpointEvery: 20, checkpointForce: 60, Linger: -1}
	d.cutAt = 1 + rng.IntN(3200)
	if rng.IntN(2) == 0 {
		r.opts.Linger = 200 * time.Microsecond
		d.cutAt = 1 + rng.IntN(1750)
	}
	r.live()
	d.cut()
	after := d.afterPowerLoss(t, rng)
	vfs.Unregister(d.name)
	r.opts.VFS, r.opts.faults = after.name, faults{}
	r.reopen()
	vfs.Unregister(after.name)
}

// live creates, opens and uses the database until the power goes or the work is done.
func (r *powerRun) live() {
	ctx := context.Background()
	if Create(ctx, powerPath, r.opts) != nil {
		return
	}
	r.created = true
	s, err := Open(ctx, powerPath, r.opts)
	if err != nil {
		return
	}
	for i := range powerIDs {
		e, verdict, err := s.PutEnrollment(ctx, powerScope, registration.Enrollment{ID: powerID(i)}, nil, registration.Audit{}, "")
		if err == nil && verdict == registration.Applied {
			r.enrolled[i] = &e
		}
	}
	var clients sync.WaitGroup
	for client := range 2 * powerIDs {
		clients.Go(func() { r.client(ctx, s, client) })
	}
	clients.Go(func() { r.operator(ctx, s) })
	clients.Go(func() { r.cloud(ctx, s) })
	clients.Wait()
	s.Close() // without power it fails, and with it nothing may hang on it
}

func powerID(i int) string { return "dev-" + strconv.Itoa(i) }

// client redeems challenges of one id, which it shares with another client, until the store fails.
func (r *powerRun) client(ctx context.Context, s *Store, client int) {
	id := client % powerIDs
	for n := range 10 {
		d, err := s.Device(ctx, powerScope, powerID(id))
		if err != nil || d.Enrollment == nil {
			return
		}
		at, redemption := r.attempt(id, fmt.Sprintf("op-%d-%d", client, n), d)
		if err := s.RememberOwner(ctx, powerScope, powerID(id), []byte(redemption.Operation.ID), time.UnixMicro(1)); err != nil {
			return
		}
		_, verdict, err := s.Redeem(ctx, powerScope, redemption)
		if err != nil {
			return
		}
		if verdict == registration.Applied {
			r.acknowledge(at)
		}
	}
}

// operator writes enrollments that stand or fall together, each time others, until the store fails. One of them spans several pages.
func (r *powerRun) operator(ctx context.Context, s *Store) {
	for n := range 8 {
		var all together
		for i := range 4 {
			name := fmt.Sprintf("all-%d-%d", n, i)
			all.puts = append(all.puts, registration.EnrollmentPut{
				Enrollment: registration.Enrollment{ID: name, Document: bytes.Repeat([]byte(name+" "), 300)}, Audit: registration.Audit{TrackingID: name},
			})
		}
		r.togethers = append(r.togethers, all)
		verdicts, err := s.PutAllEnrollments(ctx, powerScope, all.puts)
		if err != nil {
			return
		}
		r.togethers[n].acknowledged = !slices.ContainsFunc(verdicts, func(v registration.Verdict) bool { return v != registration.Applied })
	}
}

// checkTogether wants all rows of each write, or none; all if they were acknowledged.
func (r *powerRun) checkTogether(ctx context.Context, s *Store, all together) {
	kept := 0
	for _, put := range all.puts {
		d, err := s.Device(ctx, powerScope, put.Enrollment.ID)
		rows, auditErr := s.AuditByTrackingID(ctx, powerScope, put.Audit.TrackingID)
		if err != nil || auditErr != nil {
			r.wrong("reading %s: %v, %v", put.Enrollment.ID, err, auditErr)
			return
		}
		there := d.Enrollment != nil && bytes.Equal(d.Enrollment.Document, put.Enrollment.Document)
		if there != (len(rows) == 1) {
			r.wrong("%s: kept is %v with %d audit rows", put.Enrollment.ID, there, len(rows))
		}
		if there {
			kept++
		}
	}
	if kept != 0 && kept != len(all.puts) || all.acknowledged && kept == 0 {
		r.wrong("%d of %d rows of %s are there, acknowledged: %v", kept, len(all.puts), all.puts[0].Enrollment.ID, all.acknowledged)
	}
}

// sent is a message from the cloud: its number once it was taken, and how far the device has got with settling it.
type sent struct {
	body             []byte
	seq              uint64
	settling, settle bool
}

// cloud sends a device messages and settles every second one, until the store fails.
func (r *powerRun) cloud(ctx context.Context, s *Store) {
	put := registration.IdentityPut{Identity: registration.Identity{Hub: "hub", DeviceID: "dev", Generation: 1}}
	if verdict, err := s.PutIdentity(ctx, powerScope, put, registration.Audit{}); verdict != registration.Applied || err != nil {
		return
	}
	for n := range 8 {
		m := sent{body: bytes.Repeat([]byte{byte('a' + n)}, 5000)}
		r.sent = append(r.sent, m)
		seq, _, err := s.EnqueueMessage(ctx, powerScope, registration.HubMessage{Hub: "hub", DeviceID: "dev", Body: m.body}, 50)
		if err != nil {
			return
		}
		r.sent[n].seq = seq
		if n%2 == 1 {
			continue
		}
		r.sent[n].settling = true
		if _, err = s.SettleMessage(ctx, powerScope, "hub", "dev", seq); err != nil {
			return
		}
		r.sent[n].settle = true
	}
}

// checkSent wants every message that was taken and not settled, whole, and none that was settled.
func (r *powerRun) checkSent(ctx context.Context, s *Store) {
	list, err := s.Messages(ctx, powerScope, "hub", "dev", 0, 100)
	if err != nil {
		r.wrong("reading messages: %v", err)
		return
	}
	for _, m := range r.sent {
		there := slices.ContainsFunc(list, func(kept registration.HubMessage) bool { return bytes.Equal(kept.Body, m.body) })
		if m.seq != 0 && !m.settling && !there || m.settle && there {
			r.wrong("message %d: there is %v, settled %v", m.seq, there, m.settle)
		}
	}
}

// attempt notes what is about to be asked. The payload makes a transaction several pages long, so that it can be torn.
func (r *powerRun) attempt(id int, operation string, d registration.Device) (int, registration.Redemption) {
	payload := bytes.Repeat([]byte(operation+" "), 300)
	redemption := registration.Redemption{
		ID: powerID(id), Generation: d.Generation, EnrollmentRevision: d.Enrollment.Revision,
		Operation: registration.Operation{
			ID: operation, RegistrationID: powerID(id), Generation: d.Generation + 1, Status: registration.Assigning, SealedKey: payload,
		},
		Registration: registration.Registration{ID: powerID(id), DeviceID: powerID(id), OperationID: operation, HubKeyGeneration: d.Generation + 1, SealedHubKey: payload},
		Audit:        registration.Audit{TrackingID: operation},
	}
	if d.Registration != nil {
		redemption.RegistrationBefore = d.Registration.Revision
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts = append(r.attempts, attempt{id: id, redemption: redemption})
	return len(r.attempts) - 1, redemption
}

func (r *powerRun) acknowledge(at int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts[at].acknowledged = true
}

// reopen opens what survived and looks for everything that must be there and nothing that must not.
func (r *powerRun) reopen() {
	ctx := context.Background()
	if !r.created {
		// An interrupted Create leaves nothing, something that Create goes on from, or the finished database.
		if err := Create(ctx, powerPath, r.opts); err != nil {
			if s, err := Open(ctx, powerPath, r.opts); err != nil {
				r.wrong("create was interrupted, and now neither it nor open works: %v", err)
			} else if err := s.Close(); err != nil {
				r.wrong("close: %v", err)
			}
			return
		}
	}
	s, err := Open(ctx, powerPath, r.opts)
	if err != nil {
		r.wrong("open: %v", err)
		return
	}
	r.check(ctx, s)
	r.goOn(ctx, s)
	if err := s.Close(); err != nil {
		r.wrong("close: %v", err)
	}
}

func (r *powerRun) check(ctx context.Context, s *Store) {
	var verdict string
	err := s.read(ctx, func(c *conn) error {
		_, err := c.one(func(row *row) { verdict = row.text() }, "PRAGMA integrity_check(1)")
		return err
	})
	if err != nil || verdict != "ok" {
		r.wrong("integrity: %q, %v", verdict, err)
		return
	}
	var devices [powerIDs]registration.Device
	for i := range powerIDs {
		if devices[i], err = s.Device(ctx, powerScope, powerID(i)); err != nil {
			r.wrong("device: %v", err)
			return
		}
		if want := r.enrolled[i]; want != nil && (devices[i].Enrollment == nil || devices[i].Enrollment.Revision != want.Revision) {
			r.wrong("the acknowledged enrollment of %s is gone", powerID(i))
		}
	}
	var kept [powerIDs]uint64
	for _, a := range r.attempts {
		if r.checkAttempt(ctx, s, a, devices[a.id]) {
			kept[a.id]++
		}
	}
	for _, all := range r.togethers {
		r.checkTogether(ctx, s, all)
	}
	r.checkSent(ctx, s)
	for i, d := range devices {
		// Each redemption moved the generation by one and nothing else did: with one missing in between, or half there, the counts differ.
		if d.Generation != kept[i] {
			r.wrong("%s has generation %d and %d operations", powerID(i), d.Generation, kept[i])
		}
		if (d.Registration != nil) != (d.Generation > 0) || (d.Registration != nil && (d.Operation == nil || d.Operation.Generation != d.Generation)) {
			r.wrong("%s: the parts do not belong together: %+v", powerID(i), d)
		}
	}
}

// checkAttempt reports whether the redemption is there; its parts must all be or none.
func (r *powerRun) checkAttempt(ctx context.Context, s *Store, a attempt, d registration.Device) (kept bool) {
	want := a.redemption.Operation
	op, err := s.Operation(ctx, powerScope, want.ID)
	kept = err == nil
	rows, auditErr := s.AuditByTrackingID(ctx, powerScope, want.ID)
	switch {
	case auditErr != nil:
		r.wrong("audit: %v", auditErr)
	case kept != (len(rows) == 1):
		r.wrong("%s: kept is %v with %d audit rows", want.ID, kept, len(rows))
	case a.acknowledged && !kept:
		r.wrong("%s was acknowledged and is gone: %v", want.ID, err)
	case kept && (op.Generation != want.Generation || !bytes.Equal(op.SealedKey, want.SealedKey) || d.Generation < op.Generation):
		r.wrong("%s is not what was written", want.ID)
	case kept && op.Generation == d.Generation && (d.Registration == nil || d.Registration.OperationID != op.ID):
		r.wrong("%s is the newest and not the registration's", want.ID)
	}
	return kept
}

// goOn makes sure that the survivor can be written.
func (r *powerRun) goOn(ctx context.Context, s *Store) {
	verdict, err := s.Refuse(ctx, powerScope, registration.Refused{ID: "after", Audit: registration.Audit{TrackingID: "after"}})
	if verdict != registration.Applied || err != nil {
		r.wrong("writing after the loss: %d, %v", verdict, err)
	}
	if err := s.RememberOwner(ctx, powerScope, "after", []byte("srk"), time.UnixMicro(1)); err != nil {
		r.wrong("remembering after the loss: %v", err)
	}
}
