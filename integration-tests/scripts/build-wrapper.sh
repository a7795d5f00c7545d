#!/usr/bin/env bash
# Builds the wrapper as it is shipped, into DIRECTORY (relative to the checkout's top).
#
#   build-wrapper.sh release|dev DIRECTORY
#
# By itself, so that no feature another crate asks for (an async runtime, a command line) reaches it; static and at a fixed
# address, so that there is nothing to load and nothing to relocate when it starts. And on x86_64 against musl: the GNU C
# library asks the processor for all its caches at each start (some fifty `cpuid`s), which on a virtual machine takes longer
# than the rest of the wrapper's life. Where there is no musl to be had, the GNU library does.
set -euo pipefail

case ${1:-} in
  release) profile=release ;;
  dev)     profile=debug ;;
  *)       echo "usage: $0 release|dev DIRECTORY" >&2; exit 2 ;;
esac
directory=${2:?which directory?}
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
target=$(rustc -vV | sed -n 's/^host: //p')

# The standard library for a target: there, or fetched by rustup, which is asked twice (a network may stumble).
fetch() { timeout 300 rustup --quiet target add "$1"; }
has() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] || fetch "$1" || fetch "$1"; }

musl=x86_64-unknown-linux-musl
if [ "$target" = x86_64-unknown-linux-gnu ]; then
  if has $musl; then
    target=$musl
  elif [ -n "${CI:-}" ]; then
    echo "build-wrapper: no standard library for $musl" >&2
    exit 1
  else
    echo "build-wrapper: no standard library for $musl; the wrapper will start more slowly without" >&2
  fi
fi
"$cargo" rustc --locked --profile "$1" -p zccache-client --no-default-features --bin zccache --target "$target" -- \
  -C target-feature=+crt-static -C relocation-model=static
# A file of its own: cargo's may be linked to others.
install -D "target/$target/$profile/zccache" "$directory/zccache"
