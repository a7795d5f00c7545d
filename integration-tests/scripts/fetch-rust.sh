#!/usr/bin/env bash
# Fetches the sources of a published Rust project, with its own lock file, and what it needs, by way of Cargo. Prints where
# they are.
#
#   fetch-rust.sh DIRECTORY NAME VERSION
set -euo pipefail

name=$2 version=$3 cargo=${CARGO:-cargo}
place=$(cd "$1" && pwd)
home=${CARGO_HOME:-$HOME/.cargo}

mkdir -p "$place/fetch/$name/src" "$place/src"
printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = "=%s"\n[workspace]\n' \
  "$name" "$version" >"$place/fetch/$name/Cargo.toml"
echo >"$place/fetch/$name/src/lib.rs"
"$cargo" fetch -q --manifest-path "$place/fetch/$name/Cargo.toml" || { echo "$name cannot be fetched" >&2; exit 1; }
sources=("$home"/registry/src/*/"$name-$version")
cp -r "${sources[0]}" "$place/src/$name" || { echo "$name was fetched, and is not there" >&2; exit 1; }
"$cargo" fetch -q --locked --manifest-path "$place/src/$name/Cargo.toml" ||
  { echo "what $name needs cannot be fetched" >&2; exit 1; }
echo "$place/src/$name"
