package registration

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// KnownDevice is a device as the service side of the embedded hub sees it. Its keys are secrets.
type KnownDevice struct {
	Identity   // without SealedKey
	Credential Credential
	// Connected says that the device has a connection to this process, which is all that one process can know.
	Connected bool
	// ConnectionChanged is when the device last came or went, LastActivity when it last sent something. Zero: not that this process remembers.
	ConnectionChanged, LastActivity time.Time
	Waiting                         int // messages from the cloud that wait for it
}

// DeviceCount says how many devices a hub has.
type DeviceCount struct {
	Total, Disabled int
	Connected       int // to this process
}

// DeviceWrite is what an application makes of a device at the embedded hub: all of it, whatever it was.
type DeviceWrite struct {
	DeviceID     string
	Credential   Credential
	Disabled     bool
	StatusReason string // at most MaxStatusReason bytes
	IoTEdge      bool
	Was          uint64 // version of the identity that was read; 0: there must be none
}

// ErrChanged says that what is there is not what the caller has read. Nothing was done; read again.
var ErrChanged = errors.New("it was changed since it was read")

// ErrFull says that a device's queue has as many messages as it may have.
var ErrFull = errors.New("the device's queue is full")

// ErrOffline says that a device has no connection to this process, or does not listen for what it was to be asked. ErrNoAnswer says that it was
// asked and did not answer in time.
var (
	ErrOffline  = errors.New("the device is not online")
	ErrNoAnswer = errors.New("the device did not answer in time")
)

// TwinChange is what an application makes of a twin. A part that is empty stays as it is.
type TwinChange struct {
	Tags, Desired json.RawMessage // JSON objects; empty: that part stays
	Reported      json.RawMessage // likewise; for a device that brings along what it has reported elsewhere
	Replace       bool            // put in the place of what is there, and not merged into it
	Was           uint64          // version of the twin that was read; 0: whichever it has
}

// HubAudit is the audit row of something that an application does at a hub: who, to which device, and never the content.
func (c *Core) HubAudit(by Caller, action, deviceID string, reason Reason, detail string) Audit {
	return c.callerAudit(by, action, deviceID, reason, detail)
}

// NoteHubCall makes the audit row durable of something that is about to be done and leaves no other row: a message, a direct method.
func (c *Core) NoteHubCall(ctx context.Context, by Caller, action, deviceID, detail string) error {
	s, _ := c.scope(by.Scope)
	if err := c.store.AppendAudit(ctx, s.ID, c.callerAudit(by, action, deviceID, ReasonManaged, detail)); err != nil {
		return c.storeFault(s, "writing that a hub was called", err)
	}
	return nil
}

// HubFault is the refusal of a request to a hub's service side for an error that the hub gave.
func (c *Core) HubFault(by Caller, doing string, err error) *Fault {
	s, _ := c.scope(by.Scope)
	return c.storeFault(s, doing, err)
}

// HubAt is the name of the embedded hub of a scope whose service side is under a host name: the further one of that name, else the scope's own.
func (c *Core) HubAt(scopeID, host string) string {
	s, known := c.scope(scopeID)
	if !known {
		return ""
	}
	if of, further := c.HubScope(host); further && of == s.ID {
		return host
	}
	return s.Hosts[0]
}

// SealContinuation signs the place where a listing goes on together with what it continues; OpenContinuation gives the place back, false if
// anything of it was changed or it is of another listing or scope.
func (c *Core) SealContinuation(by Caller, binding, after string) string {
	s, _ := c.scope(by.Scope)
	return s.sealContinuation("hub\x00"+binding, after)
}

// OpenContinuation is the way back from SealContinuation. An empty continuation is the beginning.
func (c *Core) OpenContinuation(by Caller, binding, continuation string) (after string, ok bool) {
	s, _ := c.scope(by.Scope)
	return s.openContinuation("hub\x00"+binding, continuation)
}
