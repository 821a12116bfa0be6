package registration

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"latchkey.example/latchkey/dps"
)

// webhookKeySize is the size of the key that signs questions to webhooks, in bytes.
const webhookKeySize = 32

// AllocationShown is how the scope of the caller chooses hubs, without the webhook's key.
type AllocationShown struct {
	AllocationSettings // SealedWebhookKey is nil; Default is never empty
	HasWebhookKey      bool
	ETag               string
	Warnings           []string // sentences about what is likely to be a mistake
}

func showAllocation(s *scope, a AllocationSettings) AllocationShown {
	shown := AllocationShown{AllocationSettings: a, HasWebhookKey: len(a.SealedWebhookKey) > 0, ETag: dps.ETag(int64(a.Revision))}
	shown.SealedWebhookKey, shown.Default = nil, a.policy()
	shown.Warnings = warnings(s, shown.AllocationSettings)
	return shown
}

// policy is the scope's default allocation policy.
func (a AllocationSettings) policy() string {
	if a.Default == "" {
		return dps.AllocationHashed
	}
	return a.Default
}

// warnings tell what the settings say of hubs that are not there, and of those that are and nothing is said of.
func warnings(s *scope, a AllocationSettings) (list []string) {
	missing := map[string]bool{}
	for _, region := range a.Regions {
		for hub := range region.Latency {
			if _, linked := s.hubNamed(hub); !linked {
				missing[hub] = true
			}
		}
	}
	for hub := range missing {
		list = append(list, "The table of regions names "+hub+", which is not linked.")
	}
	slices.Sort(list)
	taken := slices.ContainsFunc(s.hubs, func(h LinkedHub) bool { return h.Allocate && !h.Draining })
	if !taken {
		list = append(list, "No hub takes part in allocation: devices whose enrollment names none are given none.")
	}
	return list
}

// Allocation shows how the scope chooses hubs.
func (c *Core) Allocation(ctx context.Context, by Caller) (AllocationShown, error) {
	s, err := c.freshScope(ctx, by)
	if err != nil {
		return AllocationShown{}, err
	}
	return showAllocation(s, s.Allocation), nil
}

// PutAllocation changes what is in the message of how the scope chooses hubs. ifMatch empty: whatever was there.
func (c *Core) PutAllocation(ctx context.Context, by Caller, wish dps.Allocation, ifMatch string) (AllocationShown, error) {
	return c.changeAllocation(ctx, by, ifMatch, func(ctx context.Context, s *scope, expect *uint64) (AllocationSettings, Verdict, error) {
		settings := AllocationSettings{Default: s.Allocation.Default, Regions: s.Allocation.Regions, Updated: c.now()}
		apply(&settings.Default, wish.DefaultPolicy)
		if wish.Regions != nil {
			settings.Regions = regionsOf(*wish.Regions)
		}
		detail := changed(tellAllocation(s.Allocation), tellAllocation(settings))
		return c.store.PutAllocation(ctx, s.ID, settings, expect, c.callerAudit(by, ActionAllocationPut, s.ID, ReasonChanged, detail))
	})
}

func regionsOf(wire []dps.Region) (regions []Region) {
	for _, r := range wire {
		regions = append(regions, Region{Name: r.Name, Networks: r.Networks, Latency: r.Latency})
	}
	return regions
}

// NewWebhookKey makes a fresh key that signs questions to webhooks, in place of the one before, and returns it for the one time that it is shown.
func (c *Core) NewWebhookKey(ctx context.Context, by Caller) ([]byte, error) {
	key := make([]byte, webhookKeySize)
	_, err := io.ReadFull(c.rand, key)
	if err == nil {
		_, err = c.putWebhookKey(ctx, by, key, ActionWebhookKeyPut)
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

// DeleteWebhookKey leaves questions to webhooks unsigned.
func (c *Core) DeleteWebhookKey(ctx context.Context, by Caller) error {
	s, err := c.freshScope(ctx, by)
	if err != nil {
		return err
	}
	if len(s.Allocation.SealedWebhookKey) == 0 {
		return c.fault(s, dps.CodeNotFound, ReasonWebhookKeyMissing, "The scope has no key for webhooks.", nil)
	}
	_, err = c.putWebhookKey(ctx, by, nil, ActionWebhookKeyDelete)
	return err
}

func (c *Core) putWebhookKey(ctx context.Context, by Caller, key []byte, action string) (AllocationShown, error) {
	return c.changeAllocation(ctx, by, "", func(ctx context.Context, s *scope, expect *uint64) (AllocationSettings, Verdict, error) {
		var sealed []byte
		if key != nil {
			var err error
			if sealed, err = c.sealer.Seal(ContextWebhookKey(s.ID), key); err != nil {
				return AllocationSettings{}, 0, err
			}
		}
		return c.store.PutWebhookKey(ctx, s.ID, sealed, expect, c.callerAudit(by, action, s.ID, ReasonChanged, ""))
	})
}

// changeAllocation writes the one row of a scope's settings, compared with what was read.
func (c *Core) changeAllocation(ctx context.Context, by Caller, ifMatch string,
	write func(ctx context.Context, s *scope, expect *uint64) (AllocationSettings, Verdict, error),
) (AllocationShown, error) {
	s, err := c.judgedScope(ctx, by)
	if err != nil {
		return AllocationShown{}, err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	for range redeemTries {
		if ifMatch != "" && !dps.MatchETag(ifMatch, dps.ETag(int64(s.Allocation.Revision))) {
			return AllocationShown{}, c.fault(s, dps.CodePreconditionFailed, ReasonEtag, "", nil)
		}
		var expect *uint64
		if s.Allocation.Revision != 0 {
			expect = &s.Allocation.Revision
		}
		stored, verdict, err := write(ctx, s, expect)
		now, reload := c.freshScope(ctx, by) // whatever came of it: an error may hide that it was done
		switch {
		case err != nil:
			return AllocationShown{}, c.storeFault(now, "writing the settings for allocation", err)
		case reload != nil:
			return AllocationShown{}, reload
		case verdict == Applied:
			return showAllocation(now, stored), nil
		case !now.trusts(by):
			return AllocationShown{}, c.fault(now, dps.CodeUnauthorized, ReasonAdminToken, "", nil)
		}
		s = now
	}
	return AllocationShown{}, c.fault(s, dps.CodeConflict, ReasonConflict, "", nil)
}

// allocationTold is how hubs are chosen as the audit tells it. The table of regions is told by the SHA-256 of its JSON.
type allocationTold struct {
	DefaultPolicy string   `json:"defaultPolicy"`
	Regions       []string `json:"regions,omitempty"`
	Table         string   `json:"table,omitempty"`
}

func tellAllocation(a AllocationSettings) allocationTold {
	told := allocationTold{DefaultPolicy: a.policy()}
	for _, r := range a.Regions {
		told.Regions = append(told.Regions, strings.ToValidUTF8(r.Name, ""))
	}
	if table, err := json.Marshal(a.Regions); err == nil && len(a.Regions) > 0 {
		told.Table = tellDocument(table)
	}
	return told
}
