#!/bin/bash
# Starts one test program for cargo, as tests/run.sh has it: by themselves, the tests of every program share as many threads as
# there are processors. What RUST_TEST_THREADS says counts for all.
set -euo pipefail

case "${1##*/}" in
  # They wait: for devices and services that do not answer, and until nothing can be left of what was sent to those that do not obey.
  holdfast_fencing-* | holdfast_probes-*) export RUST_TEST_THREADS="${RUST_TEST_THREADS:-8}" ;;
  # One has the scene, and one waits for it: that is whom it is kept for.
  in_turn-*) export RUST_TEST_THREADS="${RUST_TEST_THREADS:-2}" ;;
esac
exec "$@"
