#!/bin/bash
# Runs every test: unit, property, command line and lab. Arguments go to cargo test.
#
# Lab tests need root. HOLDFAST_NO_LAB=1 leaves them out, and says so.
set -euo pipefail
top=$(dirname "$(readlink -f "$0")")/..
cd "$top"
. examples/quickstart/install.sh
need_cargo

# What the tests need beside the linker: the lab's own packages, programs that are asked, told and switched off, and the lab's guest.
prepare() {
  install_missing "${lab_packages[@]}" \
    "prometheus-alertmanager   receives alerts in a test" "prometheus   brings promtool, which checks metrics and rules" \
    "openssl   speaks to supervisors with a host's certificate" \
    "redis-server   answers probes" "nginx-light   answers probes" "postgresql   answers probes" \
    "mariadb-server   answers probes" "apache2-bin   answers probes" "dnsmasq-base   answers probes" \
    "python3-grpcio   serves gRPC health" \
    "monitoring-plugins-basic   brings plugins, which probes run" \
    "fence-agents   switch simulated controllers in tests" "python3-venv   runs the Redfish emulator" \
    "socat   speaks to a guard in a machine of its own" \
    "libvirt-daemon   switches machines off in tests" "libvirt-daemon-driver-qemu   runs those" \
    "libvirt-clients   brings virsh, by which it is told to"
  tests/lab/redfish.sh > /dev/null
  tests/lab/guest.sh .cache/guest
}

preparing=
if [ "${HOLDFAST_NO_LAB:-}" = 1 ]; then
  echo "HOLDFAST_NO_LAB=1: the tests with real guests, BMCs and network namespaces are left out" >&2
else
  install_missing "$linker"
  # The rest mostly waits for mirrors, while the compiler has the processors.
  prepare &
  preparing=$!
fi

# Whoever has a wrapper of their own keeps it, and compiles for longer. A full path: tests ask cargo, too.
export RUSTC_WRAPPER=${RUSTC_WRAPPER:-$PWD/tests/rustc.sh}

# The lab runs these programs; cargo test alone does not build all of them. Together with the tests, what both need is built
# once: alone, the programs would need some crates with fewer features.
built=0
cargo build --workspace --locked --lib --bins --tests || built=$?
if [ -n "$preparing" ]; then
  # Also where nothing was built: packages are not to be left half installed.
  wait "$preparing" || stop "The tests' packages or guest could not be made ready; why stands above, among what the compiler says."
fi
[ "$built" = 0 ] || exit "$built"
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=tests/runner.sh"
# Documentation has no tests of its own: the last summary is that of the tests which cross rooms.
exec cargo test --workspace --locked --lib --tests --no-fail-fast "$@"
