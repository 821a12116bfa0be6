package embedded

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
)

const (
	// deviceTimeout bounds what the store is asked for in the name of a device.
	deviceTimeout = 10 * time.Second
	// twinTries bounds how often a twin is read anew because another process has written it since. In this process one write of a device's twin follows on the other.
	twinTries = 5
)

// errContended says that a twin was written by others, again and again.
var errContended = errors.New("the twin is being changed by too many at a time")

// desiredOf and reportedOf are parts of a stored twin.
func desiredOf(t registration.Twin) iothub.Part {
	return iothub.Part{Values: t.Desired, Metadata: t.DesiredMetadata, Version: max(t.DesiredVersion, 1)}
}

func reportedOf(t registration.Twin) iothub.Part {
	return iothub.Part{Values: t.Reported, Metadata: t.ReportedMetadata, Version: max(t.ReportedVersion, 1)}
}

// readTwin reads what is stored of a twin: of a device whose twin nobody has written, nothing.
func (h *Hub) readTwin(ctx context.Context, scope, hub, deviceID string) (registration.Twin, error) {
	t, err := h.config.Identities.Twin(ctx, scope, hub, deviceID)
	if errors.Is(err, registration.ErrNotFound) {
		return registration.Twin{Hub: hub, DeviceID: deviceID}, nil
	}
	return t, err
}

// editTwin reads the twin, has it changed and writes it in the place of what was read; edit may be called more than once. It returns what is stored then.
func (h *Hub) editTwin(ctx context.Context, scope, hub, deviceID string, edit func(*registration.Twin) error) (registration.Twin, error) {
	unlock, err := h.twins.lock(ctx, deviceKey(hub, deviceID))
	if err != nil {
		return registration.Twin{}, err
	}
	defer unlock()
	for range twinTries {
		before, err := h.readTwin(ctx, scope, hub, deviceID)
		if err != nil {
			return before, fmt.Errorf("hub: reading a twin: %w", err)
		}
		after := before
		if err := edit(&after); err != nil {
			return before, err
		}
		after.Updated = h.config.Now()
		complete(&after)
		put := registration.TwinPut{Twin: after, Was: before.Version}
		if after.DesiredVersion != before.DesiredVersion {
			put.Outbox = h.newsFor(hub, deviceID)
		}
		verdict, err := h.config.Identities.PutTwin(ctx, scope, put)
		switch {
		case err != nil:
			return before, fmt.Errorf("hub: writing a twin: %w", err)
		case verdict == registration.Applied:
			after.Version = before.Version + 1
			return after, nil
		case verdict == registration.Missing:
			return before, registration.ErrNotFound
		case verdict != registration.Conflict:
			return before, fmt.Errorf("hub: writing a twin: verdict %d", verdict)
		}
	}
	return registration.Twin{}, errContended
}

// complete makes the empty parts of a twin that is stored for the first time what they stand for.
func complete(t *registration.Twin) {
	for _, part := range []*[]byte{&t.Tags, &t.Desired, &t.Reported, &t.DesiredMetadata, &t.ReportedMetadata} {
		if len(*part) == 0 {
			*part = []byte("{}")
		}
	}
	t.DesiredVersion, t.ReportedVersion = max(t.DesiredVersion, 1), max(t.ReportedVersion, 1)
}

// shown is a twin as applications see it. Its version counts from 1 for the twin that nobody has written, so that the first write changes its etag.
func shown(t registration.Twin) registration.Twin {
	complete(&t)
	t.Version++
	return t
}

// KnownTwin is a device's twin as applications see it; an empty one of version 1 if nobody has written it. registration.ErrNotFound if there is no
// such device.
func (h *Hub) KnownTwin(ctx context.Context, scope, hub, deviceID string) (registration.Twin, error) {
	hub = hostOf(hub)
	if _, err := h.config.Identities.Identity(ctx, scope, hub, deviceID); err != nil {
		return registration.Twin{}, err
	}
	t, err := h.readTwin(ctx, scope, hub, deviceID)
	return shown(t), err
}

// ChangeTwin changes tags and desired properties, and has a device told that listens: at once if it is connected to this process, else within a few seconds. The
// error is an *iothub.TwinError if the change is to blame, registration.ErrNotFound without such a device, ErrChanged if the twin has another
// version than the change says was read.
func (h *Hub) ChangeTwin(ctx context.Context, scope, hub, deviceID string, change registration.TwinChange) (registration.Twin, error) {
	hub = hostOf(hub)
	t, err := h.editTwin(ctx, scope, hub, deviceID, func(t *registration.Twin) error {
		if change.Was != 0 && change.Was != t.Version+1 {
			return registration.ErrChanged
		}
		return changeTwin(t, change, h.config.Now())
	})
	if err != nil {
		return registration.Twin{}, err
	}
	h.wakeDevice(deviceKey(hub, deviceID), newTwin)
	return shown(t), nil
}

func changeTwin(t *registration.Twin, change registration.TwinChange, now time.Time) (err error) {
	if len(change.Tags) > 0 {
		if change.Replace {
			t.Tags, err = iothub.ReplaceTags(change.Tags)
		} else {
			t.Tags, err = iothub.PatchTags(t.Tags, change.Tags)
		}
		if err != nil {
			return err
		}
	}
	edit := iothub.Part.Patch
	if change.Replace {
		edit = iothub.Part.Replace
	}
	if len(change.Desired) > 0 {
		p, err := edit(desiredOf(*t), iothub.Desired, change.Desired, now)
		if err != nil {
			return err
		}
		t.Desired, t.DesiredMetadata, t.DesiredVersion = p.Values, p.Metadata, p.Version
	}
	if len(change.Reported) > 0 {
		p, err := edit(reportedOf(*t), iothub.Reported, change.Reported, now)
		if err != nil {
			return err
		}
		t.Reported, t.ReportedMetadata, t.ReportedVersion = p.Values, p.Metadata, p.Version
	}
	return nil
}

// beginDesired has the device listen to desired properties, and notes what it can read now: it is told what changes after that. Whoever has changed
// the twin before it listens has done so before it is read here; whoever does it after that wakes one who waits until it was.
func (h *Hub) beginDesired(c *conn) {
	if !h.afford(c) {
		return
	}
	c.telling.Lock()
	defer c.telling.Unlock()
	c.hears.Or(uint32(hearDesired))
	ctx, cancel := context.WithTimeout(c.context, deviceTimeout)
	defer cancel()
	t, err := h.readTwin(ctx, c.login.scope, c.login.hub, c.login.deviceID)
	if err != nil {
		if c.context.Err() == nil {
			h.log.Error("hub: reading a twin", "error", err)
		}
		c.cut(causeUnavailable)
		return
	}
	c.told = max(t.DesiredVersion, 1)
}

// sendDesired tells the device what has changed since it was told last. Only one goroutine of a connection does, so the order of what the device
// hears is that of the versions; what changes meanwhile is told together.
func (h *Hub) sendDesired(ctx context.Context, c *conn) error {
	c.telling.Lock()
	defer c.telling.Unlock()
	t, err := h.readTwin(ctx, c.login.scope, c.login.hub, c.login.deviceID)
	if err != nil {
		return fmt.Errorf("reading its twin: %w", err)
	}
	desired := desiredOf(t)
	if desired.Version <= c.told || c.told == 0 {
		return nil
	}
	patch, err := desired.Since(c.told)
	if err != nil {
		return err
	}
	if _, err := c.Write(publishPacket("$iothub/twin/PATCH/properties/desired/?$version="+strconv.FormatUint(desired.Version, 10), 0, false, patch)); err != nil {
		return nil // it has ended the connection
	}
	c.told = desired.Version
	h.metrics.desired.Inc()
	return nil
}

// takeTwinRequest answers a device that reads its twin or reports properties. The answer to one that listens to none is not sent.
func (h *Hub) takeTwinRequest(c *conn, topic string, payload []byte) cause {
	rid, ok := requestID(topic)
	if !ok {
		return causeTwin
	}
	ctx, cancel := context.WithTimeout(c.context, deviceTimeout)
	defer cancel()
	var status, more string
	var body []byte
	switch {
	case !c.budget.take(h.config.Now()):
		status, body = "429", iothub.DeviceError(iothub.ThrottlingException, "the device asks for its twin too often")
	case strings.HasPrefix(topic, twinReport):
		status, more, body = h.takeReport(ctx, c.login, topic, payload)
	default:
		status, body = h.answerTwin(ctx, c.login)
	}
	h.metrics.twinRequests.WithLabelValues(status).Inc()
	if !c.listens(hearTwinAnswers) {
		return ""
	}
	if _, err := c.Write(publishPacket("$iothub/twin/res/"+status+"/?$rid="+rid+more, 0, false, body)); err != nil {
		return causeLost
	}
	return ""
}

func (h *Hub) answerTwin(ctx context.Context, l *login) (status string, body []byte) {
	t, err := h.readTwin(ctx, l.scope, l.hub, l.deviceID)
	if err == nil {
		body, err = iothub.DeviceTwin(desiredOf(t), reportedOf(t))
	}
	if err != nil {
		return h.twinFault(l, err)
	}
	return "200", body
}

// takeReport merges what the device reports; more is what the topic of the answer has besides.
func (h *Hub) takeReport(ctx context.Context, l *login, topic string, patch []byte) (status, more string, body []byte) {
	was, ok := reportVersion(topic)
	if !ok {
		return "400", "", twinRefusal(iothub.ArgumentInvalid, "the $version is not a number")
	}
	t, err := h.editTwin(ctx, l.scope, l.hub, l.deviceID, func(t *registration.Twin) error {
		reported := reportedOf(*t)
		if was != 0 && was != reported.Version {
			return registration.ErrChanged
		}
		p, err := reported.Patch(iothub.Reported, patch, h.config.Now())
		t.Reported, t.ReportedMetadata, t.ReportedVersion = p.Values, p.Metadata, p.Version
		return err
	})
	if err != nil {
		status, body = h.twinFault(l, err)
		return status, "", body
	}
	return "204", "&$version=" + strconv.FormatUint(t.ReportedVersion, 10), nil
}

// twinFault is the answer to a request that failed.
func (h *Hub) twinFault(l *login, err error) (status string, body []byte) {
	var refused *iothub.TwinError
	switch {
	case errors.As(err, &refused):
		return "400", twinRefusal(iothub.ArgumentInvalid, refused.Error())
	case errors.Is(err, registration.ErrNotFound):
		return "404", twinRefusal(iothub.DeviceNotFound, "the device is not known any more")
	case errors.Is(err, registration.ErrChanged):
		return "412", twinRefusal(iothub.PreconditionFailed, "the reported properties have another $version by now")
	case errors.Is(err, errContended):
		return "429", twinRefusal(iothub.ThrottlingException, errContended.Error())
	}
	if missed, ok := h.twinFails.take(h.config.Now()); ok {
		h.log.Error("hub: a device's twin can be neither read nor written", "scope", l.scope, "hub", l.hub, "device", l.deviceID, "error", err, "missed", missed)
	}
	return "503", twinRefusal(iothub.ServiceUnavailable, "try again later")
}

func twinRefusal(code iothub.Code, message string) []byte {
	return iothub.DeviceError(code, message)
}
