package fsck

import (
	"crypto/sha256"
	"errors"
	"slices"

	"latchkey.example/latchkey/internal/registration"
)

// identities looks at the devices of all hubs of a scope whose identities are kept here.
func (c *checker) identities() error {
	names := slices.Clone(c.scope.Hosts[:min(1, len(c.scope.Hosts))])
	for _, hub := range c.scope.Hubs {
		if !slices.Contains(names, hub.Name) {
			names = append(names, hub.Name)
		}
	}
	for _, hub := range names {
		if !c.identitiesHere(hub) {
			continue
		}
		err := walk(func(after string) (string, int, error) {
			rows, err := c.store.Identities(c.ctx, c.scope.ID, hub, after, page)
			for _, row := range rows {
				after = row.DeviceID
				if err := c.identity(row); err != nil {
					return "", 0, err
				}
			}
			return after, len(rows), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// identity judges one that was listed. It is told only if it looks the same after the registration was read: a move may be under way.
func (c *checker) identity(listed registration.Identity) error {
	object := "device " + listed.DeviceID + " at " + listed.Hub
	if listed.Generation == 0 || listed.Version == 0 {
		c.problem("", object, "it has no generation or no version")
	}
	// Devices that applications have made begin with generation 1, which no registration has.
	if listed.Disabled || listed.Generation <= 1 || c.devices[sha256.Sum256([]byte(listed.Hub+"\x00"+listed.DeviceID))] != "" {
		return nil
	}
	id, known := c.homes[sha256.Sum256([]byte(listed.DeviceID))]
	if !known {
		return nil // its registration is gone: the operator's to remove, as in the imitated service
	}
	d, err := c.store.Device(c.ctx, c.scope.ID, id)
	if err != nil || d.Registration == nil {
		return err
	}
	r := *d.Registration
	if r.Status != registration.Assigned || r.DeviceID != listed.DeviceID || r.Hub == listed.Hub || slices.Contains(r.Leaving, listed.Hub) {
		return nil
	}
	now, err := c.store.Identity(c.ctx, c.scope.ID, listed.Hub, listed.DeviceID)
	if errors.Is(err, registration.ErrNotFound) || err == nil && (now.Disabled || now.Version != listed.Version) {
		return nil
	}
	if err == nil {
		c.problem("P2", object, "it can log in there, and registration %s is assigned to %s", r.ID, r.Hub)
	}
	return err
}

// leftovers looks for what hangs on identities that are gone.
func (c *checker) leftovers() error {
	left, err := c.store.HubLeftovers(c.ctx, page)
	for _, l := range left {
		c.scope = registration.Scope{ID: l.Scope}
		c.problem("", "device "+l.DeviceID+" at "+l.Hub, "its identity is gone, and a twin or messages of it are left")
	}
	return err
}
