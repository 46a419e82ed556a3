# Installs what the lab needs and this machine lacks. Sourced by examples/quickstart/run.sh and tests/run.sh.
# shellcheck shell=bash

# Package, and what for. This is all that compiling needs.
linker="build-essential   links the programs"

# Not qemu-utils: nothing here needs it.
lab_packages=(
  "qemu-system-x86   runs the guests"
  "busybox-static    is the guest's user space"
  "xz-utils          unpacks the guest's kernel"
  "cpio              packs the guest's files"
  "kmod              reads the guest's kernel modules"
  "e2fsprogs         makes and reads the guest's disk"
  "iproute2          makes the hosts' networks"
  "util-linux        enters the hosts' namespaces"
  "ipmitool          speaks to power devices"
  "openipmi          simulates power devices (ipmi_sim)"
  "curl              asks the API"
  "$linker"
)

stop() { echo "$*" >&2; exit 1; }

# What fetches something is tried so often, after so many seconds: a mirror may be away for a moment.
tries_max=4
try_again_after=10

# try COMMAND...: until it succeeds, for some tries; each failure is told.
try() {
  local count
  for ((count = 1; ; count++)); do
    "$@" && return 0
    [ "$count" -ge "$tries_max" ] && return 1
    echo "Failed (try $count of $tries_max), again in $try_again_after s: $*" >&2
    sleep "$try_again_after"
  done
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }

# Both at each try: an index that came in halves or is old names packages that are not there.
update_and_install() { apt_get update >&2 && apt_get install -y --no-install-recommends "$@" > /dev/null; }

# install_missing "PACKAGE WHY"...
install_missing() {
  local entry package missing=()
  [ "$(id -u)" = 0 ] || stop "This needs root: it makes network namespaces and cgroups, and installs packages. Run it with sudo."
  command -v apt-get > /dev/null && command -v dpkg-query > /dev/null ||
    stop "This needs Debian or a relative of it (apt-get and dpkg were not found): the guest is built from Debian packages."
  for entry; do
    package=${entry%% *}
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null)" = installed ] && continue
    [ ${#missing[@]} = 0 ] && echo "Installing with apt-get what is missing here:" >&2
    echo "  $entry" >&2
    missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    try update_and_install "${missing[@]}" || stop "apt-get could not update, or not install: ${missing[*]}"
  fi
  # The guest's kernel is fetched, not installed; apt must know of it.
  if [ -z "$(apt-cache depends linux-image-amd64 2> /dev/null)" ]; then
    try apt_get update >&2 || stop "apt-get update failed"
  fi
}

need_cargo() {
  # rustup's folder is not in the PATH of a fresh root shell or of sudo.
  command -v cargo > /dev/null || PATH=$PATH:$HOME/.cargo/bin
  command -v cargo > /dev/null || stop "Rust is missing. Debian's is too old; install it with:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal && . \"\$HOME/.cargo/env\"
and start this again."
  # What cargo downloads is tried again by itself, three times by default, which are over within seconds.
  export CARGO_NET_RETRY=${CARGO_NET_RETRY:-10}
}
