package hubapi

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"

	"latchkey.example/latchkey/internal/iothub"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/internal/web"
)

// wireTwin is the order of members in which hubs answer a twin: what the registry says of the device, without keys, then the document.
type wireTwin struct {
	DeviceID                  string          `json:"deviceId"`
	ETag                      string          `json:"etag"`
	DeviceETag                string          `json:"deviceEtag"`
	Status                    string          `json:"status"`
	StatusReason              *string         `json:"statusReason,omitempty"`
	StatusUpdateTime          string          `json:"statusUpdateTime"`
	ConnectionState           string          `json:"connectionState"`
	LastActivityTime          string          `json:"lastActivityTime"`
	CloudToDeviceMessageCount int             `json:"cloudToDeviceMessageCount"`
	AuthenticationType        string          `json:"authenticationType"`
	X509Thumbprint            thumbprints     `json:"x509Thumbprint"`
	Capabilities              capabilities    `json:"capabilities"`
	Version                   uint64          `json:"version"`
	Tags                      json.RawMessage `json:"tags"`
	Properties                properties      `json:"properties"`
}

type thumbprints struct {
	Primary   *string `json:"primaryThumbprint"`
	Secondary *string `json:"secondaryThumbprint"`
}

type capabilities struct {
	IoTEdge bool `json:"iotEdge"`
}

type properties struct {
	Desired  json.RawMessage `json:"desired"`
	Reported json.RawMessage `json:"reported"`
}

// twinOf puts a twin's answer together.
func twinOf(d registration.KnownDevice, t registration.Twin) (wireTwin, error) {
	desired, err := iothub.Part{Values: t.Desired, Metadata: t.DesiredMetadata, Version: t.DesiredVersion}.ForService(iothub.Desired)
	if err != nil {
		return wireTwin{}, err
	}
	reported, err := iothub.Part{Values: t.Reported, Metadata: t.ReportedMetadata, Version: t.ReportedVersion}.ForService(iothub.Reported)
	if err != nil {
		return wireTwin{}, err
	}
	device := shown(d)
	w := wireTwin{
		DeviceID: d.DeviceID, ETag: iothub.TwinETag(t.Version), DeviceETag: device.ETag, Status: device.Status, StatusUpdateTime: iothub.FormatTime(d.StatusUpdated),
		ConnectionState: device.ConnectionState, LastActivityTime: iothub.FormatTime(d.LastActivity), CloudToDeviceMessageCount: d.Waiting,
		AuthenticationType: device.Authentication.Type, Capabilities: capabilities{d.IoTEdge}, Version: t.Version, Tags: t.Tags, Properties: properties{desired, reported},
	}
	if d.StatusReason != "" {
		w.StatusReason = &d.StatusReason
	}
	if thumbprint := device.Authentication.PrimaryThumbprint; thumbprint != "" {
		w.X509Thumbprint.Primary = &thumbprint
	}
	if len(w.Tags) == 0 {
		w.Tags = json.RawMessage("{}")
	}
	return w, nil
}

// readTwin reads a device with its twin.
func (a *API) readTwin(ctx context.Context, c call, id string) (wireTwin, error) {
	d, err := a.hub.KnownDevice(ctx, c.by.Scope, c.hub, id)
	if err != nil {
		return wireTwin{}, a.refuse(c.by, "reading a device", err)
	}
	t, err := a.hub.KnownTwin(ctx, c.by.Scope, c.hub, id)
	if err != nil {
		return wireTwin{}, a.refuse(c.by, "reading a twin", err)
	}
	return twinOf(d, t)
}

func twinReply(t wireTwin, err error) (web.Reply, error) {
	if err != nil {
		return web.Reply{}, err
	}
	body, err := json.Marshal(t)
	return web.Reply{Status: http.StatusOK, Header: map[string]string{"ETag": `"` + t.ETag + `"`}, Body: body}, err
}

func (a *API) getTwin(id string) handler {
	return func(ctx context.Context, c call) (web.Reply, error) {
		if err := a.deviceID(c.by, id); err != nil {
			return web.Reply{}, err
		}
		return twinReply(a.readTwin(ctx, c, id))
	}
}

// changeTwin merges (PATCH) or replaces (PUT) tags and desired properties; reported ones too for who asks for that extension, as another Latchkey does from
// which a device moves here.
func (a *API) changeTwin(id string, replace bool) handler {
	return func(ctx context.Context, c call) (web.Reply, error) {
		if err := a.deviceID(c.by, id); err != nil {
			return web.Reply{}, err
		}
		want, ok := conditionOf(c.Header)
		if !ok || want.absent {
			return web.Reply{}, a.badCondition(c.by)
		}
		update, err := iothub.DecodeTwinUpdate(c.Body)
		if err != nil {
			return web.Reply{}, a.refuse(c.by, "", err)
		}
		change := registration.TwinChange{Tags: update.Tags, Desired: update.Desired, Replace: replace}
		if iothub.HasExtension(c.Header.Get(iothub.ExtensionHeader), iothub.ReportedByService) {
			change.Reported = update.Reported
		}
		if want.etag != "" {
			if change.Was, err = a.twinVersion(ctx, c, id, want.etag); err != nil {
				return web.Reply{}, err
			}
		}
		if err := a.writeTwin(ctx, c, id, change); err != nil {
			return web.Reply{}, err
		}
		return twinReply(a.readTwin(ctx, c, id))
	}
}

// writeTwin has it in the audit that a twin is to be changed, and changes it.
func (a *API) writeTwin(ctx context.Context, c call, id string, change registration.TwinChange) error {
	if err := a.core.NoteHubCall(ctx, c.by, registration.ActionTwinPut, id, twinTold(change)); err != nil {
		return err
	}
	if _, err := a.hub.ChangeTwin(ctx, c.by.Scope, c.hub, id, change); err != nil {
		return a.refuseTwin(c.by, err)
	}
	return nil
}

// twinTold is what the audit tells of a change: which parts, not what is in them.
func twinTold(change registration.TwinChange) string {
	detail, _ := json.Marshal(map[string]bool{"tags": len(change.Tags) > 0, "desired": len(change.Desired) > 0, "reported": len(change.Reported) > 0, "replace": change.Replace}) // booleans have a form
	return string(detail)
}

func (a *API) refuseTwin(by registration.Caller, err error) error {
	if errors.Is(err, registration.ErrChanged) {
		return a.fault(by, iothub.PreconditionFailed, registration.ReasonEtag, "The etag is not the current one; read the twin again.")
	}
	return a.refuse(by, "writing a twin", err)
}

// twinVersion is the version that an etag names, if it is the current one.
func (a *API) twinVersion(ctx context.Context, c call, id, etag string) (uint64, error) {
	t, err := a.hub.KnownTwin(ctx, c.by.Scope, c.hub, id)
	switch {
	case err != nil:
		return 0, a.refuse(c.by, "reading a twin", err)
	case subtle.ConstantTimeCompare([]byte(etag), []byte(iothub.TwinETag(t.Version))) != 1:
		return 0, a.refuseTwin(c.by, registration.ErrChanged)
	}
	return t.Version, nil
}
