package cluster

import (
	"net/http"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// The primary hangs, its standby is promoted, and the nodes go over to it. Then the old primary goes on where it was, and takes itself for the primary still:
// whoever reaches it is acknowledged nothing, since its commits wait for a standby that has left.
func TestAPrimaryThatComesBackTooLateAcknowledgesNothing(t *testing.T) {
	p := newPair(t)
	p.synchronous()
	c := New(t, Config{Store: p.address() + "&connect_timeout=1", Env: []string{"LATCHKEY_LIMITS_HANDLER_TIME=1s"}})
	d, late := newDevice(t, &c.Access, 0), newDevice(t, &c.Access, 1)
	d.register()
	old := p.primary
	began := time.Now()
	must(t, old.Freeze())
	p.promote()
	d.register()
	t.Logf("registered %v after the primary began to hang", time.Since(began).Round(time.Millisecond))

	must(t, old.Thaw())
	astray, err := c.Nodes[0].Join(rig.Config{Dir: t.TempDir(), NoHub: true, Env: []string{"LATCHKEY_STORE=" + old.Address("postgres"), "LATCHKEY_LIMITS_HANDLER_TIME=1s"}})
	must(t, err)
	late.service = &astray.Access
	late.contact()
	for try := range 2 {
		if got, err := late.send(http.MethodPut, "/register", late.token, late.body()); err != nil || !comeAgain(got) {
			t.Errorf("try %d at the old primary: %v, status %d: %s", try, err, got.status, got.body)
		}
	}
	must(t, old.Crash())
	must(t, astray.Kill())
	late.service = &c.Access
	late.register()
	fsck(t, c)
}
