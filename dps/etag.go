package dps

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// ETag is the etag of a resource's revision: base64 of a quoted, GUID-shaped
// text, without quotes of its own, as the imitated service sends it. Revisions
// must not repeat for one id, not even after the resource was deleted and made
// again, or a stale etag would match.
func ETag(revision int64) string {
	r := uint64(revision)
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `"00000000-0000-0000-%04x-%012x"`, r>>48, r&(1<<48-1)))
}

// MatchETag reports whether the If-Match value header matches an existing
// resource whose etag is etag. Clients send the etag with or without quotes
// (C# adds them), weak or not; "*" matches every existing resource. The caller
// has to know that the resource exists and that the header was there at all.
func MatchETag(header, etag string) bool {
	v := strings.TrimSpace(header)
	v = strings.TrimPrefix(v, "W/")
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		v = v[1 : len(v)-1]
	}
	return v == "*" || v != "" && v == etag
}
