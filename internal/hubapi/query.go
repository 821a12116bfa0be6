package hubapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// Sizes of a query's work. A page is found within a bounded number of devices: one that few answer comes back with a short page, and the
// continuation goes on from there.
const (
	defaultPage = 100
	mostPage    = 1000
	queryChunk  = 100
	queryBudget = 2000    // devices read for one page
	pageBytes   = 4 << 20 // of twins, after which a page ends early
)

// query walks over the devices in order of their ids and answers the twins that fit. It is not of one moment: what changes meanwhile is seen or not.
func (a *API) query(ctx context.Context, c call) (web.Reply, error) {
	text, err := iothub.DecodeQuery(c.Body)
	if err != nil {
		return web.Reply{}, a.bad(c.by, err)
	}
	q, err := iothub.ParseQuery(text)
	if err != nil {
		return web.Reply{}, a.bad(c.by, err)
	}
	size, err := pageSize(c.Header.Get("X-Ms-Max-Item-Count"))
	if err != nil {
		return web.Reply{}, a.fault(c.by, iothub.ArgumentInvalid, registration.ReasonBadRequest, "x-ms-max-item-count must be a whole number from 1 on.")
	}
	binding := c.hub + "\x00" + q.Text()
	after, ok := a.core.OpenContinuation(c.by, binding, c.Header.Get("X-Ms-Continuation"))
	if !ok {
		return web.Reply{}, a.fault(c.by, iothub.ArgumentInvalid, registration.ReasonBadRequest, "x-ms-continuation: not a continuation of this query. Begin again without it.")
	}
	p := page{size: size, body: []byte{'['}}
	if err := a.fill(ctx, c, q, after, &p); err != nil {
		return web.Reply{}, err
	}
	header := map[string]string{"x-ms-item-type": "Twin"}
	if p.more {
		header["x-ms-continuation"] = a.core.SealContinuation(c.by, binding, p.after)
	}
	return web.Reply{Status: http.StatusOK, Header: header, Body: append(p.body, ']')}, nil
}

func pageSize(text string) (int, error) {
	if text == "" || text == "-1" { // which some clients send for "as many as you like"
		return defaultPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, strconv.ErrRange
	}
	return min(n, mostPage), nil
}

// page is one that is being filled.
type page struct {
	size  int
	items int
	body  []byte
	after string // id of the last device that was judged
	more  bool
}

// fill reads devices until the page is full, or as many are read as may be, or there are no more.
func (a *API) fill(ctx context.Context, c call, q iothub.Query, after string, p *page) error {
	p.after = after
	for read := 0; read < queryBudget; {
		devices, err := a.hub.KnownDevices(ctx, c.by.Scope, c.hub, p.after, queryChunk)
		if err != nil {
			return a.refuse(c.by, "listing devices", err)
		}
		for _, d := range devices {
			whole, err := a.judge(ctx, c, q, d, p)
			if err != nil {
				return err
			}
			if !whole { // there is one more that has no place any more, so this page is not the last
				p.more = true
				return nil
			}
			p.after = d.DeviceID
		}
		if read += len(devices); len(devices) < queryChunk {
			return nil
		}
	}
	p.more = true
	return nil
}

// judge takes a device into the page if it fits the query; false if it would and the page is full.
func (a *API) judge(ctx context.Context, c call, q iothub.Query, d registration.KnownDevice, p *page) (bool, error) {
	t, err := a.hub.KnownTwin(ctx, c.by.Scope, c.hub, d.DeviceID)
	if err != nil {
		if missing(a.refuse(c.by, "", err)) { // deleted since it was listed
			return true, nil
		}
		return false, a.refuse(c.by, "reading a twin", err)
	}
	twin, err := twinOf(d, t)
	if err != nil {
		return false, err
	}
	body, err := json.Marshal(twin)
	if err != nil {
		return false, err
	}
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		return false, err
	}
	switch {
	case !q.Matches(fields):
		return true, nil
	case p.items == p.size || p.items > 0 && len(p.body)+len(body) > pageBytes:
		return false, nil
	}
	if p.items++; p.items > 1 {
		p.body = append(p.body, ',')
	}
	p.body = append(p.body, body...)
	return true, nil
}

// statistics counts the devices of the hub.
func (a *API) statistics(ctx context.Context, c call) (web.Reply, error) {
	n, err := a.hub.CountDevices(ctx, c.by.Scope, c.hub)
	if err != nil {
		return web.Reply{}, a.refuse(c.by, "counting devices", err)
	}
	body, err := json.Marshal(map[string]int{"totalDeviceCount": n.Total, "enabledDeviceCount": n.Total - n.Disabled, "disabledDeviceCount": n.Disabled})
	return web.Reply{Status: http.StatusOK, Body: body}, err
}

// serviceStatistics counts who is connected.
func (a *API) serviceStatistics(ctx context.Context, c call) (web.Reply, error) {
	n, err := a.hub.CountDevices(ctx, c.by.Scope, c.hub)
	if err != nil {
		return web.Reply{}, a.refuse(c.by, "counting devices", err)
	}
	body, err := json.Marshal(map[string]int{"connectedDeviceCount": n.Connected})
	return web.Reply{Status: http.StatusOK, Body: body}, err
}
