package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

const longestValue = 40

// whatChanged is a row's detail in a line: for a change the members that are not as they were, for anything else its members.
func whatChanged(detail json.RawMessage) string {
	var members map[string]any
	if len(detail) == 0 || json.Unmarshal(detail, &members) != nil {
		return ""
	}
	before, hasBefore := members["before"]
	after, hasAfter := members["after"]
	if !hasBefore || !hasAfter {
		return listMembers(members)
	}
	old, _ := before.(map[string]any)
	current, _ := after.(map[string]any)
	switch {
	case before == nil:
		return "created: " + listMembers(current)
	case after == nil:
		return "was: " + listMembers(old)
	}
	all := maps.Clone(old)
	maps.Copy(all, current)
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if from, to := short(old[name]), short(current[name]); fmt.Sprint(old[name]) != fmt.Sprint(current[name]) {
			parts = append(parts, fmt.Sprintf("%s %s → %s", name, from, to))
		}
	}
	if len(parts) == 0 {
		return "nothing that is told here"
	}
	return strings.Join(parts, ", ")
}

func listMembers(members map[string]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		parts = append(parts, name+"="+short(members[name]))
	}
	return strings.Join(parts, ", ")
}

// short is a value as a table can take it.
func short(value any) string {
	text := "none"
	switch v := value.(type) {
	case nil:
	case string:
		text = v
	default:
		encoded, _ := json.Marshal(v) // it came out of JSON
		text = string(encoded)
	}
	if len(text) > longestValue {
		text = strings.ToValidUTF8(text[:12], "") + "…"
	}
	return printable(text)
}

// printable keeps what others wrote to one line and one column, and the terminal to what it is.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
