#!/bin/sh
# Makes the test data of release 0.1.0 anew, with the code of that release: make.sh COMMIT, where COMMIT is the release's (d1ac0d5).
# Keys, ids and times come out different each time; facts.json says what they are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$(git -C "$here" rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'git -C "$repository" worktree remove --force "$work/tree"; rm -rf "$work"' EXIT
git -C "$repository" worktree add --detach "$work/tree" "${1:?name the commit of the release}"
mkdir -p "$work/tree/test/upgrade/reading" "$work/tree/test/upgrade/make"
cp "$repository"/test/upgrade/reading/*.go "$work/tree/test/upgrade/reading/"
cp "$here/make.go" "$work/tree/test/upgrade/make/main.go"
cp "$repository/test/pgserver/dump.go" "$work/tree/test/pgserver/"
cd "$work/tree"
go run ./test/upgrade/make "$here"
