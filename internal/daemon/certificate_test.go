package daemon

import (
	"path/filepath"
	"testing"
	"time"

	"latchkey.example/latchkey/internal/authority"
)

const soon = "the server's certificate ends soon: run `latchkey cert renew` and send SIGHUP"

func TestACertificateThatEndsSoonIsWarnedOf(t *testing.T) {
	h := installed(t)
	issue := func(age time.Duration) {
		t.Helper()
		must(t, authority.Issue(filepath.Join(h.dir, TLSFolder), []string{host}, time.Now().Add(-age)))
	}
	issue(380 * 24 * time.Hour) // of 397 days
	r := h.run(t)
	line := r.log.wait(t, 0, soon, message(soon))
	if line["level"] != "WARN" || line["days"] != 16. && line["days"] != 17. {
		t.Errorf("the warning is %v", line)
	}
	if got, want := r.metric("latchkey_certificate_expiry_seconds"), r.leaf().NotAfter.Unix(); int64(got) != want {
		t.Errorf("the metric says %v, the certificate %d", got, want)
	}
	issue(0)
	r.reloaded()
	if got, want := r.metric("latchkey_certificate_expiry_seconds"), r.leaf().NotAfter.Unix(); int64(got) != want || time.Until(time.Unix(want, 0)) < 390*24*time.Hour {
		t.Errorf("after the renewal the metric says %v, the certificate %d", got, want)
	}
}

func TestTheWarningBeginsThirtyDaysBefore(t *testing.T) {
	h := installed(t)
	for age, want := range map[time.Duration]bool{366 * 24 * time.Hour: false, 368 * 24 * time.Hour: true, 400 * 24 * time.Hour: true} {
		must(t, authority.Issue(filepath.Join(h.dir, TLSFolder), []string{host}, time.Now().Add(-age)))
		r := h.run(t)
		r.stop() // the first check is made before the end
		if line, _ := r.log.find(0, message(soon)); (line != nil) != want {
			t.Errorf("%v old of 397 days: warned %v, want %v", age, line, want)
		}
	}
}
