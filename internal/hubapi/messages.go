package hubapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// bagHeader holds properties in the form of a URL's query. Unlike in the iothub-app- headers, which HTTP knows without regard to case, names keep their letters.
const bagHeader = "X-Latchkey-Properties"

// send is the older form: the header iothub-to names the device, as /devices/{id}/messages/deviceBound with each part escaped.
func (a *API) send(ctx context.Context, c call) (web.Reply, error) {
	to, err := url.Parse(c.Header.Get("Iothub-To"))
	var segments []string
	if err == nil {
		segments, _ = web.Segments(to)
	}
	if len(segments) != 4 || to.Host != "" || to.RawQuery != "" || !strings.EqualFold(segments[0], "devices") || !strings.EqualFold(segments[2], "messages") || !strings.EqualFold(segments[3], "devicebound") {
		return web.Reply{}, a.fault(c.by, iothub.ArgumentInvalid, registration.ReasonBadDevice, "iothub-to: must be /devices/{id}/messages/deviceBound.")
	}
	return a.sendTo(segments[1])(ctx, c)
}

// sendTo queues a message for a device. It is durable, and so is the audit row before it, when the answer leaves.
func (a *API) sendTo(id string) handler {
	return func(ctx context.Context, c call) (web.Reply, error) {
		if err := a.deviceID(c.by, id); err != nil {
			return web.Reply{}, err
		}
		m, err := messageOf(c.Header, c.Body, a.now())
		if err != nil {
			return web.Reply{}, a.bad(c.by, err)
		}
		if len(m.Body)+len(m.Properties) > iothub.MaxMessage || len(m.Properties) > registration.MaxMessageProperties {
			return web.Reply{}, a.fault(c.by, iothub.MessageTooLarge, registration.ReasonTooLarge, "A message to a device has at most 64 KB with its properties, and these at most 16 KB.")
		}
		m.Hub, m.DeviceID = c.hub, id
		if _, err := a.hub.KnownDevice(ctx, c.by.Scope, c.hub, id); err != nil {
			return web.Reply{}, a.refuse(c.by, "reading a device", err)
		}
		detail, err := json.Marshal(map[string]any{"messageId": m.ID, "bytes": len(m.Body)})
		if err != nil {
			return web.Reply{}, err
		}
		if err := a.core.NoteHubCall(ctx, c.by, registration.ActionMessageSend, id, string(detail)); err != nil {
			return web.Reply{}, err
		}
		if err := a.hub.SendMessage(ctx, c.by.Scope, m); err != nil {
			return web.Reply{}, a.refuse(c.by, "queueing a message", err)
		}
		return web.Reply{Status: http.StatusNoContent}, nil
	}
}

// messageOf reads a message out of a request's headers. Errors are *dps.FieldError.
func messageOf(header http.Header, body []byte, now time.Time) (m registration.HubMessage, err error) {
	m = registration.HubMessage{ID: header.Get("Iothub-Messageid"), CorrelationID: header.Get("Iothub-Correlationid"), UserID: header.Get("Iothub-Userid"),
		Ack: strings.ToLower(header.Get("Iothub-Ack")), Enqueued: now, Expires: now.Add(iothub.DefaultMessageLife), Body: body}
	for name, value := range map[string]string{"iothub-messageid": m.ID, "iothub-correlationid": m.CorrelationID, "iothub-userid": m.UserID} {
		if err := iothub.CheckSystemProperty(name, value); err != nil {
			return m, err
		}
	}
	if err := iothub.CheckAck(m.Ack); err != nil {
		return m, err
	}
	if expiry := header.Get("Iothub-Expiry"); expiry != "" {
		if m.Expires, err = iothub.ParseExpiry(expiry); err != nil {
			return m, err
		}
	}
	if err := iothub.CheckLife(now, m.Expires); err != nil {
		return m, err
	}
	properties := iothub.MessageProperties{ContentType: header.Get("Iothub-Contenttype"), ContentEncoding: header.Get("Iothub-Contentencoding")}
	if properties.Application, err = applicationProperties(header); err != nil {
		return m, err
	}
	if err := properties.Check(); err != nil {
		return m, err
	}
	m.Properties = properties.Encode()
	return m, nil
}

// applicationProperties are those of the iothub-app- headers, their names in lower case, and of the bag.
func applicationProperties(header http.Header) (map[string]string, error) {
	properties := map[string]string{}
	for name, values := range header {
		if key, is := strings.CutPrefix(strings.ToLower(name), "iothub-app-"); is {
			properties[key] = values[0]
		}
	}
	bag, err := url.ParseQuery(header.Get(bagHeader)) // bounded by the header's own limit
	if err != nil {
		return nil, &dps.FieldError{Member: strings.ToLower(bagHeader), Problem: "must be name=value, each percent-encoded, with & between them"}
	}
	for key, values := range bag {
		properties[key] = values[0]
	}
	return properties, nil
}

// purge empties a device's queue.
func (a *API) purge(id string) handler {
	return func(ctx context.Context, c call) (web.Reply, error) {
		if err := a.deviceID(c.by, id); err != nil {
			return web.Reply{}, err
		}
		if _, err := a.hub.KnownDevice(ctx, c.by.Scope, c.hub, id); err != nil {
			return web.Reply{}, a.refuse(c.by, "reading a device", err)
		}
		if err := a.core.NoteHubCall(ctx, c.by, registration.ActionMessagePurge, id, ""); err != nil {
			return web.Reply{}, err
		}
		purged, err := a.hub.PurgeMessages(ctx, c.by.Scope, c.hub, id)
		if err != nil {
			return web.Reply{}, a.refuse(c.by, "purging a queue", err)
		}
		body, err := json.Marshal(map[string]any{"totalMessagesPurged": purged, "deviceId": id, "moduleId": nil})
		return web.Reply{Status: http.StatusOK, Body: body}, err
	}
}
