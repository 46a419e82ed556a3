# Installs what the lab needs and this machine lacks. Sourced by examples/quickstart/run.sh and tests/run.sh.
# shellcheck shell=bash

# Package, and what for. Not qemu-utils: nothing here needs it.
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
  "build-essential   links the programs"
)

stop() { echo "$*" >&2; exit 1; }

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
    apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || stop "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" > /dev/null ||
      stop "apt-get could not install: ${missing[*]}"
  fi
  # The guest's kernel is fetched, not installed; apt must know of it.
  if [ -z "$(apt-cache depends linux-image-amd64 2> /dev/null)" ]; then
    apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || stop "apt-get update failed"
  fi
}

need_cargo() {
  # rustup's folder is not in the PATH of a fresh root shell or of sudo.
  command -v cargo > /dev/null || PATH=$PATH:$HOME/.cargo/bin
  command -v cargo > /dev/null || stop "Rust is missing. Debian's is too old; install it with:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal && . \"\$HOME/.cargo/env\"
and start this again."
}
