package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

// P1 as one process can show it: what is in the files when the 202 has come is
// all that a killed process leaves, for its memory and its graceful end never
// reach the copy.
func TestWhatWasAcknowledgedIsInTheFiles(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	c, other := r.device(0), r.device(1)
	must(t, c.enroll())
	must(t, other.enroll())
	must(t, c.prove())

	crashed := h
	crashed.dir = filepath.Join(t.TempDir(), "data")
	must(t, os.CopyFS(crashed.dir, os.DirFS(h.dir)))
	must(t, os.Chmod(filepath.Join(crashed.dir, "master.key"), 0o600)) // CopyFS leaves the mode behind
	must(t, c.poll())
	key := string(c.hubKey)
	r.stop()

	again := c.moved(crashed.run(t))
	must(t, again.poll())
	if string(again.hubKey) != key {
		t.Error("the same operation gave another hub key")
	}
	if status, body, err := again.put(c.token); err != nil || status != 202 || again.accepted(body) != nil || again.operation != c.operation {
		t.Errorf("the repeated PUT: %d %s %v", status, body, err)
	}
	must(t, again.send("after the crash"))
	must(t, other.moved(again.r).register())
}

// The memory of open challenges need not survive, and its loss refuses nobody
// who sends both keys again.
func TestALostMemoryOfOwnersDoesNotMatterToWhoSendsTheKeys(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	c := r.device(0)
	must(t, c.enroll())
	_, body, err := c.put("")
	must(t, err)
	must(t, c.answer(body))
	r.stop()
	for _, file := range []string{"latchkey.db.volatile", "latchkey.db.volatile-wal", "latchkey.db.volatile-shm"} {
		must(t, os.RemoveAll(filepath.Join(h.dir, file)))
	}
	again := c.moved(h.run(t))
	status, body, err := again.put(c.token)
	if err != nil || status != 202 {
		t.Fatalf("the proof: %d %s %v", status, body, err)
	}
	must(t, again.accepted(body))
	must(t, again.poll())
}
