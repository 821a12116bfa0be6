package adminapi_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey.example/latchkey/dps"
)

// Any sequence of requests agrees with a model: individual enrollments of three mechanisms and groups of two, over HTTP, whole documents.
func TestAnySequenceOfRequestsAgreesWithTheModel(t *testing.T) {
	h := newHouse(t)
	certificates := map[string][]byte{}
	for _, id := range modelIDs {
		for _, n := range []string{"1", "2"} {
			certificates["/enrollments"+id+n] = selfSigned(t, id, false)
			certificates["/enrollmentGroups"+id+n] = selfSigned(t, id+n, true)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		round := *h
		round.t = rt
		m := &model{house: &round, rt: rt, certificates: certificates, seen: map[string]bool{"AAAA": true}}
		for _, k := range kinds {
			for _, id := range modelIDs { // a round that failed left its entries
				m.owner(http.MethodDelete, k.collection+"/"+id, "")
			}
		}
		m.kinds = []*modelKind{
			{kind: kinds[0], idName: "registrationId", itemType: "Enrollment", mechanisms: []string{"tpm", "x509", "symmetricKey"}, rows: map[string]*entry{}},
			{kind: kinds[1], idName: "enrollmentGroupId", itemType: "EnrollmentGroup", mechanisms: []string{"x509", "symmetricKey"}, rows: map[string]*entry{}},
		}
		steps := []func(*modelKind){m.put, m.put, m.putInvalid, m.get, m.getChangePut, m.remove, m.query, m.bulk}
		for range rapid.IntRange(1, 14).Draw(rt, "steps") {
			k := rapid.SampledFrom(m.kinds).Draw(rt, "kind")
			steps[rapid.IntRange(0, len(steps)-1).Draw(rt, "step")](k)
		}
		for _, k := range m.kinds {
			m.query(k)
			for _, id := range modelIDs {
				m.check(k, id)
			}
		}
	})
}

var modelIDs = []string{"a", "a-1", "b"}

type object = map[string]any

type model struct {
	*house
	rt           *rapid.T
	kinds        []*modelKind
	certificates map[string][]byte // DER
	seen         map[string]bool   // etags that were given, and one that never was
}

type modelKind struct {
	kind
	idName, itemType string
	mechanisms       []string
	rows             map[string]*entry
}

// entry is what must be there.
type entry struct {
	shown     object // as a query answers it
	mechanism object // as attestationmechanism answers it
}

func (e *entry) etag() string { return e.shown["etag"].(string) }

func selfSigned(t *testing.T, name string, ca bool) []byte {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	must(t, err)
	return der
}

// members draws a body, without id.
func (m *model) members(k *modelKind, id string) object {
	o := object{"attestation": m.attestation(k, id)}
	maybe := func(name string, values ...any) {
		if i := rapid.IntRange(0, len(values)).Draw(m.rt, name); i > 0 {
			o[name] = values[i-1]
		}
	}
	maybe("provisioningStatus", "enabled", "disabled")
	maybe("capabilities", object{"iotEdge": true}, object{"iotEdge": false})
	maybe("initialTwin", object{"tags": object{"site": "north", "version": 5.0}}, object{"tags": object{"a": nil}, "properties": object{"desired": object{"rate": 1.5}}})
	maybe("reprovisionPolicy", object{"updateHubAssignment": true, "migrateDeviceData": false})
	maybe("allocationPolicy", "hashed", "geoLatency", "static")
	if o["allocationPolicy"] != nil {
		maybe("iotHubs", []any{host})
	}
	maybe("iotHubHostName", host)
	if k.idName == "registrationId" {
		maybe("deviceId", "press-07", "other@device")
		maybe("optionalDeviceInformation", object{"rack": []any{1.0, "x"}})
	}
	return o
}

func (m *model) attestation(k *modelKind, id string) object {
	switch rapid.SampledFrom(k.mechanisms).Draw(m.rt, "mechanism") {
	case "tpm":
		return object{"type": "tpm", "tpm": object{"endorsementKey": b64(chip.EK.Bytes())}}
	case "x509":
		pair := object{}
		for slot, n := range map[string]string{"primary": "1", "secondary": "2"} {
			if n == "1" || rapid.Bool().Draw(m.rt, "secondary") {
				pair[slot] = object{"certificate": b64(m.certificates[k.collection+id+n])}
			}
		}
		name := map[string]string{"registrationId": "clientCertificates", "enrollmentGroupId": "signingCertificates"}[k.idName]
		return object{"type": "x509", "x509": object{name: pair}}
	}
	keys := object{}
	for _, slot := range []string{"primaryKey", "secondaryKey"} {
		if n := rapid.IntRange(0, 2).Draw(m.rt, slot); n > 0 {
			sum := sha256.Sum256([]byte(slot + fmt.Sprint(n)))
			keys[slot] = b64(sum[:])
		}
	}
	if len(keys) == 0 {
		return object{"type": "symmetricKey"}
	}
	return object{"type": "symmetricKey", "symmetricKey": keys}
}

// etag draws what a header or an item says, and whether it names what is there.
func (m *model) etag(e *entry) (etag string, matches bool) {
	switch rapid.SampledFrom([]string{"none", "right", "right", "wrong", "any"}).Draw(m.rt, "etag") {
	case "right":
		if e != nil {
			return e.etag(), true
		}
	case "wrong":
		for _, old := range slices.Sorted(maps.Keys(m.seen)) {
			if e == nil || old != e.etag() {
				return old, false
			}
		}
	case "any":
		return "*", e != nil
	}
	return "", false
}

func ifMatch(etag string) []string {
	if etag == "" {
		return nil
	}
	return []string{"If-Match", etag}
}

func (m *model) draw(k *modelKind) (id, path string, e *entry) {
	id = rapid.SampledFrom(modelIDs).Draw(m.rt, "id")
	return id, k.collection + "/" + id, k.rows[id]
}

func encoded(o object) string {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // of maps and texts alone
	}
	return string(text)
}

func (m *model) put(k *modelKind) {
	id, path, e := m.draw(k)
	body := m.members(k, id)
	etag, matches := m.etag(e)
	a := m.owner(http.MethodPut, path, encoded(body), ifMatch(etag)...)
	if code := writeCode(k, dps.BulkUpdate, e, etag, matches); code != 0 {
		a.refused(code)
		m.check(k, id)
		return
	}
	m.wrote(k, id, body, a.want(200).object())
}

// writeCode is what a PUT, or an item of a bulk request, is refused with; a PUT is as an update.
func writeCode(k *modelKind, mode dps.BulkMode, e *entry, etag string, matches bool) dps.Code {
	switch {
	case mode == dps.BulkDelete && e == nil:
		return k.missing
	case mode == dps.BulkDelete && etag == "":
		return 0
	case mode == dps.BulkCreate:
		etag = ""
	case mode == dps.BulkUpdateIfMatchETag && etag == "":
		return dps.CodePreconditionFailed
	}
	switch {
	case etag != "" && !matches:
		return dps.CodePreconditionFailed
	case etag == "" && e != nil:
		return k.exists
	}
	return 0
}

func (a answer) object() object {
	a.t.Helper()
	var o object
	unmarshal(a.t, a.body, &o)
	return o
}

// wrote follows a write of a body that took effect; answered is the whole entry with what only a PUT shows, nil if it was another request.
func (m *model) wrote(k *modelKind, id string, body, answered object) {
	m.t.Helper()
	was := k.rows[id]
	mechanism := m.owner(http.MethodPost, k.collection+"/"+id+"/attestationmechanism", "").want(200).object()
	m.checkMechanism(k, id, body["attestation"].(object), was, mechanism)
	got := m.owner(http.MethodGet, k.collection+"/"+id, "").want(200).object()
	if answered != nil {
		if !reflect.DeepEqual(answered["attestation"], any(mechanism)) {
			m.t.Fatalf("PUT showed %v, attestationmechanism %v", answered["attestation"], mechanism)
		}
		if answered["etag"] != got["etag"] || answered["lastUpdatedDateTimeUtc"] != got["lastUpdatedDateTimeUtc"] {
			m.t.Fatalf("PUT answered %v, GET %v", answered, got)
		}
	}
	m.checkStamps(was, got)
	want := maps.Clone(body)
	want[k.idName] = id
	want["attestation"] = hidden(mechanism)
	if want["provisioningStatus"] == nil {
		want["provisioningStatus"] = "enabled"
	}
	for _, stamp := range []string{"etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"} {
		want[stamp] = got[stamp]
	}
	k.rows[id] = &entry{want, mechanism}
	m.check(k, id)
	if answered != nil {
		whole := maps.Clone(want)
		whole["attestation"] = any(mechanism)
		m.same("PUT", answered, whole)
	}
}

// hidden is an attestation as GET shows it.
func hidden(mechanism object) object {
	shown := maps.Clone(mechanism)
	delete(shown, "symmetricKey")
	return shown
}

// checkMechanism holds the whole attestation against the one that was sent and the one before.
func (m *model) checkMechanism(k *modelKind, id string, sent object, was *entry, now object) {
	m.t.Helper()
	if now["type"] != sent["type"] {
		m.t.Fatalf("%s %s is of %v, sent %v", k.collection, id, now["type"], sent["type"])
	}
	switch sent["type"] {
	case "tpm":
		m.same("attestationmechanism", now, sent)
	case "symmetricKey":
		given, _ := sent["symmetricKey"].(object)
		var before object
		if was != nil && was.mechanism["type"] == "symmetricKey" {
			before = was.mechanism["symmetricKey"].(object)
		}
		keys := now["symmetricKey"].(object)
		for _, slot := range []string{"primaryKey", "secondaryKey"} {
			want := given[slot]
			if want == nil {
				want = before[slot]
			}
			if want != nil && keys[slot] != want || keys[slot] == "" || len(keys) != 2 {
				m.t.Fatalf("%s is %v, want %v", slot, keys[slot], want)
			}
		}
	case "x509":
		for name, pair := range sent["x509"].(object) {
			shown := now["x509"].(object)[name].(object)
			if len(shown) != len(pair.(object)) {
				m.t.Fatalf("%v certificates of %v", shown, pair)
			}
			for slot, n := range map[string]string{"primary": "1", "secondary": "2"} {
				if pair.(object)[slot] == nil {
					continue
				}
				sum := sha256.Sum256(m.certificates[k.collection+id+n])
				certificate := shown[slot].(object)
				if info := certificate["info"].(object); !strings.EqualFold(info["sha256Thumbprint"].(string), hex.EncodeToString(sum[:])) || certificate["certificate"] != nil {
					m.t.Fatalf("%s %s: %v", name, slot, certificate)
				}
			}
		}
	}
}

// checkStamps: an etag was never there before, created stays, updated does not go back.
func (m *model) checkStamps(was *entry, now object) {
	m.t.Helper()
	etag := now["etag"].(string)
	if m.seen[etag] {
		m.t.Fatalf("the etag %s came back", etag)
	}
	m.seen[etag] = true
	created, updated := m.stamp(now, "createdDateTimeUtc"), m.stamp(now, "lastUpdatedDateTimeUtc")
	switch {
	case was == nil && !created.Equal(updated):
		m.t.Fatalf("created at %s, updated at %s", created, updated)
	case was != nil && (!created.Equal(m.stamp(was.shown, "createdDateTimeUtc")) || updated.Before(m.stamp(was.shown, "lastUpdatedDateTimeUtc"))):
		m.t.Fatalf("replaced %v with %v", was.shown, now)
	}
}

func (m *model) stamp(o object, name string) time.Time {
	m.t.Helper()
	at, err := time.Parse(time.RFC3339Nano, o[name].(string))
	must(m.t, err)
	return at
}

func (m *model) same(what string, got, want object) {
	m.t.Helper()
	if g, w := encoded(got), encoded(want); g != w {
		m.t.Fatalf("%s\n got %s\nwant %s", what, g, w)
	}
}

// check holds one entry against the model, whole.
func (m *model) check(k *modelKind, id string) {
	m.t.Helper()
	path, e := k.collection+"/"+id, k.rows[id]
	a := m.owner(http.MethodGet, path, "")
	if e == nil {
		a.refused(k.missing)
		m.owner(http.MethodPost, path+"/attestationmechanism", "").refused(k.missing)
		return
	}
	want := maps.Clone(e.shown)
	if k.idName == "registrationId" {
		want["registrationState"] = object{"registrationId": id, "status": "unassigned"}
	}
	m.same("GET "+path, a.want(200).object(), want)
	m.same("attestationmechanism of "+path, m.owner(http.MethodPost, path+"/attestationmechanism", "").want(200).object(), e.mechanism)
}

func (m *model) get(k *modelKind) {
	id, _, _ := m.draw(k)
	m.check(k, id)
}

func (m *model) putInvalid(k *modelKind) {
	id, path, e := m.draw(k)
	body := m.members(k, id)
	body[rapid.SampledFrom([]string{"attestation", "provisioningStatus", "ProvisioningStatus", "initialTwin"}).Draw(m.rt, "broken")] = "broken"
	etag, _ := m.etag(e)
	m.owner(http.MethodPut, path, encoded(body), ifMatch(etag)...).refused(dps.CodeBadRequest)
	m.check(k, id)
}

// getChangePut is what operators do: nothing is lost that the GET did not show.
func (m *model) getChangePut(k *modelKind) {
	id, path, e := m.draw(k)
	if e == nil {
		return
	}
	body := m.owner(http.MethodGet, path, "").want(200).object()
	body["initialTwin"] = object{"tags": object{"changed": float64(len(m.seen))}}
	answered := m.owner(http.MethodPut, path, encoded(body), "If-Match", body["etag"].(string)).want(200).object()
	if !reflect.DeepEqual(answered["attestation"], any(e.mechanism)) {
		m.t.Fatalf("a get, change, put made %v of %v", answered["attestation"], e.mechanism)
	}
	want := maps.Clone(e.shown)
	want["initialTwin"], want["etag"], want["lastUpdatedDateTimeUtc"] = body["initialTwin"], answered["etag"], answered["lastUpdatedDateTimeUtc"]
	m.checkStamps(e, answered)
	k.rows[id] = &entry{want, e.mechanism}
	m.check(k, id)
}

func (m *model) remove(k *modelKind) {
	id, path, e := m.draw(k)
	etag, matches := m.etag(e)
	a := m.owner(http.MethodDelete, path, "", ifMatch(etag)...)
	if code := writeCode(k, dps.BulkDelete, e, etag, matches); code != 0 {
		a.refused(code)
	} else if a.want(204); a.body != "" {
		m.t.Fatalf("a delete answered %q", a.body)
	} else {
		delete(k.rows, id)
	}
	m.check(k, id)
}

// query walks over all pages, and finds each entry once, whole, in the order of ids.
func (m *model) query(k *modelKind) {
	m.t.Helper()
	size := rapid.IntRange(1, 4).Draw(m.rt, "size")
	text, where := "SELECT *", ""
	if rapid.Bool().Draw(m.rt, "where") {
		where = rapid.SampledFrom([]string{"enabled", "disabled"}).Draw(m.rt, "status")
		text += " WHERE provisioningStatus = '" + where + "'"
	}
	var want []object
	for _, id := range slices.Sorted(maps.Keys(k.rows)) {
		if shown := k.rows[id].shown; where == "" || shown["provisioningStatus"] == where {
			want = append(want, shown)
		}
	}
	continuation, pages := "", 0
	for more := true; more; pages++ {
		header := []string{"x-ms-max-item-count", fmt.Sprint(size)}
		if continuation != "" {
			header = append(header, "x-ms-continuation", continuation)
		}
		a := m.owner(http.MethodPost, k.collection+"/query", encoded(object{"query": text}), header...).want(200)
		if a.header.Get("x-ms-item-type") != k.itemType {
			m.t.Fatalf("x-ms-item-type %q", a.header.Get("x-ms-item-type"))
		}
		var items []object
		unmarshal(m.t, a.body, &items)
		continuation, more = a.continuation()
		if len(items) != min(size, len(want)) || more != (len(want) > size) {
			m.t.Fatalf("page %d of %d: %d items, more %t, of %d that are left", pages, size, len(items), more, len(want))
		}
		for _, item := range items {
			m.same("query", item, want[0])
			want = want[1:]
		}
	}
}

func (m *model) bulk(k *modelKind) {
	mode := rapid.SampledFrom([]dps.BulkMode{dps.BulkCreate, dps.BulkUpdate, dps.BulkUpdateIfMatchETag, dps.BulkDelete}).Draw(m.rt, "mode")
	ids := rapid.Permutation(modelIDs).Draw(m.rt, "ids")[:rapid.IntRange(1, len(modelIDs)).Draw(m.rt, "items")]
	var items, bodies []object
	failures := map[string]dps.Code{}
	for _, id := range ids {
		etag, matches := m.etag(k.rows[id])
		body := m.members(k, id)
		item := maps.Clone(body)
		if item[k.idName] = id; etag != "" {
			item["etag"] = etag
		}
		if code := writeCode(k, mode, k.rows[id], etag, matches); code != 0 {
			failures[id] = code
		}
		items, bodies = append(items, item), append(bodies, body)
	}
	a := m.owner(http.MethodPost, k.collection, encoded(object{"mode": mode, k.collection[1:]: items})).want(200)
	var result struct {
		IsSuccessful bool
		Errors       []object
	}
	unmarshal(m.t, a.body, &result)
	got := map[string]dps.Code{}
	for _, e := range result.Errors {
		got[e[k.idName].(string)] = dps.Code(e["errorCode"].(float64))
	}
	if !maps.Equal(got, failures) || result.IsSuccessful != (len(failures) == 0) {
		m.t.Fatalf("%s failed with %v, want %v: %s", mode, got, failures, a.body)
	}
	for i, id := range ids {
		switch _, failed := failures[id]; {
		case failed:
		case mode == dps.BulkDelete:
			delete(k.rows, id)
		default:
			m.wrote(k, id, bodies[i], nil)
		}
		m.check(k, id)
	}
}
