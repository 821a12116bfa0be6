package registration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
)

// Linked hubs are managed with ServiceConfig, as access policies are, and in the same way: the scopes are read again before what is asked is judged
// and after it was done.

// hubTryTime bounds the asking of a hub before it is linked.
const hubTryTime = 8 * time.Second

// HubShown is a linked hub as operators see it, without its secret.
type HubShown struct {
	LinkedHub        // SealedSecret is nil
	Own       bool   // the scope's embedded hub, which is always linked
	HasSecret bool   // it has one
	ETag      string // of what the operator has set
	Health    HubHealth
	Count     HubCount // of registrations that are at it
}

func (c *Core) showHub(s *scope, hub LinkedHub) HubShown {
	shown := HubShown{LinkedHub: hub, Own: hub.Name == s.Hosts[0], HasSecret: len(hub.SealedSecret) > 0, ETag: dps.ETag(int64(hub.Revision)), Health: c.watch.Health(s.ID, hub.Name)}
	shown.SealedSecret = nil
	return shown
}

// Hubs lists the linked hubs of the caller's scope by name.
func (c *Core) Hubs(ctx context.Context, by Caller) ([]HubShown, error) {
	s, err := c.freshScope(ctx, by)
	if err != nil {
		return nil, err
	}
	devices, err := c.store.HubDevices(ctx, s.ID)
	if err != nil {
		return nil, c.storeFault(s, "counting devices", err)
	}
	list := make([]HubShown, 0, len(s.hubs))
	for _, hub := range s.hubs {
		shown := c.showHub(s, hub)
		shown.Count = devices[hub.Name]
		list = append(list, shown)
	}
	return list, nil
}

// Hub shows one linked hub.
func (c *Core) Hub(ctx context.Context, by Caller, name string) (HubShown, error) {
	list, err := c.Hubs(ctx, by)
	if err != nil {
		return HubShown{}, err
	}
	at := slices.IndexFunc(list, func(h HubShown) bool { return h.Name == strings.ToLower(name) })
	if at < 0 {
		s, _ := c.scope(by.Scope)
		return HubShown{}, c.hubMissing(s)
	}
	return list[at], nil
}

func (c *Core) hubMissing(s *scope) error {
	return c.fault(s, dps.CodeNotFound, ReasonHubMissing, "There is no linked hub of this name.", nil)
}

// HubWish is what an operator wants of a linked hub. With Replace what is absent gets its default, but for the secret, which stays; otherwise it
// stays as it is.
type HubWish struct {
	dps.LinkedHub
	Replace bool
	Create  bool // only where none is
	// Untried links it though nobody has asked the hub whether it lets us do what we will have to.
	Untried bool
}

// PutHub links a hub or changes how it is linked. ifMatch empty: with Replace it only links.
func (c *Core) PutHub(ctx context.Context, by Caller, name string, wish HubWish, ifMatch string) (HubShown, error) {
	s, err := c.judgedScope(ctx, by)
	if err != nil {
		return HubShown{}, err
	}
	if name = strings.ToLower(name); !dps.ValidHubName(name) {
		return HubShown{}, c.badHub(s, "The name of a hub is the host name that its devices connect to, without a port.")
	}
	tried := false
	for range redeemTries {
		before, linked := s.hubNamed(name)
		if err := c.expectHub(s, before, linked, wish, ifMatch); err != nil {
			return HubShown{}, err
		}
		hub, secret, err := c.wishedHub(s, name, before, linked, wish)
		if err != nil {
			return HubShown{}, err
		}
		if err := c.watch.Judge(s.ID, hub, secret); err != nil {
			return HubShown{}, c.unfit(s, ReasonBadHub, "", err)
		}
		if !wish.Untried && !tried && needsTrial(before, linked, hub, wish) {
			if err := c.tryHub(ctx, s, hub, secret); err != nil {
				return HubShown{}, err
			}
			tried = true
		}
		shown, now, again, err := c.writeHub(ctx, by, s, before, linked, hub)
		if !again {
			return shown, err
		}
		s = now
	}
	return HubShown{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

// expectHub judges what the caller expects to be there. The embedded hub is there, whether a row says so or not.
func (c *Core) expectHub(s *scope, before LinkedHub, linked bool, wish HubWish, ifMatch string) error {
	switch {
	case linked && (wish.Create || ifMatch == "" && wish.Replace):
		return c.fault(s, dps.CodeConflict, ReasonHubLinked, "The hub is linked already. To change it, send its etag or * in If-Match.", nil)
	case !linked && !wish.Replace:
		return c.hubMissing(s)
	case ifMatch == "":
		return nil
	case !linked || !dps.MatchETag(ifMatch, dps.ETag(int64(before.Revision))):
		return c.fault(s, dps.CodePreconditionFailed, ReasonEtag, "", nil)
	}
	return nil
}

func (c *Core) badHub(s *scope, sentence string) error {
	return c.fault(s, dps.CodeBadRequest, ReasonBadHub, sentence, nil)
}

// wishedHub is the hub as it is to be, with its secret in clear and sealed.
func (c *Core) wishedHub(s *scope, name string, before LinkedHub, linked bool, wish HubWish) (hub LinkedHub, secret []byte, err error) {
	now := c.now()
	hub = LinkedHub{Name: name, Kind: HubKind(wish.Kind), Weight: 1, Allocate: true, Created: now}
	switch {
	case linked && !wish.Replace:
		hub = before
	case linked:
		hub.Kind, hub.SealedSecret, hub.Created = before.Kind, before.SealedSecret, before.Created
	case wish.Kind == "":
		return hub, nil, c.badHub(s, "kind: is missing; it is embedded, azure or broker.")
	case len(s.hubs) > MaxHubs:
		return hub, nil, c.fault(s, dps.CodeBadRequest, ReasonTooManyHubs, fmt.Sprintf("The scope has %d linked hubs, as many as it may have. Unlink one that is not used.", len(s.hubs)), nil)
	case slices.Contains(s.Hosts, name):
		return hub, nil, c.badHub(s, "The name is one under which the management API of the scope answers; the hub needs one of its own.")
	}
	if wish.Kind != "" && HubKind(wish.Kind) != hub.Kind {
		return hub, nil, c.badHub(s, "kind: a hub that is linked cannot become one of another kind. Unlink it first.")
	}
	hub.Updated, hub.Revision = now, 0 // it is given one when it is written
	apply(&hub.Weight, wish.Weight)
	apply(&hub.Allocate, wish.Allocate)
	apply(&hub.Draining, wish.Draining)
	apply(&hub.Region, wish.Region)
	if wish.Settings != nil {
		hub.Settings = wish.Settings
	}
	if wish.Secret == nil {
		if secret, err = c.HubSecret(s.ID, hub); err != nil {
			return hub, nil, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
		}
		return hub, secret, nil
	}
	if hub.SealedSecret, err = c.sealer.Seal(ContextHubSecret(s.ID, name), wish.Secret); err != nil {
		return hub, nil, c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	return hub, wish.Secret, nil
}

func apply[T any](to *T, wished *T) {
	if wished != nil {
		*to = *wished
	}
}

// needsTrial says whether a change is one after which the hub may not work as it did.
func needsTrial(before LinkedHub, linked bool, hub LinkedHub, wish HubWish) bool {
	return !linked || wish.Secret != nil || !bytes.Equal(before.Settings, hub.Settings)
}

func (c *Core) tryHub(ctx context.Context, s *scope, hub LinkedHub, secret []byte) error {
	ctx, cancel := context.WithTimeout(ctx, hubTryTime)
	defer cancel()
	if err := c.watch.Try(ctx, s.ID, hub, secret); err != nil {
		return c.unfit(s, ReasonHubUnfit, "The hub was tried and nothing was changed: ", err)
	}
	return nil
}

// unfit refuses a hub in the words of its driver.
func (c *Core) unfit(s *scope, reason Reason, prefix string, err error) error {
	var said *HubError
	if !errors.As(err, &said) {
		return c.fault(s, dps.CodeInternal, ReasonInternal, "", err)
	}
	return c.fault(s, dps.CodeBadRequest, reason, prefix+said.Message+".", said.Err)
}

// writeHub writes a hub that was judged. Again says that somebody else has changed something meanwhile, and gives the scope as it is now.
func (c *Core) writeHub(ctx context.Context, by Caller, s *scope, before LinkedHub, linked bool, hub LinkedHub) (shown HubShown, now *scope, again bool, err error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	if c.hubTaken(s, hub.Name) { // before a certificate is issued for a name of another scope
		return shown, s, false, c.takenHub(s)
	}
	if err := c.certifyHub(ctx, by, s, hub); err != nil {
		return shown, s, false, err
	}
	action, detail := ActionHubLink, changed(nil, tellHub(hub, hub.SealedSecret != nil))
	if linked {
		action, detail = ActionHubChange, changed(tellHub(before, false), tellHub(hub, !bytes.Equal(before.SealedSecret, hub.SealedSecret)))
	}
	var expect *uint64
	if before.Revision != 0 {
		expect = &before.Revision
	}
	stored, verdict, err := c.store.PutHub(ctx, s.ID, hub, expect, c.callerAudit(by, action, hub.Name, ReasonChanged, detail))
	now, reload := c.freshScope(ctx, by) // whatever came of it: an error may hide that it was done
	switch {
	case err != nil:
		return shown, now, false, c.storeFault(now, "writing a linked hub", err)
	case reload != nil:
		return shown, now, false, reload
	case verdict == Taken:
		return shown, now, false, c.takenHub(now)
	case verdict == Applied:
		return c.showHub(now, stored), now, false, nil
	case !now.trusts(by):
		return shown, now, false, c.fault(now, dps.CodeUnauthorized, ReasonAdminToken, "", nil)
	}
	return shown, now, true, nil
}

func (c *Core) takenHub(s *scope) error {
	return c.fault(s, dps.CodeConflict, ReasonHubTaken, "The name of the hub is another scope's.", nil)
}

// hubTaken says whether another scope, as far as this node knows, has a name.
func (c *Core) hubTaken(s *scope, name string) bool {
	table := c.scopes.Load()
	if of, host := table.byHost[name]; host && of.ID != s.ID {
		return true
	}
	for id, other := range table.byID {
		if _, linked := other.hubNamed(name); linked && id != s.ID {
			return true
		}
	}
	return false
}

// UnlinkHub takes a hub from the scope. It is refused while registrations are at it or entries name it, unless by force. What is there of devices
// stays, out of reach.
func (c *Core) UnlinkHub(ctx context.Context, by Caller, name, ifMatch string, force bool) error {
	name = strings.ToLower(name)
	s, err := c.judgedScope(ctx, by)
	if err != nil {
		return err
	}
	for range redeemTries {
		hub, linked := s.hubNamed(name)
		switch {
		case !linked:
			return c.hubMissing(s)
		case hub.Name == s.Hosts[0]:
			return c.badHub(s, "The scope's own hub is always linked. To give it no devices, set allocate to false, or drain it.")
		case ifMatch != "" && !dps.MatchETag(ifMatch, dps.ETag(int64(hub.Revision))):
			return c.fault(s, dps.CodePreconditionFailed, ReasonEtag, "", nil)
		}
		if err := c.hubUnused(ctx, s, name, force); err != nil {
			return err
		}
		verdict, now, err := c.deleteHub(ctx, by, s, hub)
		switch {
		case err != nil:
			return err
		case verdict == Applied:
			return nil
		case verdict == Missing:
			return c.hubMissing(now)
		}
		s = now
	}
	return c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

// hubUnused refuses where somebody would miss the hub.
func (c *Core) hubUnused(ctx context.Context, s *scope, name string, force bool) error {
	if force {
		return nil
	}
	devices, err := c.store.HubDevices(ctx, s.ID)
	if err != nil {
		return c.storeFault(s, "counting devices", err)
	}
	if n := devices[name].Devices; n > 0 {
		return c.fault(s, dps.CodeConflict, ReasonHubInUse, fmt.Sprintf("Registrations are at the hub: %d. Drain it first, or unlink it by force: its devices get another hub when they register again, and what they have there stays behind.", n), nil)
	}
	if n := devices[name].Leaving; n > 0 { // what they take along, and a key that is still good, would stay behind
		return c.fault(s, dps.CodeConflict, ReasonHubInUse, fmt.Sprintf("Registrations are on their way from the hub to another: %d. They have left when they are assigned there; those that failed must register again. Or unlink it by force: what they have there stays behind.", n), nil)
	}
	groups, err := c.groupsNaming(ctx, s, name)
	if err != nil {
		return err
	}
	if len(groups) > 0 {
		return c.fault(s, dps.CodeConflict, ReasonHubInUse, "Enrollment groups name the hub: "+strings.Join(groups, ", ")+". Change them first, or unlink it by force: their devices then have one hub less to choose from.", nil)
	}
	enrollments, err := c.enrollmentsNaming(ctx, s, name)
	if err != nil {
		return err
	}
	if len(enrollments) > 0 {
		return c.fault(s, dps.CodeConflict, ReasonHubInUse, "Enrollments name the hub: "+strings.Join(enrollments, ", ")+". Change them first, or unlink it by force: their devices then have one hub less to choose from.", nil)
	}
	return nil
}

// What is looked at of those who might miss a hub, and how many of them are told.
const (
	namingPage  = 1000
	namingPages = 50
	mostNamed   = 5
)

// enrollmentsNaming lists some of the enrollments whose iotHubs name a hub, among the first namingPages pages of them: the answer must not wait for
// millions.
func (c *Core) enrollmentsNaming(ctx context.Context, s *scope, name string) (ids []string, err error) {
	after := ""
	for range namingPages {
		page, err := c.store.Enrollments(ctx, s.ID, after, namingPage)
		if err != nil {
			return nil, c.storeFault(s, "reading enrollments", err)
		}
		for _, row := range page {
			after = dps.FoldID(row.Enrollment.ID)
			if !bytes.Contains(bytes.ToLower(row.Enrollment.Document), []byte(name)) { // most do not
				continue
			}
			wire, err := dps.DecodeEnrollment(row.Enrollment.ID, row.Enrollment.Document)
			if err == nil && containsHub(append(wire.IotHubs, wire.IotHubHostName), name) {
				ids = append(ids, row.Enrollment.ID)
			}
		}
		if len(page) < namingPage || len(ids) >= mostNamed {
			break
		}
	}
	return ids[:min(len(ids), mostNamed)], nil
}

// groupsNaming lists some of the groups whose iotHubs name a hub.
func (c *Core) groupsNaming(ctx context.Context, s *scope, name string) (ids []string, err error) {
	for after := ""; ; {
		groups, err := c.store.Groups(ctx, s.ID, after, namingPage)
		if err != nil {
			return nil, c.storeFault(s, "reading groups", err)
		}
		for _, g := range groups {
			wire, err := dps.DecodeGroup(g.ID, g.Document)
			if err == nil && containsHub(append(wire.IotHubs, wire.IotHubHostName), name) {
				ids = append(ids, g.ID)
			}
			after = dps.FoldID(g.ID)
		}
		if len(groups) < namingPage || len(ids) >= mostNamed {
			return ids[:min(len(ids), mostNamed)], nil
		}
	}
}

func (c *Core) deleteHub(ctx context.Context, by Caller, s *scope, hub LinkedHub) (Verdict, *scope, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	verdict, err := c.store.DeleteHub(ctx, s.ID, hub.Name, &hub.Revision, c.callerAudit(by, ActionHubUnlink, hub.Name, ReasonDeleted, changed(tellHub(hub, false), nil)))
	now, reload := c.freshScope(ctx, by)
	switch {
	case err != nil:
		return 0, now, c.storeFault(now, "unlinking a hub", err)
	case reload != nil:
		return 0, now, reload
	case verdict == Conflict && !now.trusts(by):
		return 0, now, c.fault(now, dps.CodeUnauthorized, ReasonAdminToken, "", nil)
	}
	return verdict, now, nil
}

// hubTold is a linked hub as the audit tells it. Settings are told by the SHA-256 of their JSON.
type hubTold struct {
	Kind          HubKind `json:"kind"`
	Weight        int     `json:"weight"`
	Allocate      bool    `json:"allocate"`
	Draining      bool    `json:"draining"`
	Region        string  `json:"region,omitempty"`
	Settings      string  `json:"settings,omitempty"`
	SecretChanged bool    `json:"secretChanged,omitempty"`
}

func tellHub(h LinkedHub, secretChanged bool) hubTold {
	return hubTold{h.Kind, h.Weight, h.Allocate, h.Draining, h.Region, tellDocument(h.Settings), secretChanged}
}
