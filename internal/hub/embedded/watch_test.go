package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/registration"
)

// watch collects what somebody sees, as "device n" or "missed n" or a dot for a heartbeat, until n records came.
func (w *world) watch(scope, deviceID string, since time.Time, n int) []string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var all []string
	enough := errors.New("enough")
	err := w.Watch(ctx, scope, deviceID, since, func(e registration.HubEvent) error {
		switch {
		case e.Record != nil:
			var r struct {
				DeviceID string
				Body     int
			}
			if err := json.Unmarshal(e.Record, &r); err != nil {
				return err
			}
			all = append(all, fmt.Sprint(r.DeviceID, " ", r.Body))
			if n--; n == 0 {
				return enough
			}
		case e.Missed > 0:
			all = append(all, fmt.Sprint("missed ", e.Missed))
		default:
			all = append(all, ".")
		}
		return nil
	})
	if !errors.Is(err, enough) && n > 0 {
		w.t.Errorf("watching ended with %v, after %v", err, all)
	}
	return all
}

func (w *world) says(r *raw, id byte, body string) {
	w.t.Helper()
	r.send(publish(0x32, devTopic, uint16(id), body))
	r.expect(0x40, 2, 0, id)
}

func TestWhoWatchesSeesWhatComesAndWhatCameLately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := oneDevice(t, nil)
		start := time.Now()
		w.says(r, 1, "1")
		time.Sleep(time.Second)
		w.says(r, 2, "2")
		seen := make(chan []string)
		go func() { seen <- w.watch(testScope, "", time.Time{}, 2) }()
		go func() { seen <- w.watch(testScope, "dev", start.Add(time.Second), 3) }()
		synctest.Wait()
		w.says(r, 3, "3")
		time.Sleep(watchBeat + time.Second)
		w.says(r, 4, "4")
		got := map[string]bool{strings.Join(<-seen, ", "): true, strings.Join(<-seen, ", "): true}
		if !got["., dev 3, ., dev 4"] || !got["., dev 2, dev 3, ., dev 4"] {
			t.Errorf("seen: %v", got)
		}
		if len(w.watching.by) != 0 {
			t.Errorf("still watched: %v", w.watching.by)
		}
	})
}

func TestNobodySeesAnotherScopesDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := oneDevice(t, nil)
		w.says(r, 1, "1")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- w.Watch(ctx, "0ne00000002", "", time.Unix(0, 0), func(e registration.HubEvent) error {
				if e.Record != nil || e.Missed > 0 {
					t.Errorf("saw %s", e.Record)
				}
				return nil
			})
		}()
		synctest.Wait()
		w.says(r, 2, "2")
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// One who reads nothing costs bounded memory, holds up nobody, and is told what he missed.
func TestASlowWatcherMissesRecordsAndIsToldHowMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := oneDevice(t, nil)
		goOn, entered := make(chan struct{}), make(chan struct{}, 1)
		done := make(chan []string)
		go func() {
			var all []string
			err := w.Watch(t.Context(), testScope, "", time.Time{}, func(e registration.HubEvent) error {
				if e.Record == nil && e.Missed == 0 && all == nil {
					all = []string{}
					entered <- struct{}{}
					<-goOn
				}
				if e.Missed > 0 {
					all = append(all, fmt.Sprint("missed ", e.Missed))
					return errors.New("enough")
				}
				if e.Record != nil {
					all = append(all, "record")
				}
				return nil
			})
			if err == nil {
				t.Error("no end")
			}
			done <- all
		}()
		<-entered
		for n := range watcherRecords + 10 {
			w.says(r, byte(n%100)+1, "1")
		}
		close(goOn)
		all := <-done
		if len(all) != watcherRecords+1 || all[len(all)-1] != "missed 10" {
			t.Errorf("%d events, the last is %s", len(all), all[len(all)-1])
		}
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	var w watching
	line := make([]byte, 100<<10)
	for range 1000 {
		w.show(seen{scope: "a", line: line})
	}
	if w.recalls > recentBytes || len(w.recent) != recentBytes/len(line) {
		t.Errorf("%d records of %d bytes", len(w.recent), w.recalls)
	}
	for range recentRecords + 5 {
		w.show(seen{scope: "a", line: []byte("x")})
	}
	if len(w.recent) != recentRecords || w.recalls != recentRecords {
		t.Errorf("%d records of %d bytes", len(w.recent), w.recalls)
	}
	for range watchersPerScope {
		if _, err := w.enter("a", "", time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.enter("a", "", time.Time{}); !errors.Is(err, registration.ErrManyWatchers) {
		t.Errorf("one more: %v", err)
	}
	if _, err := w.enter("b", "", time.Time{}); err != nil {
		t.Errorf("of another scope: %v", err)
	}
}

func TestWatchingEndsWithTheHub(t *testing.T) {
	w, _, _ := oneDevice(t, nil)
	entered, done := make(chan struct{}, 8), make(chan error)
	go func() {
		done <- w.Watch(context.Background(), testScope, "", time.Time{}, func(registration.HubEvent) error { entered <- struct{}{}; return nil })
	}()
	<-entered
	w.shut()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
