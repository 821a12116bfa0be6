package dps

// KnownAPIVersion reports whether v is an api-version that some published
// client or specification uses. One behaviour is served for all of them:
// answers are additive between versions.
func KnownAPIVersion(v string) bool {
	switch v {
	case "2017-08-31-preview",
		"2017-11-15",
		"2018-04-01",
		"2018-09-01-preview",
		"2019-03-31",
		"2021-06-01",
		"2021-10-01",
		"2025-07-01-preview",
		"2026-04-01",
		"2026-07-01-preview",
		"2026-11-01",
		"2026-11-02-preview",
		"2026-11-15-preview":
		return true
	}
	return false
}
