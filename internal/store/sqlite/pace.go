package sqlite

import "time"

// pace decides whether a commit lingers for company. Without a linger batches stay near one at any rate that
// one core can serve; with it, a caller that is alone would pay the wait for nothing. So a commit lingers
// only on evidence of several callers: more than one in the last batch, or one that came before the last batch was
// answered. A caller that waits for each answer never gives such evidence, and after a pause it is stale.
type pace struct {
	linger time.Duration // not positive: never

	company bool
	last    time.Time // end of the last batch
}

// staleAfter lingers without a commit, there is no company any more.
const staleAfter = 4

// wait returns how long a commit that has gathered n transitions may wait for more.
func (p *pace) wait(now time.Time, n int) time.Duration {
	if p.linger <= 0 || n >= batchLimit {
		return 0
	}
	if n > 1 || p.company && now.Sub(p.last) < staleAfter*p.linger {
		return p.linger
	}
	return 0
}

// finished tells of a batch of n that ended now, and whether another transition waited before it was answered.
func (p *pace) finished(now time.Time, n int, another bool) {
	p.company = n > 1 || another
	p.last = now
}
