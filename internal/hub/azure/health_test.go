package azure_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"latchkey.example/latchkey/internal/hub/azure"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

// always is trouble with every request.
func always(tr trouble) func(int) *trouble { return func(int) *trouble { return &tr } }

// after expects an error that says when to come back.
func after(t *testing.T, err error, want time.Duration) {
	t.Helper()
	var retry *registration.RetryError
	if !errors.As(err, &retry) || retry.After != want {
		t.Errorf("the error is %v, want one that says to come back after %s", err, want)
	}
}

func TestTheCircuitOpensIsTriedAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := f.open(func(c *azure.Config) { c.Wait = func(context.Context, time.Duration) error { return nil } })
		probe := func() error { return h.Probe(t.Context()) }
		if s := h.State(); s.Circuit != azure.Closed || s.LastError != "" || !s.AnsweredAt.IsZero() {
			t.Errorf("before the first call: %+v", s)
		}
		f.set(always(answers(iothub.ServerError)))
		for h.State().Circuit == azure.Closed {
			if err := probe(); err == nil {
				t.Fatal("a 500 is no answer")
			}
		}
		if n := len(f.requests()); n != 5 {
			t.Errorf("it opened after %d failures", n)
		}
		s := h.State()
		if s.Circuit != azure.Open || s.Failures != 5 || !strings.Contains(s.LastError, "ServerError") || time.Until(s.NextTry) != time.Second/2 {
			t.Errorf("open: %+v", s)
		}
		after(t, probe(), time.Second/2)
		for _, rest := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
			time.Sleep(time.Until(h.State().NextTry))
			f.requests()
			if err := probe(); err == nil {
				t.Fatal("it is still down")
			}
			if n := len(f.requests()); n != 1 {
				t.Errorf("%d calls went out to see whether it is well", n)
			}
			after(t, probe(), rest)
		}
		f.set(nil)
		time.Sleep(30 * time.Second)
		if err := probe(); err != nil {
			t.Fatal(err)
		}
		if s := h.State(); s.Circuit != azure.Closed || s.Failures != 0 || !s.NextTry.IsZero() || s.AnsweredAt.IsZero() || s.LastError == "" {
			t.Errorf("well again: %+v", s)
		}
	})
}

func TestOneCallTriesAHubThatWasDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := f.open(nil)
		f.set(always(trouble{cut: "before"}))
		for h.State().Circuit == azure.Closed {
			h.Probe(t.Context())
		}
		time.Sleep(time.Minute)
		f.set(always(trouble{hang: true}))
		probing := make(chan error)
		go func() { probing <- h.Probe(t.Context()) }()
		synctest.Wait()
		if s := h.State(); s.Circuit != azure.HalfOpen {
			t.Errorf("while one tries: %+v", s)
		}
		after(t, h.Probe(t.Context()), time.Second)
		if n := len(f.requests()); n != 1 {
			t.Errorf("%d calls went out", n)
		}
		<-probing
		if s := h.State(); s.Circuit != azure.Open {
			t.Errorf("after it hung: %+v", s)
		}
	})
}

func TestACallerWhoGoesSaysNothingAboutTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := f.open(nil)
		f.set(always(trouble{hang: true}))
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			h.Probe(ctx)
			ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
			h.Probe(ctx)
			cancel()
		}
		if s := h.State(); s.Circuit != azure.Closed || s.Failures != 0 {
			t.Errorf("the hub is held to be unwell: %+v", s)
		}
		for range 5 { // these have waited for it
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			h.Probe(ctx)
			cancel()
		}
		if s := h.State(); s.Circuit != azure.Open {
			t.Errorf("a hub that never answers is held to be well: %+v", s)
		}
	})
}

func TestAHubThatThrottlesIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		trouble trouble
		want    time.Duration
	}{
		"seconds":             {with(says(429, ""), "Retry-After", "12"), 12 * time.Second},
		"a date":              {with(says(429, ""), "Retry-After", time.Date(2000, 1, 1, 0, 0, 42, 0, time.UTC).Format(http.TimeFormat)), 42 * time.Second},
		"a date that is past": {with(says(429, ""), "Retry-After", time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC).Format(http.TimeFormat)), 5 * time.Second},
		"no seconds":          {with(says(429, ""), "Retry-After", "-3"), 5 * time.Second},
		"not a number":        {with(says(429, ""), "Retry-After", "1h"), 5 * time.Second},
		"days":                {with(says(429, ""), "Retry-After", "999999999"), time.Hour},
		"beyond all numbers":  {with(says(429, ""), "Retry-After", strings.Repeat("9", 400)), 5 * time.Second},
		"its text":            {says(429, `{"Message":"ErrorCode:ThrottlingBacklogTimeout;The request has been throttled. Wait 10 seconds and try again. Operation type: RegistryWrite"}`), 10 * time.Second},
		"nothing":             {says(429, ""), 5 * time.Second},
		"503 with seconds":    {with(says(503, ""), "Retry-After", "3"), 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				h := f.open(nil)
				f.set(always(c.trouble))
				after(t, h.Probe(t.Context()), c.want)
				f.set(nil)
				after(t, h.Probe(t.Context()), c.want) // nobody is let out meanwhile
				if s := h.State(); !s.Throttled || s.Circuit != azure.Closed || time.Until(s.NextTry) != c.want {
					t.Errorf("%+v", s)
				}
				if n := len(f.requests()); n != 0 {
					t.Errorf("%d calls went out", n)
				}
				time.Sleep(c.want)
				if err := h.Probe(t.Context()); err != nil {
					t.Error(err)
				}
				if s := h.State(); s.Throttled || !s.NextTry.IsZero() {
					t.Errorf("and then %+v", s)
				}
			})
		})
	}
}

func TestAClockThatIsSetBackLeavesNoHubAlone(t *testing.T) {
	f := newFake(t)
	now := time.Now()
	h := f.open(func(c *azure.Config) { c.Now = func() time.Time { return now } })
	f.set(always(with(says(429, ""), "Retry-After", "60")))
	after(t, h.Probe(t.Context()), time.Minute)
	f.set(nil)
	now = now.Add(-24 * time.Hour)
	if err := h.Probe(t.Context()); outcomeOf(err) != refused { // by the hub, as the SAS token was signed a day ago
		t.Errorf("a day back: %v", err)
	}
	now = now.Add(25 * time.Hour)
	if err := h.Probe(t.Context()); err != nil { // that SAS token is not kept, and the minute is over
		t.Errorf("and right again: %v", err)
	}
}

// TestManyCallersShareFewCalls: the hub is given no more than eight requests at a time, and whoever waits for one goes when his time is over.
func TestManyCallersShareFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := f.open(nil)
		var out, most atomic.Int32
		f.between = func(int) {
			most.Store(max(most.Load(), out.Add(1)))
			time.Sleep(time.Second)
			out.Add(-1)
		}
		var patient, hasty sync.WaitGroup
		for range 24 {
			patient.Go(func() {
				if err := h.Probe(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		for range 16 { // there is no call for them before two seconds are over
			hasty.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				if err := h.Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("who waits longer than he wanted to: %v", err)
				}
			})
		}
		begun := time.Now()
		hasty.Wait()
		if took := time.Since(begun); took != 500*time.Millisecond {
			t.Errorf("they went after %v", took)
		}
		patient.Wait()
		if took := time.Since(begun); took != 3*time.Second || most.Load() != 8 {
			t.Errorf("%d calls at a time, all of them in %v", most.Load(), took)
		}
		if n := len(f.requests()); n != 24 {
			t.Errorf("%d calls went out for 24 callers", n)
		}
		if s := h.State(); s.Circuit != azure.Closed {
			t.Errorf("those who went without a call count against the hub: %+v", s)
		}
	})
}

func TestSASTokensAreRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := f.open(nil)
		for range 20 {
			if err := h.Probe(t.Context()); err != nil { // the fake looks at the expiry
				t.Fatal(err)
			}
			time.Sleep(17 * time.Minute)
		}
	})
}
