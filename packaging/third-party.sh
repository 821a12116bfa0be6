#!/bin/sh
# Prints the licences of Go and of every module that is linked into ./cmd/latchkey, as their own files have them.
set -eu
cd "$(dirname "$0")/.."

text() { # NAME DIRECTORY
	found=no
	for file in "$2"/LICEN[CS]E* "$2"/COPYING* "$2"/NOTICE*; do
		[ -f "$file" ] || continue
		found=yes
		printf '==== %s: %s ====\n\n' "$1" "$(basename "$file")"
		cat "$file"
		printf '\n'
	done
	[ $found = yes ] || { echo "third-party: $1 has no licence in $2" >&2; exit 1; }
}

text Go "$(go env GOROOT)"
go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}	{{.Dir}}{{end}}{{end}}' ./cmd/latchkey | sort -u |
	while IFS='	' read -r name dir; do text "$name" "$dir"; done
