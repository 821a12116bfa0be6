package iothub

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// node says when a member of a section was written last, and by which version. A member that is gone leaves its node behind, dead, so that a device
// that knows an older version can be told what to remove. What is written below a member counts as written to the member: no node is
// newer than the one that holds it.
type node struct {
	Updated int64            `json:"u,omitempty"` // Unix milliseconds
	Version uint64           `json:"v,omitempty"`
	Dead    bool             `json:"d,omitempty"`
	Members map[string]*node `json:"m,omitempty"`
	// Floor, of a section's node, is the newest version of which a dead node was forgotten: what is gone since an older one is not fully known.
	Floor uint64 `json:"f,omitempty"`
}

// maxDead bounds the dead nodes of a section, and with their keys what its metadata can take.
const maxDead = 128

// stamp is one write.
type stamp struct {
	at      int64
	version uint64
}

func (n *node) touch(s stamp) { n.Updated, n.Version, n.Dead = s.at, s.version, false }

// member is the node of a key, made if there is none.
func (n *node) member(key string) *node {
	if n.Members == nil {
		n.Members = map[string]*node{}
	}
	m := n.Members[key]
	if m == nil {
		m = &node{}
		n.Members[key] = m
	}
	return m
}

// write notes that a whole value was put in a member's place.
func (n *node) write(v any, s stamp) {
	n.bury(s)
	n.touch(s)
	if object, ok := v.(map[string]any); ok {
		for key, member := range object {
			n.member(key).write(member, s)
		}
	}
}

// bury notes that a member is gone with all that it held. What was gone before stays as it is.
func (n *node) bury(s stamp) {
	if n.Dead {
		return
	}
	for _, m := range n.Members {
		m.bury(s)
	}
	n.touch(s)
	n.Dead = true
}

// merge does to object what the patch says (RFC 7386), and notes it.
func (n *node) merge(object, patch map[string]any, s stamp) {
	n.touch(s)
	for key, v := range patch {
		before, there := object[key]
		within, isObject := v.(map[string]any)
		switch held, wasObject := before.(map[string]any); {
		case v == nil:
			delete(object, key)
			if there {
				n.member(key).bury(s)
			}
		case isObject && wasObject:
			n.member(key).merge(held, within, s)
		default:
			v = withoutNulls(v)
			object[key] = v
			n.member(key).write(v, s)
		}
	}
}

// replace puts the whole in the place of what object holds, and notes it.
func (n *node) replace(whole map[string]any, s stamp) {
	for _, m := range n.Members {
		m.bury(s)
	}
	n.touch(s)
	for key, v := range whole {
		n.member(key).write(v, s)
	}
}

// withoutNulls leaves out the members that are null: there is nothing that they would remove. Elements of arrays stay as they are.
func withoutNulls(v any) any {
	object, ok := v.(map[string]any)
	if !ok {
		return v
	}
	kept := map[string]any{}
	for key, member := range object {
		if member != nil {
			kept[key] = withoutNulls(member)
		}
	}
	return kept
}

// since is the patch from what a section was at a version to what it is. A member without a node was there before any was noted.
func (n *node) since(object map[string]any, version uint64) map[string]any {
	patch := map[string]any{}
	for key, m := range n.Members {
		if m.Version <= version {
			continue
		}
		v, there := object[key]
		within, isObject := v.(map[string]any)
		switch {
		case m.Dead || !there:
			patch[key] = nil
		case isObject:
			patch[key] = m.since(within, version)
		default:
			patch[key] = v
		}
	}
	return patch
}

// forget drops dead nodes, the oldest first, until there are at most so many. The root keeps the newest version of which one was dropped.
func (n *node) forget(most int) {
	type grave struct {
		holder *node
		key    string
		node   *node
	}
	var graves []grave
	var walk func(*node)
	walk = func(h *node) {
		for key, m := range h.Members {
			if m.Dead {
				graves = append(graves, grave{h, key, m})
			}
			walk(m)
		}
	}
	walk(n)
	if len(graves) <= most {
		return
	}
	// What lies in a dead node is no newer than that: it is dropped before, or with it.
	slices.SortFunc(graves, func(a, b grave) int { return cmp.Compare(a.node.Version, b.node.Version) })
	for _, g := range graves[:len(graves)-most] {
		n.Floor = max(n.Floor, g.node.Version)
		delete(g.holder.Members, g.key)
	}
}

// metadata is what a service is shown of n: the members that are there, with $lastUpdated and, of desired properties, $lastUpdatedVersion.
func (n *node) metadata(object map[string]any, versions bool) map[string]any {
	shown := map[string]any{"$lastUpdated": time.UnixMilli(n.Updated).UTC().Format(TimeFormat)}
	if n.Updated == 0 {
		shown["$lastUpdated"] = "0001-01-01T00:00:00Z" // as of a twin that nobody has written
	}
	if versions && n.Version > 0 {
		shown["$lastUpdatedVersion"] = n.Version
	}
	for key, v := range object {
		m := n.Members[key]
		if m == nil {
			m = &node{}
		}
		within, _ := v.(map[string]any)
		shown[key] = m.metadata(within, versions)
	}
	return shown
}

// TimeFormat is how times in twins are written, in UTC.
const TimeFormat = "2006-01-02T15:04:05.000Z"

func decodeNode(text []byte) (*node, error) {
	n := &node{}
	if len(text) == 0 {
		return n, nil
	}
	if err := json.Unmarshal(text, n); err != nil {
		return nil, fmt.Errorf("iothub: stored twin metadata: %w", err)
	}
	return n, nil
}
