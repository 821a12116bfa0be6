package httpapi_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/web"
	"latchkey.example/latchkey/test/softtpm"
)

// A stranger who knows the real id and the real EK_pub invents owners as fast as it can, over 50 connections. Each is handed a challenge
// that nobody can open. The device registers meanwhile, with its keys in both bodies and with
// its keys in the first alone.
func TestAFloodOfInventedOwnersDoesNotKeepTheDeviceOut(t *testing.T) {
	const connections = 50
	contacts := 10000
	if testing.Short() {
		contacts = 1000
	}
	h, c := newHouse(t, web.DefaultLimits), softtpm.New(softtpm.RSA, 0)
	h.enroll("flooded", c, "")
	before := heap()
	f := &flood{t: t, path: h.url + registerPath("flooded"), ek: c.EK.Bytes(), half: make(chan struct{}), left: int64(contacts), after: int64(contacts / 2)}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	var strangers sync.WaitGroup
	for range connections {
		strangers.Go(func() { f.stranger(client) })
	}
	<-f.half // thousands have gone through and 50 are at work
	rounds := 0
	for ; !f.over() || rounds == 0; rounds++ {
		h.prove("flooded", c)
		// The last proven owner is never forgotten, however many were invented since.
		token := sas(t, h.contact("flooded", c), "flooded")
		h.ask(http.MethodPut, registerPath("flooded"), `{"registrationId":"flooded"}`, "Authorization", token).want(202)
	}
	strangers.Wait()
	h.prove("flooded", c)
	t.Logf("%d first contacts: %d challenged, %d asked to wait; the device registered %d times meanwhile", contacts, f.challenged.Load(), f.waiting.Load(), 2*rounds)
	if n := f.challenged.Load() + f.waiting.Load(); n != int64(contacts) || f.challenged.Load() == 0 {
		t.Errorf("%d of %d were answered as they should be", n, contacts)
	}
	h.atWork.wait()
	client.CloseIdleConnections()
	// Owners are remembered 8 to an id and decisions in a ring of 4096: what stays must not grow with the flood.
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("%d first contacts left %d KB behind", contacts, grown>>10)
	}
}

type flood struct {
	t                   *testing.T
	path                string
	ek                  []byte
	left, after         int64
	half                chan struct{}
	challenged, waiting atomic.Int64
	mu                  sync.Mutex
}

// take gives one more contact to make, and tells when half of them are under way.
func (f *flood) take() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left == f.after {
		close(f.half)
	}
	return f.left >= 0
}

func (f *flood) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left <= 0
}

func (f *flood) stranger(client *http.Client) {
	inventor := softtpm.NewInventor()
	for f.take() {
		srk, err := inventor.SRK(rand.Reader)
		if err == nil {
			err = f.contact(client, srk)
		}
		if err != nil {
			f.t.Error(err)
			return
		}
	}
}

func (f *flood) contact(client *http.Client, srk []byte) error {
	request, err := http.NewRequestWithContext(f.t.Context(), http.MethodPut, f.path, strings.NewReader(keysBody("flooded", f.ek, srk)))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode == 401:
		_, err = dps.DecodeChallenge(body)
		f.challenged.Add(1)
		return err
	case response.StatusCode == 429 && response.Header.Get("Retry-After") != "":
		f.waiting.Add(1)
		return nil
	}
	return fmt.Errorf("status %d: %s", response.StatusCode, body)
}

// heap is what is reachable now, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // the second empties the pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
