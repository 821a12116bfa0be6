#!/usr/bin/env bash
# Installs what a make target needs and this machine lacks; says what and why; does nothing the second time.
#
#   scripts/setup.sh demo         a C compiler, libc and OpenSSL headers: the simulated TPM is C code over OpenSSL
#   scripts/setup.sh cluster      the same, and PostgreSQL and HAProxy: three nodes behind a load balancer
#   scripts/setup.sh test         the same, and swtpm, tpm2-tools, systemd, fakeroot, umoci, Mosquitto, NATS, Node.js and the npm packages of test/sdk/node
#   scripts/setup.sh -n GROUP     only names what is missing (exit 1 if anything is)
#
# Whether a thing is there is asked of the machine (does the command run, does the header compile), not of the
# package manager, so a compiler or Node.js from elsewhere counts. Root is needed only to install something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sdk=test/sdk/node
dry=no
packages=()
read -ra cc <<<"${CC:-gcc}" # the compiler cgo will call, with its arguments

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# want PACKAGE WHY CHECK...: notes a Debian package as missing unless the check succeeds.
want() {
  local package=$1 why=$2
  shift 2
  "$@" >/dev/null 2>&1 && return
  say "missing: $package ($why)"
  packages+=("$package")
}

has() { command -v "$1"; }

compiler() { has "${cc[0]}"; }

# header NAME: the compiler finds it. Asked only of a compiler that is there; without one, of the usual place.
header() {
  if compiler; then
    printf '#include <%s>\n' "$1" | "${cc[@]}" -E -x c - -o /dev/null
  else
    [ -e "/usr/include/$1" ]
  fi
}

# tcti_swtpm: tpm2-tools talk to swtpm through this plug-in, which is a library of its own.
tcti_swtpm() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -F libtss2-tcti-swtpm.so; }

# postgres: the server's programs, which Debian keeps off the PATH.
postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' || has initdb; }

# haproxy: Debian installs it where only root's PATH leads.
haproxy() { [ -x /usr/sbin/haproxy ] || has haproxy; }

# daemon NAME: the same of other servers.
daemon() { [ -x "/usr/sbin/$1" ] || has "$1"; }

# rabbitmq: the script that starts a server as whoever calls it; the one on the PATH changes to another user.
rabbitmq() { [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; }

# at_least WANT HAVE: true when version HAVE is at least WANT.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

check_go() {
  local need have
  need=$(awk '$1 == "go" { print $2; exit }' go.mod)
  has go >/dev/null || die "Go $need or newer is needed and no 'go' is on the PATH; see https://go.dev/doc/install."
  have=$(go env GOVERSION 2>&1) || die "Go $need or newer is needed and 'go' could not provide it: $have"
  have=${have#go}
  at_least "$need" "${have%% *}" || die "Go $need or newer is needed and 'go' is $have; see https://go.dev/doc/install."
}

need_demo() {
  want gcc "compiles the simulated TPM" compiler
  want libc6-dev "C headers for the simulated TPM" header stdlib.h
  want libssl-dev "OpenSSL headers, the simulated TPM's cryptography" header openssl/evp.h
}

need_cluster() {
  need_demo
  want postgresql "the database that nodes share; programs and tests start a server of their own" postgres
  want haproxy "the load balancer in front of the nodes" haproxy
  want curl "asks the nodes through it" has curl
}

need_test() {
  need_cluster
  want swtpm "a second TPM implementation, independent of the first" has swtpm
  want swtpm-tools "sets up and drives swtpm" has swtpm_setup
  want tpm2-tools "opens our activation blobs with code we did not write" has tpm2_activatecredential
  want libtss2-tcti-swtpm0 "lets tpm2-tools reach swtpm" tcti_swtpm
  want systemd "judges the unit of the Debian package" has systemd-analyze
  want fakeroot "installs the Debian package into a directory without root" has fakeroot
  want umoci "unpacks our container image with code we did not write" has umoci
  want mosquitto "an MQTT broker that telemetry is forwarded to" daemon mosquitto
  want nats-server "a NATS server with JetStream that telemetry is forwarded to" daemon nats-server
  want rabbitmq-server "a broker that is not ours; tests start a node of their own" rabbitmq
  want nodejs "runs the device SDK from npm" has node
  want npm "fetches the device SDK" has npm
}

# become_root sets how to run a command as root, or says, in one sentence, what the reader must run.
become_root() {
  if [ "$(id -u)" = 0 ]; then
    root=()
  elif has sudo >/dev/null && sudo -n true 2>/dev/null; then
    root=(sudo -n)
  else
    die "root is needed to install what is missing; as root, run: apt-get install -y ${packages[*]}"
  fi
}

# quietly COMMAND...: shows what the command printed only if it failed; apt has a line for each step of each package.
quietly() {
  local output
  output=$("$@" 2>&1) || { printf '%s\n' "$output" >&2; exit 1; }
}

# no_cluster keeps Debian's PostgreSQL, if it is installed for the tests, from making and starting a cluster of the machine's own. What is set
# already stays as it is.
no_cluster() {
  [[ " ${packages[*]} " == *" postgresql "* ]] || return 0
  [ -e /etc/postgresql-common/createcluster.conf ] && return
  "${root[@]}" mkdir -p /etc/postgresql-common
  echo 'create_main_cluster = false' | "${root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
}

# no_servers stops those that Debian starts with nothing to do, if they were installed for the tests.
no_servers() {
  local server
  has systemctl >/dev/null || return 0
  for server in haproxy mosquitto nats-server; do
    [[ " ${packages[*]} " == *" $server "* ]] || continue
    "${root[@]}" systemctl disable --now "$server.service" >/dev/null 2>&1 || true # no systemd runs: nothing was started
  done
}

# no_rabbitmq stops the broker that Debian starts and lets start at boot, and Erlang's port mapper with it, if it was installed for the tests.
no_rabbitmq() {
  [[ " ${packages[*]} " == *" rabbitmq-server "* ]] || return 0
  if [ -d /run/systemd/system ]; then
    "${root[@]}" systemctl disable --now rabbitmq-server.service epmd.socket epmd.service >/dev/null 2>&1 || true
  else
    "${root[@]}" systemctl disable rabbitmq-server.service >/dev/null 2>&1 || true
    "${root[@]}" service rabbitmq-server stop >/dev/null 2>&1 || true # it was most often not started: policy-rc.d
  fi
}

install_packages() {
  [ ${#packages[@]} -gt 0 ] || return 0
  [ $dry = no ] || exit 1
  has apt-get >/dev/null || die "this machine has no apt-get; install by its own means what Debian calls: ${packages[*]}"
  become_root
  say "installing with apt-get: ${packages[*]}"
  quietly "${root[@]}" apt-get update
  no_cluster
  quietly "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"
  no_servers
}

# install_sdk fetches exactly what the lockfile names, and runs none of the packages' install scripts. The copy of
# the lockfile inside node_modules, written last, says that the fetch was completed and for which lockfile.
install_sdk() {
  local lock=$sdk/package-lock.json stamp=$sdk/node_modules/.installed-lock.json
  [ -f "$lock" ] || return 0
  cmp -s "$lock" "$stamp" && return
  say "missing: the device SDK's npm packages, into $sdk/node_modules (git ignores it)"
  [ $dry = no ] || exit 1
  # Node.js brings its own list of authorities; npm shall trust those of the machine too, as git and go do.
  if [ -z "${NODE_EXTRA_CA_CERTS:-}" ] && [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
  fi
  (cd "$sdk" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error)
  cp "$lock" "$stamp"
}

if [ "${1:-}" = -n ]; then
  dry=yes
  shift
fi
check_go
case "${1:-}" in
demo)
  need_demo
  install_packages
  ;;
cluster)
  need_cluster
  install_packages
  ;;
test)
  need_test
  install_packages
  install_sdk
  ;;
*) die "usage: scripts/setup.sh [-n] demo|cluster|test" ;;
esac
