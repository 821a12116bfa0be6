#!/bin/sh
# Builds a Debian package of a static latchkey with dpkg-deb. The same sources give the same bytes, whoever builds them and when.
#
#   packaging/deb.sh VERSION ARCH PROGRAM DIRECTORY
#
# VERSION is what `git describe` says, ARCH a GOARCH, PROGRAM the built latchkey; the package goes to DIRECTORY and its path to standard output.
# SOURCE_DATE_EPOCH is the time of all files; without it, that of the last commit.
set -eu
umask 022
export LC_ALL=C TZ=UTC
[ $# = 4 ] || { echo "usage: $0 VERSION ARCH PROGRAM DIRECTORY" >&2; exit 2; }
program=$(realpath "$3")
directory=$(realpath "$4")
cd "$(dirname "$0")/.."
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# version: v1.2.3-4-gabc becomes 1.2.3+4.abc; a bare commit, which Debian could not compare, 0~20261124.abc.
version() {
	case "$1" in
	v[0-9]* | [0-9]*.*) printf '%s\n' "$1" | sed -E 's/^v//; s/-([0-9]+)-g/+\1./; s/-/+/g' ;;
	*) printf '0~%s.%s\n' "$(date -d "@$SOURCE_DATE_EPOCH" +%Y%m%d)" "$1" | sed 's/-/+/g' ;;
	esac
}

architecture() {
	case "$1" in
	386) echo i386 ;;
	arm) echo armhf ;;
	ppc64le) echo ppc64el ;;
	*) echo "$1" ;;
	esac
}

# put MODE FILE PATH: a file of the package.
put() { install -D -m "$1" "$2" "$root/$3"; }

# packed PATH: standard input, compressed without name and time.
packed() { install -d "$root/$(dirname "$1")" && gzip -9n >"$root/$1"; }

version=$(version "$1")
arch=$(architecture "$2")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
doc=usr/share/doc/latchkey

put 755 "$program" usr/bin/latchkey
put 644 packaging/latchkey.service usr/lib/systemd/system/latchkey.service
put 644 packaging/latchkey.sysusers usr/lib/sysusers.d/latchkey.conf
put 644 packaging/latchkey.tmpfiles usr/lib/tmpfiles.d/latchkey.conf
put 640 packaging/latchkey.env etc/latchkey/latchkey.env
put 644 packaging/deb/lintian-overrides usr/share/lintian/overrides/latchkey
put 644 packaging/deb/copyright $doc/copyright
for page in docs/*.md docs/decisions/*.md; do put 644 "$page" "$doc/${page#docs/}"; done
put 644 docs/export-example.ndjson $doc/export-example.ndjson
packed $doc/CHANGELOG.md.gz <CHANGELOG.md
packaging/third-party.sh >"$scratch/licences" # not in a pipe, which would hide that it failed
packed $doc/third-party-licenses.gz <"$scratch/licences"
packed usr/share/man/man1/latchkey.1.gz <packaging/latchkey.1
packed $doc/changelog.gz <<ENTRY
latchkey ($version) unstable; urgency=medium

  * CHANGELOG.md.gz beside this file says what changed.

 -- The Latchkey authors <noreply@latchkey.example>  $(date -R -d "@$SOURCE_DATE_EPOCH")
ENTRY

# The shell's completions come from the program itself, as it runs on this machine.
native=$program
if [ "$2" != "$(go env GOHOSTARCH)" ]; then
	native=$scratch/latchkey
	GOOS='' GOARCH='' CGO_ENABLED=0 go build -trimpath -o "$native" ./cmd/latchkey
fi
for shell in bash:bash-completion/completions/latchkey zsh:zsh/vendor-completions/_latchkey fish:fish/vendor_completions.d/latchkey.fish; do
	install -d "$root/usr/share/$(dirname "${shell#*:}")"
	"$native" completion "${shell%%:*}" >"$root/usr/share/${shell#*:}"
done

install -d "$root/DEBIAN"
for script in postinst prerm postrm; do install -m 755 packaging/deb/$script "$root/DEBIAN/$script"; done
echo /etc/latchkey/latchkey.env >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<CONTROL
Package: latchkey
Version: $version
Architecture: $arch
Maintainer: The Latchkey authors <noreply@latchkey.example>
Installed-Size: $(du -k --apparent-size -s "$root" | cut -f1)
Depends: systemd | systemd-sysusers, systemd | systemd-tmpfiles
Recommends: ca-certificates
Suggests: bash-completion, postgresql
Section: net
Priority: optional
Description: device provisioning service for devices with a TPM 2.0
 A device proves with its TPM who it is and is handed to its IoT hub, with no
 secret burned in by hand. The service speaks the wire protocol of Azure IoT
 Hub Device Provisioning Service, so existing device and service SDKs work
 against it unmodified. It keeps its data in one directory or in PostgreSQL.
CONTROL
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)

package=$directory/latchkey_${version}_$arch.deb
dpkg-deb -Zgzip --root-owner-group --build "$root" "$package" >&2 # xz would save a fifth and take ten times as long
echo "$package"
