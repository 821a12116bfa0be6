package registration

import "context"

// Statistics counts what the caller's scope holds.
func (c *Core) Statistics(ctx context.Context, by Caller) (Holdings, error) {
	s, _ := c.scope(by.Scope)
	held, err := c.store.Holdings(ctx, s.ID)
	if err != nil {
		return Holdings{}, c.storeFault(s, "counting", err)
	}
	return held, nil
}
