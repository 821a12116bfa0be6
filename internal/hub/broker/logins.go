package broker

import (
	"sync"
	"time"
)

// login is what this process remembers of having let a device in: the broker keeps none of it.
type login struct {
	at      time.Time // when the question came
	expires time.Time // of the SAS token
	digest  [32]byte  // of the key or certificate; zero if it was a process before this one that let it in
}

// logins are the last one of each device. Only who has proved itself gets in here, so there are at most as many as identities.
type logins struct {
	mu       sync.Mutex
	byDevice map[string]login // by deviceKey
	changed  bool             // since it was saved
}

func deviceKey(hub, deviceID string) string { return hub + "/" + deviceID }

func (l *logins) note(hub, deviceID string, x login) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byDevice[deviceKey(hub, deviceID)], l.changed = x, true
}

func (l *logins) of(hub, deviceID string) (login, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x, ok := l.byDevice[deviceKey(hub, deviceID)]
	return x, ok
}

func (l *logins) forget(hub, deviceID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byDevice, deviceKey(hub, deviceID))
}

// since says whether the device was let in after a time.
func (l *logins) since(hub, deviceID string, after time.Time) bool {
	x, ok := l.of(hub, deviceID)
	return ok && x.at.After(after)
}

// prune forgets logins that ended before a time.
func (l *logins) prune(before time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, x := range l.byDevice {
		if x.expires.Before(before) {
			delete(l.byDevice, key)
		}
	}
}
