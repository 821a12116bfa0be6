package steps

import (
	"bytes"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/store/storetest"
)

// story is something that a device does, and that must come out the same whatever call meets whatever trouble.
type story struct {
	name    string
	prepare func(n *node, id string) *device // before any trouble
	play    func(d *device, n *node) *refusal
	// spent is how many challenges the device spends, or proofs of another kind; lost is how many more if the answer to one is lost.
	spent, lost uint64
	// end judges what came of it.
	end func(d *device, before told, refused *refusal)
}

func register(d *device, n *node) *refusal { return d.register(n) }

func assigned(d *device, _ told, refused *refusal) {
	d.Helper()
	if refused != nil {
		d.Errorf("%s was refused: %d", d.id, refused.code)
	}
}

// sameKey and newKey say what must have become of the key that a TPM had before.
func sameKey(d *device, before told, refused *refusal) {
	d.Helper()
	assigned(d, before, refused)
	if !bytes.Equal(d.last().key, before.key) {
		d.Errorf("%s was given another key though its owner is the same", d.id)
	}
}

func newKey(d *device, before told, refused *refusal) {
	d.Helper()
	assigned(d, before, refused)
	if bytes.Equal(d.last().key, before.key) {
		d.Errorf("a new owner of %s was given the key of the one before", d.id)
	}
}

func refusedAs(code dps.Code) func(d *device, before told, refused *refusal) {
	return func(d *device, _ told, refused *refusal) {
		d.Helper()
		if !refused.is(code) {
			d.Errorf("%s got %+v, want %d", d.id, refused, code)
		}
		for _, t := range d.told {
			if t.device == d.id {
				d.Errorf("%s was refused, and told of %s", d.id, t.deviceID)
			}
		}
		if rows := d.refusals(); rows < 1 || rows > 2 { // one whose answer was lost is refused again
			d.Errorf("the refusal of %s is in the audit log %d times", d.id, rows)
		}
	}
}

// last is what the device was told last.
func (d *device) last() told {
	for _, t := range d.told {
		if t.device == d.id {
			return t
		}
	}
	return told{}
}

// refusals counts the audit rows of the device that say refused.
func (d *device) refusals() (n int) {
	d.Helper()
	for after := uint64(0); ; {
		page, err := d.store.AuditPage(d.ctx, d.scope, after, 1000)
		must(d.T, err)
		for _, row := range page {
			if after = row.Seq; row.Object == dps.FoldID(d.id) && row.Outcome == registration.OutcomeRefused {
				n++
			}
		}
		if len(page) == 0 {
			return n
		}
	}
}

// enrolledChip, ownKeys and ownCertificate are devices with an enrollment.
func enrolledChip(n *node, id string) *device {
	d := n.chipped(id)
	n.enroll(id, chipBody(d.chip, ""))
	return d
}

func disabledChip(n *node, id string) *device {
	d := n.chipped(id)
	n.enroll(id, chipBody(d.chip, disabled))
	return d
}

var (
	firstKey  = bytes.Repeat([]byte{1}, 32)
	secondKey = bytes.Repeat([]byte{2}, 64)
)

func ownKeys(n *node, id string) *device {
	n.enroll(id, keysBody(firstKey, secondKey, ""))
	return &device{stage: n.stage, id: id, key: firstKey, held: registration.Credential{Primary: firstKey, Secondary: secondKey}}
}

func disabledKeys(n *node, id string) *device {
	n.enroll(id, keysBody(firstKey, secondKey, disabled))
	return &device{stage: n.stage, id: id, key: firstKey}
}

func ownCertificate(n *node, id string) *device {
	d := n.certified(id, n.nobodys)
	n.enroll(id, certificateBody("clientCertificates", d.chain[0], ""))
	return d
}

// grouped are devices that a group lets in.
func groupedKeys(n *node, id string) *device {
	n.group("keys", keysBody(firstKey, secondKey, ""))
	primary, secondary := dps.DeriveKey(firstKey, dps.FoldID(id)), dps.DeriveKey(secondKey, dps.FoldID(id))
	return &device{stage: n.stage, id: id, key: primary, held: registration.Credential{Primary: primary, Secondary: secondary}}
}

func groupedCertificate(n *node, id string) *device {
	n.group("line", certificateBody("signingCertificates", n.ca.certificate, ""))
	return n.certified(id, n.ca)
}

// group writes a group, in the place of what is there. Each time the node has to read the groups anew.
func (n *node) group(id, body string) {
	n.Helper()
	ifMatch := ""
	if _, err := n.store.Group(n.ctx, n.scope, id); err == nil {
		ifMatch = "*"
	}
	wire, err := dps.DecodeGroup(id, []byte(body))
	must(n.T, err)
	_, err = n.core.PutGroup(n.ctx, n.operator(), wire, ifMatch)
	must(n.T, err)
}

// again is a device that is registered already.
func again(first func(n *node, id string) *device) func(n *node, id string) *device {
	return func(n *node, id string) *device {
		d := first(n, id)
		if refused := d.register(n); refused != nil {
			n.Fatalf("%s was refused: %+v", id, refused)
		}
		return d
	}
}

// cleared is a device that is registered, and whose TPM has a new owner since.
func cleared(n *node, id string) *device {
	d := again(enrolledChip)(n, id)
	d.chip.Clear()
	return d
}

// lookedUp asks for the state of a registration, and must hear what the device was told.
func lookedUp(d *device, n *node) *refusal {
	d.Helper()
	answer, refused := d.lookup(n)
	if refused == nil {
		if state := answer.Status.RegistrationState; state.Status != dps.StatusAssigned || state.DeviceID != d.last().deviceID || state.TPM != nil {
			d.Errorf("the lookup of %s shows %+v", d.id, state)
		}
	}
	return refused
}

// polled polls an operation that has ended.
func polled(d *device, n *node) *refusal { return d.await(n) }

var stories = []story{
	{"a TPM's first registration", enrolledChip, register, 1, 0, newKey},
	{"a TPM again", again(enrolledChip), register, 1, 0, sameKey},
	{"a TPM's new owner", cleared, register, 1, 0, newKey},
	{"a TPM that is refused", disabledChip, register, 1, 1, refusedAs(dps.CodeDisabled)},
	{"a TPM's lookup", again(enrolledChip), lookedUp, 0, 0, sameKey},
	{"a TPM's poll", again(enrolledChip), polled, 0, 0, sameKey},
	{"a symmetric key's first registration", ownKeys, register, 1, 0, assigned},
	{"a symmetric key again", again(ownKeys), register, 0, 0, assigned}, // the same token: the clock stands
	{"a symmetric key that is refused", disabledKeys, register, 0, 0, refusedAs(dps.CodeDisabled)},
	{"a group's key", groupedKeys, register, 1, 0, assigned},
	{"a certificate's first registration", ownCertificate, register, 1, 0, assigned},
	{"a certificate again", again(ownCertificate), register, 1, 0, assigned},
	{"a group's certificate", groupedCertificate, register, 1, 0, assigned},
}

// Each call of each story meets each trouble, once. The device tries again, the service is started anew, and nothing is lost, doubled or half done.
func TestEveryCallMeetsEveryTrouble(t *testing.T) {
	t.Parallel()
	onBoth(t, 10, 40, func(s *stage) {
		n := s.start()
		met := map[string]int{}
		for _, story := range stories {
			s.Run(story.name, func(t *testing.T) {
				there := n.at(s.in(t))
				calls := there.callsOf(story)
				for nth, call := range calls {
					for trouble := range troubles {
						if !s.chosen() {
							continue
						}
						there.meet(story, nth, call, trouble)
						met[call]++
					}
				}
				s.told, s.made = there.told, there.made
			})
		}
		s.Logf("calls that met trouble: %v", met)
	})
}

// at is the node for a part of a test.
func (n *node) at(s *stage) *node { return &node{stage: s, core: n.core, api: n.api} }

// callsOf records the calls of a story in which nothing happens.
func (n *node) callsOf(story story) []string {
	n.Helper()
	d, before := n.begin(story)
	n.tap.open()
	refused := story.play(d, n)
	calls, _ := n.tap.recorded()
	story.end(d, before, refused)
	return slices.Clone(calls)
}

func (n *node) begin(story story) (*device, told) {
	n.Helper()
	n.tap.open()
	d := story.prepare(n, n.name(strings.ReplaceAll(strings.ReplaceAll(story.name, " ", "-"), "'", "")))
	return d, d.last()
}

// meet plays a story in which one call meets trouble.
func (n *node) meet(story story, nth int, call string, trouble trouble) {
	n.Helper()
	d, before := n.begin(story)
	had := n.generation(d)
	n.tap.arm(nth, trouble, nil)
	refused := story.play(d, n)
	_, met := n.tap.recorded()
	n.tap.open()
	what := fmt.Sprintf("%s: call %d, %s, %s", d.id, nth, call, trouble)
	if !met {
		n.Errorf("%s: it was not made", what)
	}
	failed := n.Failed()
	story.end(d, before, refused)
	if spent := n.generation(d) - had; spent < story.spent || spent > story.spent+story.lost {
		n.Errorf("%s: %d proofs were redeemed, want %d", what, spent, story.spent)
	}
	n.restarted(d, refused)
	if n.Failed() && !failed {
		n.Errorf("failed: %s", what)
	}
}

func (n *node) generation(d *device) uint64 {
	n.Helper()
	is, err := n.store.Device(n.ctx, n.scope, dps.FoldID(d.id))
	must(n.T, err)
	return is.Generation
}

// restarted starts the service anew: what the device was told is what it finds.
func (n *node) restarted(d *device, refused *refusal) {
	n.Helper()
	fresh := n.start()
	must(n.T, fresh.core.Maintain(n.ctx))
	if refused != nil {
		return
	}
	n.wantStored(d.last())
	lookedUp(d, fresh)
}

// A method that does not go through the tap would be one that never fails; Reach asks nobody and cannot.
func TestEveryCallIsTapped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ typ, of reflect.Type }{
		{reflect.TypeFor[*tapped](), reflect.TypeFor[storetest.Store]()}, {reflect.TypeFor[*tappedHub](), reflect.TypeFor[registration.Hub]()},
	} {
		for i := range c.of.NumMethod() {
			name := c.of.Method(i).Name
			method, _ := c.typ.MethodByName(name)
			if file, _ := runtime.FuncForPC(method.Func.Pointer()).FileLine(method.Func.Pointer()); name != "Close" && name != "Reach" && strings.Contains(file, "autogenerated") {
				t.Errorf("%s of %s goes past the tap", name, c.of)
			}
		}
	}
}
