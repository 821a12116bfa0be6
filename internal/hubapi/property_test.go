package hubapi_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// seed is drawn anew each time, unless LATCHKEY_SEED has one.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := rand.Uint64()
	if given := os.Getenv("LATCHKEY_SEED"); given != "" {
		var err error
		n, err = strconv.ParseUint(given, 10, 64)
		must(t, err)
	}
	t.Logf("run again with LATCHKEY_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// known is a device as the model has it: what was written last, and every etag that it ever had.
type known struct {
	there  bool
	reason string
	etag   string
	old    []string
}

// Any sequence of writes, with any etags that were ever given out, is answered as the model says: an etag lets exactly that state be changed and no
// other, also over deletes and new devices of the same id.
func TestAnySequenceOfWritesAgreesWithTheModel(t *testing.T) {
	h := newHouse(t)
	r := seed(t)
	steps := 250
	if os.Getenv("LATCHKEY_LONG") != "" {
		steps = 10_000
	}
	devices := map[string]*known{"a": {}, "b": {}, "c": {}}
	for step := range steps {
		id := string(rune('a' + r.IntN(len(devices))))
		d := devices[id]
		var header []string
		matches, conditional := true, false
		switch r.IntN(5) {
		case 0:
			header, conditional = []string{"If-Match", "*"}, true
		case 1:
			header, conditional = []string{"If-Match", `"` + d.etag + `"`}, true
			if d.etag == "" {
				header = []string{"If-Match", `"bm9uZQ=="`}
			}
		case 2:
			if len(d.old) > 0 {
				header, conditional, matches = []string{"If-Match", d.old[r.IntN(len(d.old))]}, true, false
			}
		}
		what := fmt.Sprintf("step %d, %s with %q", step, id, header)
		switch r.IntN(5) {
		case 0:
			want := 204
			switch {
			case !d.there:
				want = 404
			case !matches:
				want = 412
			}
			if a := h.owner("DELETE", "/devices/"+id, "", header...); a.status != want {
				t.Fatalf("%s: DELETE %d, want %d: %s", what, a.status, want, a.body)
			}
			if want == 204 {
				d.old, d.there, d.etag = append(d.old, d.etag), false, ""
			}
		case 1:
			a := h.owner("GET", "/devices/"+id, "")
			if (a.status == 200) != d.there || d.there && (a.get("etag") != d.etag || a.get("statusReason") != d.reason) {
				t.Fatalf("%s: GET %d %s, want %+v", what, a.status, a.body, *d)
			}
		default:
			reason := fmt.Sprint("reason ", step)
			want := 200
			switch {
			case conditional && !d.there:
				want = 404
			case !conditional && d.there:
				want = 409
			case conditional && !matches:
				want = 412
			}
			a := h.owner("PUT", "/devices/"+id, fmt.Sprintf(`{"deviceId":%q,"statusReason":%q}`, id, reason), header...)
			if a.status != want {
				t.Fatalf("%s: PUT %d, want %d: %s", what, a.status, want, a.body)
			}
			if want == 200 {
				if d.etag != "" {
					d.old = append(d.old, d.etag)
				}
				d.there, d.reason, d.etag = true, reason, a.get("etag")
			}
		}
		for _, old := range d.old {
			if old == d.etag {
				t.Fatalf("%s: the etag %s came again", what, old)
			}
		}
	}
}

// Of several who change one device by the same etag exactly one wins.
func TestOfManyWhoChangeADeviceByItsEtagOneWins(t *testing.T) {
	h := newHouse(t)
	h.create("d")
	for range 5 {
		tag, authorization := h.etagOf("d"), as(t, owner)
		results := make(chan int, 8)
		for i := range 8 {
			go func() {
				a, err := h.try("PUT", "/devices/d"+version, fmt.Sprintf(`{"deviceId":"d","statusReason":"by %d"}`, i), authorization, "If-Match", tag)
				if err != nil {
					t.Error(err)
				}
				results <- a.status
			}()
		}
		won := 0
		for range 8 {
			switch status := <-results; status {
			case 200:
				won++
			case 412:
			default:
				t.Errorf("status %d", status)
			}
		}
		if won != 1 {
			t.Fatalf("%d of 8 won", won)
		}
	}
}

// Of several who write whatever is there, all are answered: none of them asked for a state.
func TestWritesWithoutAnEtagDoNotFailBesideEachOther(t *testing.T) {
	h := newHouse(t)
	h.create("d")
	authorization := as(t, owner)
	results := make(chan answer, 3)
	for i := range 3 { // as many as tries
		go func() {
			a, err := h.try("PUT", "/devices/d"+version, fmt.Sprintf(`{"deviceId":"d","statusReason":"by %d"}`, i), authorization, "If-Match", "*")
			if err != nil {
				t.Error(err)
			}
			results <- a
		}()
	}
	for range 3 {
		if a := <-results; a.status != 200 {
			t.Errorf("status %d: %s", a.status, a.body)
		}
	}
}
