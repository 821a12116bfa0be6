package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"latchkey.example/latchkey/dps"
)

// moveWorkers is how many entries are on their way to the target at a time.
const moveWorkers = 12

// mover brings entries to the target.
type mover struct {
	flags  *moveFlags
	target *patientClient
	report *moveReport
	meter  *meter
}

func (m *mover) run(ctx context.Context, source moveSource) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(moveWorkers)
	err := source.each(ctx, m.report, func(e sourceEntry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m.meter.step()
		work.Go(func() error { return m.move(ctx, e) })
		return nil
	})
	if failed := work.Wait(); failed != nil {
		return failed // and no fault of the source, whose reading it ended
	}
	return err
}

// wanted is an entry as the target is to hold it.
type wanted struct {
	path, mechanism string
	whole           func(dps.Show) []byte
	keys            *dps.SymmetricKeys
}

// move brings one entry. An error is of the target as a whole; what is wrong with the entry is in the report.
func (m *mover) move(ctx context.Context, e sourceEntry) error {
	if e.err != nil {
		m.report.trouble(&m.report.CannotMove, e, e.err.Error())
		return nil
	}
	w, err := m.prepare(&e)
	if err != nil {
		m.report.trouble(&m.report.CannotMove, e, err.Error())
		return nil
	}
	if m.flags.dryRun {
		return m.settle(ctx, e, w)
	}
	_, _, err = m.target.call(ctx, http.MethodPut, w.path, versioned(), nil, w.whole(dps.ShowKeys|dps.ShowCertificates))
	var no *refused
	switch {
	case err == nil:
		m.report.count(m.report.Moved, e.group, w.mechanism)
		return nil
	case errors.As(err, &no) && no.status == http.StatusConflict:
		return m.settle(ctx, e, w)
	}
	return m.cannot(e, err)
}

// cannot takes a refusal of one entry into the report.
func (m *mover) cannot(e sourceEntry, err error) error {
	var no *refused
	if !errors.As(err, &no) || passes(err) || no.status == http.StatusUnauthorized {
		return fmt.Errorf("the target, at %s %s: %w", kindName(e.group), e.id, err)
	}
	reason := "the target refuses it: " + no.body.Message
	switch {
	case strings.HasPrefix(no.body.Message, "iotHubs"):
		reason += " Name that hub with --map-hub, or leave hubs out with --drop-hubs."
	case strings.Contains(no.body.Message, "caReferences"):
		reason += " Then run this again."
	}
	m.report.trouble(&m.report.CannotMove, e, reason)
	return nil
}

// settle compares an entry with the one that the target has.
func (m *mover) settle(ctx context.Context, e sourceEntry, w wanted) error {
	there, etag, err := m.there(ctx, e, w)
	var no *refused
	if errors.As(err, &no) && no.status == http.StatusNotFound { // of a dry run
		return m.would(ctx, e, w)
	}
	if err != nil {
		return m.cannot(e, err)
	}
	switch {
	case bytes.Equal(there, w.whole(dps.ShowKeys)):
		m.report.count(m.report.Same, e.group, w.mechanism)
		return nil
	case !m.flags.replace:
		m.report.trouble(&m.report.Different, e, "it is at the target already, and different; --replace replaces it")
		return nil
	case m.flags.dryRun:
		m.report.count(m.report.Replaced, e.group, w.mechanism)
		return nil
	}
	if _, _, err := m.target.call(ctx, http.MethodPut, w.path, versioned(), http.Header{"If-Match": {etag}}, w.whole(dps.ShowKeys|dps.ShowCertificates)); err != nil {
		return m.cannot(e, err)
	}
	m.report.count(m.report.Replaced, e.group, w.mechanism)
	return nil
}

// would asks the target what it would say to an entry that it does not have, and writes nothing.
func (m *mover) would(ctx context.Context, e sourceEntry, w wanted) error {
	ask := m.wouldEnroll
	if e.group {
		ask = m.wouldGroup
	}
	reason, err := ask(ctx, w)
	switch {
	case err != nil:
		return m.cannot(e, err)
	case reason != "":
		return m.cannot(e, &refused{status: http.StatusBadRequest, body: dps.ErrorBody{ErrorCode: int(dps.CodeBadRequest), Message: reason}})
	}
	m.report.count(m.report.Moved, e.group, w.mechanism)
	return nil
}

// wouldEnroll asks by an import of one line that is not carried out.
func (m *mover) wouldEnroll(ctx context.Context, w wanted) (reason string, err error) {
	line := append(w.whole(dps.ShowKeys|dps.ShowCertificates), '\n')
	answer, _, err := m.target.call(ctx, http.MethodPost, "/latchkey/v1/enrollments/import", url.Values{"dryRun": {"true"}}, http.Header{"Content-Type": {mediaTypes["ndjson"]}}, line)
	if err != nil {
		return "", err
	}
	var first importLine
	if err := json.NewDecoder(bytes.NewReader(answer)).Decode(&first); err != nil {
		return "", fmt.Errorf("the target's answer: %w", err)
	}
	return first.Message, nil
}

// wouldLead looks whether all hubs that an entry names are linked. Who may not see the hubs is not told.
func (m *mover) wouldLead(ctx context.Context, hubs []string) (reason string, err error) {
	hubs = slices.DeleteFunc(hubs, func(hub string) bool { return hub == "" || strings.EqualFold(hub, m.target.client.connection.HostName) })
	if len(hubs) == 0 {
		return "", nil
	}
	data, _, err := m.target.call(ctx, http.MethodGet, hubPath, nil, nil, nil)
	var no *refused
	if errors.As(err, &no) && no.status < http.StatusInternalServerError {
		return "", nil
	}
	var linked struct{ Hubs []hubAnswer }
	if err == nil {
		err = json.Unmarshal(data, &linked)
	}
	if err != nil {
		return "", err
	}
	for _, hub := range hubs {
		if !slices.ContainsFunc(linked.Hubs, func(l hubAnswer) bool { return strings.EqualFold(l.Name, hub) }) {
			return "iotHubs: the hub " + hub + " is not linked. Link it first (latchkey hub link).", nil
		}
	}
	return "", nil
}

// wouldGroup looks at what a target can refuse of a group that was read here.
func (m *mover) wouldGroup(ctx context.Context, w wanted) (reason string, err error) {
	g, err := dps.DecodeGroup("", w.whole(dps.ShowKeys|dps.ShowCertificates))
	if err != nil {
		return err.Error(), nil
	}
	if reason, err := m.wouldLead(ctx, append(g.IotHubs, g.IotHubHostName)); reason != "" || err != nil {
		return reason, err
	}
	if g.Attestation.X509 == nil || g.Attestation.X509.CAReferences == nil {
		return "", nil
	}
	refs := g.Attestation.X509.CAReferences
	for _, name := range []string{refs.Primary, refs.Secondary} {
		if name == "" {
			continue
		}
		data, _, err := m.target.call(ctx, http.MethodGet, caPath+"/"+url.PathEscape(name), nil, nil, nil)
		var no *refused
		var ca caAnswer
		switch {
		case errors.As(err, &no) && no.status == http.StatusNotFound, err == nil && json.Unmarshal(data, &ca) == nil && !ca.Verified:
			return "attestation.x509.caReferences: there is no verified CA certificate named " + name + ". Add and verify it first (latchkey ca add, latchkey ca verify).", nil
		case err != nil:
			return "", err
		}
	}
	return "", nil
}

// there is what the target holds, in the form of wanted.whole with keys.
func (m *mover) there(ctx context.Context, e sourceEntry, w wanted) (whole []byte, etag string, err error) {
	data, _, err := m.target.call(ctx, http.MethodGet, w.path, versioned(), nil, nil)
	if err != nil {
		return nil, "", err
	}
	var head struct{ ETag string }
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, "", fmt.Errorf("the target's answer: %w", err)
	}
	if w.keys != nil {
		keys, _, err := m.target.call(ctx, http.MethodPost, w.path+"/attestationmechanism", versioned(), nil, nil)
		if err != nil {
			return nil, "", err
		}
		if data, err = withMember(data, "attestation", keys); err != nil {
			return nil, "", fmt.Errorf("the target's answer: %w", err)
		}
	}
	held, _, err := decodeEntry(e.group, e.id, data)
	if err != nil {
		return nil, "", fmt.Errorf("the target's answer: %w", err)
	}
	return held(dps.ShowKeys), head.ETag, nil
}

// decodeEntry reads an enrollment or a group without its read-only members.
func decodeEntry(group bool, id string, data []byte) (func(dps.Show) []byte, *dps.Attestation, error) {
	if group {
		g, err := dps.DecodeGroup(id, data)
		return g.EncodeShowing, &g.Attestation, err
	}
	e, err := dps.DecodeEnrollment(id, data)
	return e.EncodeShowing, &e.Attestation, err
}

// prepare makes of a source's entry what the target is to hold.
func (m *mover) prepare(e *sourceEntry) (wanted, error) {
	m.noteUnknown(e.body)
	if e.group {
		g, err := dps.DecodeGroup(e.id, e.body)
		if err != nil {
			return wanted{}, err
		}
		if g.IotHubs, g.IotHubHostName, g.AllocationPolicy, err = m.hubs(e, g.IotHubs, g.IotHubHostName, g.AllocationPolicy); err != nil {
			return wanted{}, err
		}
		if g.AllocationPolicy == "" {
			g.CustomAllocation = nil
		}
		if err := m.complete(g.Attestation.X509); err != nil {
			return wanted{}, err
		}
		e.id = g.GroupID
		return wanted{"/enrollmentGroups/" + url.PathEscape(g.GroupID), g.Attestation.Type, g.EncodeShowing, g.Attestation.SymmetricKey}, nil
	}
	i, err := dps.DecodeEnrollment(e.id, e.body)
	if err != nil {
		return wanted{}, err
	}
	if i.IotHubs, i.IotHubHostName, i.AllocationPolicy, err = m.hubs(e, i.IotHubs, i.IotHubHostName, i.AllocationPolicy); err != nil {
		return wanted{}, err
	}
	if i.AllocationPolicy == "" {
		i.CustomAllocation = nil
	}
	if i.DeviceID == "" && e.state != nil && e.state.DeviceID != "" && e.state.DeviceID != i.RegistrationID {
		i.DeviceID = e.state.DeviceID // the device keeps its name at the hub
	}
	e.id = i.RegistrationID
	return wanted{"/enrollments/" + url.PathEscape(i.RegistrationID), i.Attestation.Type, i.EncodeShowing, i.Attestation.SymmetricKey}, nil
}

// hubs maps or drops the hubs that an entry names. Without them its policy is the scope's.
func (m *mover) hubs(e *sourceEntry, hubs []string, pinned, policy string) ([]string, string, string, error) {
	if policy == dps.AllocationCustom && !m.flags.dropHubs {
		return nil, "", "", errors.New("its hub is chosen by a webhook (allocationPolicy custom), which is not served; --drop-hubs moves it without")
	}
	if m.flags.dropHubs {
		if len(hubs) > 0 || pinned != "" || policy == dps.AllocationCustom {
			m.report.note(kindName(e.group) + " " + e.id + " moves without its hubs")
		}
		if len(hubs) > 0 || policy == dps.AllocationCustom {
			policy = ""
		}
		return nil, "", policy, nil
	}
	var mapped []string
	for _, hub := range hubs {
		if hub = m.mapped(hub); !slices.Contains(mapped, hub) {
			mapped = append(mapped, hub)
		}
	}
	return mapped, m.mapped(pinned), policy, nil
}

func (m *mover) mapped(hub string) string {
	for _, old := range sortedKeys(m.flags.mapHubs) {
		if hub != "" && strings.EqualFold(old, hub) {
			return m.flags.mapHubs[old]
		}
	}
	return hub
}

// complete gives a group the certificates that its source did not.
func (m *mover) complete(x *dps.X509Attestation) error {
	if x == nil {
		return nil
	}
	for _, certificate := range x.Signing.List() {
		if certificate.DER != nil {
			continue
		}
		sum, _ := certificate.Info.Fingerprint()
		der, found := m.flags.found[sum]
		if !found {
			return fmt.Errorf("the source does not give the certificate of its CA %q (SHA-256 %s): put it into a folder and name that with --certificates", certificate.Info.SubjectName, certificate.Info.SHA256Thumbprint)
		}
		parsed, err := dps.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("the certificate of its CA: %w", err)
		}
		*certificate = *parsed
	}
	return nil
}

// knownMembers of an entry; what a newer service adds cannot move.
var knownMembers = []string{"registrationId", "enrollmentGroupId", "deviceId", "registrationState", "optionalDeviceInformation", "attestation", "capabilities",
	"iotHubHostName", "initialTwin", "etag", "provisioningStatus", "reprovisionPolicy", "createdDateTimeUtc", "lastUpdatedDateTimeUtc", "allocationPolicy",
	"iotHubs", "customAllocationDefinition"}

func (m *mover) noteUnknown(body []byte) {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return
	}
	for name, value := range members {
		if !slices.Contains(knownMembers, name) && string(value) != "null" {
			m.report.note(fmt.Sprintf("the source's member %q is not known here and does not move", name))
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// meter says how long work goes, if anybody is there to see it.
type meter struct {
	progress *progress
	entries  int64
}

func newMeter(out interface{ Write([]byte) (int, error) }) *meter {
	return &meter{progress: watch(nil, 0, out)}
}

func (m *meter) step() {
	m.entries++
	if now := time.Now(); m.progress.visible && now.Sub(m.progress.told) > 500*time.Millisecond {
		m.progress.told = now
		took := now.Sub(m.progress.began)
		fmt.Fprintf(m.progress.out, "\r\x1b[K%d entries, %.0f a second", m.entries, float64(m.entries)/max(took.Seconds(), 0.001))
	}
}

func (m *meter) end() { m.progress.end() }
