#!/usr/bin/env bash
# Runs the tests that go through `unsafe` code under AddressSanitizer: what starts tools (their child runs in our memory
# until it executes), what knows the peer of a socket, what the wrapper does without a run-time.
#
# The sanitizer is a switch that only a nightly compiler has by itself: RUSTC_BOOTSTRAP lets ours take it.
# A target of its own keeps it out of build scripts and macros. Leaks are not looked for: a child executes another
# program, the wrapper ends by `_exit`. Nor does the observer run here: the sanitizer's own calls in the child
# (its process number, maps of memory) look like the tool's.
set -euo pipefail

host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-$PWD/target}
export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$target/sanitize CARGO_INCREMENTAL=0
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1
run() { # arguments of `cargo test`
  "${CARGO:-cargo}" test --locked --quiet --target "$host" "$@"
}
run -p zccache-proto --lib --test transport
run -p zccache-actors --lib --test let_go
# The wrapper is not static with it.
run -p zccache-client --lib --test wrapper -- --skip it_is_static_and_small
