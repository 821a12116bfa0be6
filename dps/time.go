package dps

import "time"

const (
	stateTime = "2006-01-02T15:04:05.9999999Z"
	errorTime = "2006-01-02T15:04:05.0000000Z"
)

// FormatTime writes t as the models of the protocol do: UTC, up to seven
// fraction digits with trailing zeros dropped, such as
// "2023-05-19T23:10:50.80811Z". Finer digits are cut, not rounded.
func FormatTime(t time.Time) string { return t.UTC().Format(stateTime) }

// FormatErrorTime writes t as error answers do: UTC, always seven digits.
func FormatErrorTime(t time.Time) string { return t.UTC().Format(errorTime) }
