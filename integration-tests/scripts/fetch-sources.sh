#!/usr/bin/env bash
# Fetches the C sources of a project, by way of Cargo: a package that is thrown away again depends on the crate that
# carries them. Prints where they are.
#
#   fetch-sources.sh EMPTY-DIRECTORY lua|hdf5
set -euo pipefail

place=$(cd "$1" && pwd)
case ${2:-} in
  # The crate carries Lua 5.1 to 5.5.
  lua)  crate=lua-src version=551.1.0 sources='lua-5.4*' holds=lapi.c ;;
  hdf5) crate=hdf5-src version=0.8.1 sources=ext/hdf5 holds=CMakeLists.txt ;;
  *)    echo "usage: $0 EMPTY-DIRECTORY lua|hdf5" >&2; exit 2 ;;
esac

mkdir -p "$place/src"
: >"$place/src/lib.rs"
printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n%s = "=%s"\n[workspace]\n' \
  "$crate" "$version" >"$place/Cargo.toml"
(cd "$place" && "${CARGO:-cargo}" vendor --quiet >/dev/null) || { echo "cannot fetch the crate $crate" >&2; exit 1; }
# shellcheck disable=SC2086  # a pattern
sources=$(echo "$place/vendor/$crate"/$sources)
[ -f "$sources/$holds" ] || { echo "the crate $crate has no $sources/$holds" >&2; exit 1; }
echo "$sources"
