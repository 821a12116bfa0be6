package registration

import "errors"

// HubEvent is what somebody who watches a hub is told: a record, or how many records he missed since he was told last; if neither, nothing happened for a
// while.
type HubEvent struct {
	Record []byte // one JSON line, with its line feed
	Missed uint64
}

// ErrManyWatchers says that as many watch the hubs of the scope as may.
var ErrManyWatchers = errors.New("too many watch the hubs of the scope")
