#!/bin/bash
# Builds holdfast-guest, the agent for guests, as one static program that needs nothing of the guest but a Linux kernel.
#
#   build-guest.sh [OUT_FILE]    default: target/holdfast-guest
set -euo pipefail
top=$(readlink -f "$(dirname "$(readlink -f "$0")")/../..")
out=$(realpath -m "${1:-$top/target/holdfast-guest}")
cd "$top"
. examples/quickstart/install.sh
need_cargo
machine=$(rustc -vV | sed -n 's/^host: //p')
# Static by linking the C library in; only where the target is named do the flags spare programs of the build itself.
RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p holdfast-probes --no-default-features \
  --bin holdfast-guest --target "$machine"
mkdir -p "$(dirname "$out")"
cp "${CARGO_TARGET_DIR:-target}/$machine/release/holdfast-guest" "$out"
echo "$out: $(stat -c %s "$out") bytes"
