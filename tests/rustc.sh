#!/bin/bash
# Stands before rustc for cargo, as tests/run.sh has it: compiles the deciding core's own tests without optimisation. Cargo.toml has
# the core optimised because the simulator decides millions of times, and a profile cannot tell a library from its tests: optimised,
# they took 290 seconds of a processor to compile, and then ran for seven.
set -euo pipefail

case "${CARGO_CRATE_NAME:-} $* " in
  # Of two levels the last one counts.
  "holdfast_policies "*" --test "*) exec "$@" -C opt-level=0 ;;
esac
exec "$@"
