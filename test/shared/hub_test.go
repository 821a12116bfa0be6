package shared

import (
	"errors"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// Of the nodes on one database one serves the hub. Another that is to do so does not start, and says who does; one that is not to has no MQTT listener. When
// the first is killed, its successor in the same place serves it without a wait; when it stops, any other.
func TestOneNodeServesTheHub(t *testing.T) {
	t.Parallel()
	first := rig.New(t, rig.Config{Store: database(t, "one_hub")})
	second, err := first.Join(rig.Config{Dir: t.TempDir()})
	if err == nil {
		t.Fatal(errors.Join(errors.New("two nodes serve the hub"), second.Close()))
	}
	for _, part := range []string{"the hub is served by the node on ", "set hub.serve: false on this one, or stop that one first"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in: %v", part, err)
		}
	}
	other, err := first.Join(rig.Config{Dir: t.TempDir(), NoHub: true})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if strings.Contains(other.Log(), `"what":"mqtt"`) {
		t.Error("a node that does not serve the hub listens for MQTT")
	}
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := first.Run(); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(begun); waited > 10*time.Second {
		t.Errorf("the successor of a killed node waited %s", waited)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	third, err := first.Join(rig.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
	if err := first.Run(); err != nil { // for the end of the test, which stops it
		t.Fatal(err)
	}
}
