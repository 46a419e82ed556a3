#!/bin/bash
# Holdfast's quickstart: three hosts on this machine keep a service in a real guest alive through five failures.
#
#   run.sh [--json] [--keep | --idle SECONDS]     --help tells more
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(cd "$here/../.." && pwd)
. "$here/install.sh"

install_missing "${lab_packages[@]}"
need_cargo
cd "$top"
echo "Building Holdfast (the first time takes some minutes)" >&2
cargo build --quiet --release --locked -p holdfast -p holdfast-tests --bins >&2
tests/lab/guest.sh .cache/guest
exec target/release/quickstart "$@"
