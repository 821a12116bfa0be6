#!/bin/sh
# Makes the test data of a release anew, with the code of that release: make.sh COMMIT, where COMMIT is the release's (0.1.0: d1ac0d5).
# Keys, ids and times come out different each time; facts.json says what they are. The statements of the release go to both stores' testdata.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$(git -C "$here" rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'git -C "$repository" worktree remove --force "$work/tree"; rm -rf "$work"' EXIT
git -C "$repository" worktree add --quiet --detach "$work/tree" "${1:?name the commit of the release}"
cd "$work/tree"

mkdir -p test/upgrade/reading test/upgrade/make
cp "$repository"/test/upgrade/reading/*.go test/upgrade/reading/
cp "$here/make.go" test/upgrade/make/main.go
cp "$repository/test/pgserver/dump.go" test/pgserver/
go run ./test/upgrade/make "$here"

git apply "$here/record.patch"
for store in sqlite postgres; do
	sed "s/PACKAGE/$store/" "$here/../record.go" >"internal/store/$store/record.go"
	RECORD="$work/$store" go test -count=1 -run 'Contract|Backup' "./internal/store/$store"
	LC_ALL=C sort "$work/$store" >"$repository/internal/store/$store/testdata/release-$(basename "$here").sql"
done
