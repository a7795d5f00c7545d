#!/usr/bin/env bash
# Two real projects, built bare, with an empty cache and with a full one: Lua by a loop of `zccache gcc -c`,
# GoogleTest by CMake's compiler launcher. All objects must be the bare compiler's, byte for byte.
#
#   demo.sh DIRECTORY-OF-THE-BINARIES
#
# Exit status: 0 if every object is identical and the last build ran no compiler; 1 otherwise.
# Works in a temporary directory with a cache and a service of its own, and leaves neither behind.
set -euo pipefail

binaries=$(cd "$1" && pwd)
scripts=$(cd "$(dirname "$0")" && pwd)
zccache=$binaries/zccache
client=$binaries/zccache-client
jobs=$(nproc)
googletest=/usr/src/googletest

temp=$(mktemp -d "${TMPDIR:-/tmp}/zccache-demo.XXXXXX")
finish() {
  local status=$?
  "$client" stop >/dev/null 2>&1 || true
  rm -rf "$temp"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() { echo "demo: $*" >&2; exit 1; }

fetch_lua() {
  mkdir -p "$temp/fetch"
  lua_sources=$("$scripts/fetch-sources.sh" "$temp/fetch" lua) || fail 'no Lua'
}

# The two builds. Arguments: the launcher, or nothing; the object directory, fresh.
build_lua() {
  (cd "$lua_sources" && printf '%s\n' l*.c | sed 's/\.c$//' |
    xargs -P "$jobs" -I '{}' ${1:+"$1"} gcc -O2 -Wall -std=gnu99 -DLUA_COMPAT_5_3 -DLUA_USE_LINUX -c '{}.c' -o "$2/{}.o")
}
configure_googletest() {
  cmake -G Ninja -S "$googletest" -B "$2" -DCMAKE_BUILD_TYPE=Release -Dgtest_build_samples=ON \
    ${1:+"-DCMAKE_C_COMPILER_LAUNCHER=$1" "-DCMAKE_CXX_COMPILER_LAUNCHER=$1"} >/dev/null
}
build_googletest() { ninja -C "$2" -j "$jobs" --quiet >/dev/null; }

counter() { "$client" stats --json | grep -o "\"$1\": *[0-9]*" | grep -o '[0-9]*$' | head -n 1; }

# Builds one project one way; sets ms, hits, misses; keeps the objects under $temp/objects/PROJECT/WAY.
build() { # project way [launcher]
  local objects=$temp/build/$1 kept=$temp/objects/$1/$2 launcher=${3:-} from hits_before=0 misses_before=0
  rm -rf "$objects"
  mkdir -p "$objects" "$kept"
  [ "$1" = lua ] || configure_googletest "$launcher" "$objects"
  if [ -n "$launcher" ]; then
    hits_before=$(counter hits)
    misses_before=$(counter misses)
  fi
  from=${EPOCHREALTIME/[.,]/}
  "build_$1" "$launcher" "$objects" || fail "$1, $2: the build failed"
  ms=$(((${EPOCHREALTIME/[.,]/} - from) / 1000))
  hits=0 misses=0
  if [ -n "$launcher" ]; then
    hits=$(($(counter hits) - hits_before))
    misses=$(($(counter misses) - misses_before))
  fi
  (cd "$objects" && find . -name '*.o' -exec cp --parents -t "$kept" {} +)
}

# Compares the objects of one way with the bare build's; sets objects (their number).
compare() { # project way
  objects=$(find "$temp/objects/$1/bare" -name '*.o' | wc -l)
  [ "$objects" -gt 0 ] || fail "$1: the bare build made no objects"
  diff -rq "$temp/objects/$1/bare" "$temp/objects/$1/$2" >&2 || fail "$1: the $2 build's objects differ from the bare one's"
}

seconds() { printf '%d.%02d' $(($1 / 1000)) $(($1 % 1000 / 10)); }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / (b > 0 ? b : 1) }'; }

echo 'demo: fetching Lua'
fetch_lua
[ -f "$googletest/CMakeLists.txt" ] || fail "$googletest is missing (make tools)"

# From here on nothing of the user's: not the cache, not the service, not the configuration.
for name in ${!ZCCACHE_*}; do unset "$name"; done
export HOME=$temp/home ZCCACHE_DIR=$temp/cache ZCCACHE_RUNTIME_DIR=$temp/run
export XDG_CONFIG_HOME=$HOME/.config XDG_STATE_HOME=$HOME/.local/state XDG_CACHE_HOME=$HOME/.cache
mkdir -p "$HOME"
"$client" start >/dev/null || fail 'the service does not start'

# Once unmeasured, so that the first bare build does not pay for reading the compilers from the disk.
for language in c c++; do
  echo 'int main() { return 0; }' | gcc -x "$language" -O2 -c -o "$temp/unmeasured.o" - || fail 'gcc does not compile'
done

rows=() failed=0
for project in lua googletest; do
  echo "demo: building $project bare, cold, warm"
  build "$project" bare
  bare=$ms
  build "$project" cold "$zccache"
  cold=$ms cold_misses=$misses cold_hits=$hits
  compare "$project" cold
  build "$project" warm "$zccache"
  warm=$ms
  compare "$project" warm
  rows+=("$(printf '%-11s %7d %8s %8s %8s %10s %10s %12s %12s' "$project" "$objects" \
    "$(seconds "$bare")" "$(seconds "$cold")" "$(seconds "$warm")" \
    "$cold_hits/$cold_misses" "$hits/$misses" "$(ratio "$cold" "$bare")" "$(ratio "$warm" "$bare")")")
  if [ "$misses" -gt 0 ] || [ "$hits" -lt "$objects" ]; then
    echo "demo: $project: the warm build should have had $objects hits and no miss; it had $hits and $misses" >&2
    failed=1
  fi
done

pid=$(cat "$ZCCACHE_RUNTIME_DIR"/service-*.pid)
"$client" stop >/dev/null || fail 'the service does not stop'
# Where nobody reaps orphans, an ended process stays listed as a zombie.
state=$(awk '/^State:/ { print $2 }' "/proc/$pid/status" 2>/dev/null || true)
[ -z "$state" ] || [ "$state" = Z ] || fail "the service (process $pid) still runs after stop"

echo
printf '%-11s %7s %8s %8s %8s %10s %10s %12s %12s\n' \
  project objects 'bare s' 'cold s' 'warm s' 'cold h/m' 'warm h/m' 'cold/bare' 'warm/bare'
printf '%s\n' "${rows[@]}"
echo
echo "All objects are byte-identical to the bare compiler's ($jobs jobs; h/m: hits/misses). Nothing is left running."
exit "$failed"
