// Package storetest is the contract of registration.Store in executable form: an implementation passes all of Run or it is not one.
//
// It knows the interface only, nothing of how an implementation keeps its rows, and trusts nothing but what the
// interface answers. Implementations that also keep the identities of the embedded hub are tested for both.
package storetest

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"latchkey.example/latchkey/internal/registration"
)

// Store is what is tested.
type Store interface {
	registration.Store

	HubStore

	// HubOwner reads which process has the sessions of the hub; nobody in a new store.
	HubOwner(ctx context.Context) (registration.HubOwner, error)
	// MoveHub makes to the owner in the place of from; Conflict if the owner has another id than from by now, or another beat.
	MoveHub(ctx context.Context, from, to registration.HubOwner) (registration.Verdict, error)

	Close() error
}

// Run runs the whole contract: Sentences and Histories. Open returns an empty store, another one at each call; the test closes it.
func Run(t *testing.T, open func(t *testing.T) Store) {
	Sentences(t, open)
	t.Run("random histories agree with the model", func(t *testing.T) {
		t.Parallel()
		Histories(t, open)
	})
}

// Sentences has at least one test for each sentence of the contract.
func Sentences(t *testing.T, open func(t *testing.T) Store) {
	for _, test := range []struct {
		name string
		run  func(w *world)
	}{
		{"scope is created once", scopeIsCreatedOnce},
		{"one scope is home", oneScopeIsHome},
		{"one scope is home, of many at once", oneScopeIsHomeAtOnce},
		{"revision of the scopes moves with every change", scopesRevisionMoves},
		{"scope keeps all it was given", scopeKeepsAll},
		{"access policy round trip", policyRoundTrip},
		{"access policy is replaced only as it was read", policyCompared},
		{"one access policy keeps ServiceConfig", policyLastOne},
		{"linked hub round trip", hubRoundTrip},
		{"a hub's name is one scope's", hubNamesAreOfOneScope},
		{"one of many concurrent changes of a linked hub wins", hubOneWins},
		{"allocation settings round trip", allocationRoundTrip},
		{"devices are counted by hub", hubDevicesAreCounted},
		{"access policies are of one scope", policiesAreIsolated},
		{"one of many concurrent changes of an access policy wins", policyOneWins},
		{"enrollment round trip", enrollmentRoundTrip},
		{"enrollment replaced keeps when it was created", enrollmentReplaced},
		{"enrollments put together have a verdict each", enrollmentsPutTogether},
		{"too many enrollments at once change nothing", enrollmentsTooMany},
		{"enrollments put all together stand or fall together", enrollmentsAllOrNone},
		{"as many enrollments as may be stand or fall together", enrollmentsAllAtTheLimit},
		{"concurrent transitions get between enrollments put together", enrollmentsPutBeside},
		{"revisions never repeat", revisionsNeverRepeat},
		{"every state meets every event", statesMeetEvents},
		{"deleting an enrollment ends all of the id", deleteEnrollmentEndsAll},
		{"deleting a registration leaves the enrollment", deleteRegistrationLeavesEnrollment},
		{"unknown device is empty, not an error", unknownDevice},
		{"redemption round trip", redemptionRoundTrip},
		{"second redemption supersedes the first", secondRedemption},
		{"redemption that contradicts itself is refused", contradictoryRedemption},
		{"finish round trip", finishRoundTrip},
		{"an operation is allocated once, while it has no hub", allocatedOnce},
		{"what a move has read is saved until it ends", moveIsSaved},
		{"a failed registration keeps what the next one needs", failedKeeps},
		{"operation id is taken once", operationIDTaken},
		{"device id at a hub is taken once", deviceIDTaken},
		{"ids are compared without case", idsFold},
		{"enrollments are listed once, in order", enrollmentsListed},
		{"group round trip", groupRoundTrip},
		{"every change of groups moves their revision, and nothing else", groupsMoveTheirRevision},
		{"group replaced keeps when it was created", groupReplacedKeepsItsCreation},
		{"groups and CA certificates are listed once, in order", listsOfGroupsAndCAs},
		{"a certificate belongs to one entry", certificatesAreOfOneEntry},
		{"certificates move within a transition", certificatesMoveWithinATransition},
		{"a group's device redeems while groups stay as they were", groupDevicesRedeem},
		{"registrations are listed, all or a group's", registrationsOfAGroup},
		{"one of many concurrent changes of a group wins", groupOneWins},
		{"what a scope holds is counted", holdingsAreCounted},
		{"old audit rows expire, and only they", auditExpires},
		{"a deleted scope is gone, and its rows follow", scopesAreDeleted},
		{"a scope's certificate is replaced", scopeCertificateIsReplaced},
		{"nothing crosses scopes", scopesAreIsolated},
		{"prune removes old operations, oldest first", pruneOperations},
		{"unfinished operations are listed, oldest first", unfinishedListed},
		{"unfinished operations are paged, each once", unfinishedPaged},
		{"prune keeps what is unfinished", pruneKeepsUnfinished},
		{"generation outlives deletion until it is idle", generationOutlivesDeletion},
		{"prune spares generations in use", pruneSparesUsed},
		{"prune forgets old owners", pruneForgetsOwners},
		{"owners come newest first, each once", ownersNewestFirst},
		{"owners are bounded for an id", ownersBounded},
		{"audit row is appended alone", auditAppended},
		{"audit by tracking id is ordered and bounded", auditOrdered},
		{"audit is paged in order of sequence, within its scope", auditPaged},
		{"a reader that goes on misses no audit row", auditFollowed},
		{"identity never moves back", identityNeverMovesBack},
		{"identity is replaced only as it was read", identityReplacedAsRead},
		{"one of many concurrent writers of an identity wins", identityOneWins},
		{"identity is written only by the hub's owner, where one is named", identityByOwner},
		{"identity round trip", identityRoundTrip},
		{"identity is compared by version where one is named", identityComparedByVersion},
		{"identities are listed once, in order", identitiesListed},
		{"identity that was deleted leaves its generation until that is idle", identityLeavesItsGeneration},
		{"identity is deleted only as it was read", identityDeletedAsRead},
		{"identity is made or kept away, of two who want both", identityMadeOrFenced},
		{"twin is replaced only as it was read", twinReplacedAsRead},
		{"one of many concurrent writers of a twin wins", twinOneWins},
		{"twin comes with its identity or not at all", twinComesWithItsIdentity},
		{"messages wait in order and are numbered once", messagesWaitInOrder},
		{"messages of a device are bounded, of many senders too", messagesAreBounded},
		{"messages expire, the oldest first", messagesExpire},
		{"a deleted device leaves nothing, nor does a scope's", deletedDevicesLeaveNothing},
		{"hub changes hands only as it was seen", hubChangesHands},
		{"one of many who take a hub has it", hubOneTakes},
		{"who lost the hub writes no identity of it", hubLostWritesNothing},
		{"what is new for a device comes with the row that tells of it", newsComesWithWhatIsNew},
		{"what waits for a device is purged with the write of its identity", purgedWithItsIdentity},
		{"outbox row comes with its transition or not at all", outboxComesWithItsTransition},
		{"outbox rows are claimed, those first that are due longest", outboxClaimedInOrder},
		{"outbox row is one claim's at a time", outboxOneClaim},
		{"outbox row of a claim that ran out is taken over", outboxTakenOver},
		{"outbox row is ended only by the claim that has it", outboxEndedByItsClaim},
		{"outbox row that was postponed comes back with its failure", outboxPostponed},
		{"outbox row of an operation goes when that is finished", outboxGoesWithFinish},
		{"outbox row is passed on by the claim that has it, once", outboxPassedOn},
		{"orders for devices at their hubs come with the transition that shuts them out", ordersComeWithTheirTransition},
		{"a device closes its registration in one transition, or not at all", registrationClosed},
		{"who closes at the same time as others closes once", oneOfManyCloses},
		{"an id awaits the orders of all its closings", closingsAwaited},
		{"prune removes closings and offers that are over", pruneClosings},
		{"an offer is made for an enrollment as it was read, once at a time", offersMade},
		{"offers are listed once, in order", offersListed},
		{"an offer goes with its enrollment and with its EK", offersGo},
		{"who takes an offer takes all of the device", offerAccepted},
		{"an offer that meets a conflict changes nothing", offerRefused},
		{"one of many takes an offer", oneOfManyAccepts},
		{"offers crosswise do not wait for each other", offersCrosswise},
		{"outbox backlog counts what waits", outboxBacklog},
		{"identity names keep their case", identityKeepsCase},
		{"sealed values are all listed with their contexts", sealedListed},
		{"sealed values are listed once while rows change", sealedListedWhileChanging},
		{"sealed value is replaced only if unchanged", sealedReplaced},
		{"one of 100 redeems", oneOfHundredRedeems},
		{"concurrent writers of many ids all succeed", manyWriters},
		{"snapshot is consistent while writers run", snapshotConsistent},
		{"a caller that has given up changes nothing", cancelledBefore},
		{"closed store refuses", closedRefuses},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := &world{T: t, ctx: t.Context(), store: open(t)}
			t.Cleanup(func() { w.closeStore() })
			test.run(w)
		})
	}
}

// world is one test's store and what it needs to talk to it.
type world struct {
	*testing.T
	ctx   context.Context
	store Store
}

func (w *world) closeStore() {
	if err := w.store.Close(); err != nil {
		w.Errorf("close: %v", err)
	}
}

// epoch is the time at which tests begin; stores keep microseconds.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)

const scope = "0ne00000001"

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) verdict(want registration.Verdict) func(registration.Verdict, error) {
	return func(got registration.Verdict, err error) {
		w.Helper()
		if err != nil {
			w.Fatalf("%v, want verdict %d", err, want)
		}
		if got != want {
			w.Fatalf("verdict %d, want %d", got, want)
		}
	}
}

func (w *world) applied(got registration.Verdict, err error) {
	w.Helper()
	w.verdict(registration.Applied)(got, err)
}

// redeemed is the revision that an applied redemption gave out.
func (w *world) redeemed(revision uint64, verdict registration.Verdict, err error) uint64 {
	w.Helper()
	w.applied(verdict, err)
	return revision
}

func (w *world) same(what string, got, want any) {
	w.Helper()
	if d := diff(got, want); d != "" {
		w.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

// diff is empty if the two are the same; nil and empty are. cmp is slow and mostly has nothing to tell.
func diff(got, want any) string {
	if reflect.DeepEqual(got, want) {
		return ""
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty())
}

func (w *world) device(scope, id string) registration.Device {
	w.Helper()
	d, err := w.store.Device(w.ctx, scope, id)
	w.ok(err)
	return d
}

// audited asserts how many audit rows carry a tracking id.
func (w *world) audited(scope, trackingID string, want int) {
	w.Helper()
	rows, err := w.store.AuditByTrackingID(w.ctx, scope, trackingID)
	w.ok(err)
	if len(rows) != want {
		w.Fatalf("%d audit rows for %s, want %d", len(rows), trackingID, want)
	}
}
