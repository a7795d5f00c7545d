#!/usr/bin/env bash
# Runs every test of the workspace: with nextest where it is installed, else with cargo's own runner.
# The same tests either way; nextest lacks only the examples in the documentation, which are run after it.
set -euo pipefail
cargo=${CARGO:-cargo}
# What compares with the bare tool, but for the tools of which all is known by what the kernel shows. Run once more with
# the observer of systems on which tools cannot be watched.
scenarios=(environment file_systems generated hits inputs linking links make_builds modes options outputs places precompiled
  search security several_sources sharing)

if "$cargo" nextest --version >/dev/null 2>&1; then
  "$cargo" nextest run --locked --workspace --no-fail-fast --status-level fail --final-status-level flaky
  "$cargo" test --locked --workspace --doc --quiet
  ZCCACHE_TEST_OBSERVER=declared "$cargo" nextest run --locked -p zccache-integration-tests \
    "${scenarios[@]/#/--test=}" --test-threads 4 --no-fail-fast --status-level fail --final-status-level flaky
else
  "$cargo" test --locked --workspace --no-fail-fast
  ZCCACHE_TEST_OBSERVER=declared "$cargo" test --locked -p zccache-integration-tests \
    "${scenarios[@]/#/--test=}" --no-fail-fast
fi
