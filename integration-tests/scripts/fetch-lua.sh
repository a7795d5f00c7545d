#!/usr/bin/env bash
# Fetches the C sources of Lua, by way of Cargo: a package that is thrown away again depends on the crate that
# carries them. Prints where they are.
#
#   fetch-lua.sh EMPTY-DIRECTORY
set -euo pipefail

crate='=551.1.0' # carries the C sources of Lua 5.1 to 5.5
version=5.4
place=$(cd "$1" && pwd)

mkdir -p "$place/src"
: >"$place/src/lib.rs"
printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\nlua-src = "%s"\n[workspace]\n' \
  "$crate" >"$place/Cargo.toml"
(cd "$place" && "${CARGO:-cargo}" vendor --quiet >/dev/null) || { echo 'cannot fetch the crate lua-src' >&2; exit 1; }
sources=$(echo "$place"/vendor/lua-src/lua-"$version"*)
[ -f "$sources/lapi.c" ] || { echo "the crate lua-src has no Lua $version" >&2; exit 1; }
echo "$sources"
