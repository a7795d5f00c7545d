#!/usr/bin/env bash
# Checks the workspace for Windows, and for macOS, from a Debian machine: with Debian's packages alone.
#
#   check-windows.sh clippy [cargo's arguments]   type check and lints for x86_64-pc-windows-gnu
#   check-windows.sh test   [cargo's arguments]   builds and runs tests under Wine
#   check-windows.sh build  [cargo's arguments]   links programs
#   check-windows.sh compiler [cargo's arguments] runs tests under Wine with a compiler for Windows, which is fetched
#   check-windows.sh macos  [cargo's arguments]   type check and lints for aarch64-apple-darwin
#
# What it needs: Linux on x86_64, cargo, Debian's packages `gcc-mingw-w64-x86-64-posix` (build scripts compile C),
# `wine64` (for `test`), and a compiler that comes with the source of its standard library: `rustc-web`,
# `rust-web-src`, `rust-web-clippy`. The compiler is unpacked, never installed, so it is in nobody's way. What is
# missing is installed if this is root; if it cannot be had, that is a failure (status 77), never a silent skip.
#
# The compiler lies in $ZCCACHE_CHECK_WINDOWS (default: ~/.cache/zccache-check-windows), and is used again by the next
# run, of any checkout; what is built lies in target/check-windows. About 4 GB in all. docs/platforms.md says how long a
# run takes.
#
# For `compiler`, a real clang for Windows comes with the Python package `ziglang` (100 MB; `pip` must be there): the whole of
# clang is within that program, under `zig clang`. It is laid out as installations of clang for mingw are, with its headers,
# and a launcher of ours, `clang.exe`, that starts it beside itself.
#
# What Wine 8 is not Windows in, so that no test of ours may depend on it: a second process may open a second "first
# instance" of a pipe; std's random numbers come from a library that it lacks (one is made here); symbolic links;
# the read-only attribute as root.
set -uo pipefail
cd "$(dirname "$0")/../.."

mode=${1:-}
[ $# -eq 0 ] || shift
case $mode in
  clippy|test|build|compiler) target=x86_64-pc-windows-gnu ;;
  macos)             target=aarch64-apple-darwin ;;
  *) echo "usage: $0 clippy|test|build|compiler|macos [cargo's arguments]" >&2; exit 2 ;;
esac

say() { printf 'check-windows: %s\n' "$*"; }
lacking() { say "cannot check: $*" >&2; exit 77; }

# Room for the compiler (1.5 GB) and for what it builds.
ROOM_MB_MIN=4000
[ "$(uname -sm)" = 'Linux x86_64' ] || lacking "this is $(uname -sm), not Linux x86_64"
command -v cargo >/dev/null || lacking 'cargo is missing'
home=${ZCCACHE_CHECK_WINDOWS:-${XDG_CACHE_HOME:-$HOME/.cache}/zccache-check-windows}
mkdir -p "$home/debs/partial" && home=$(cd "$home" && pwd) || lacking "$home cannot be written"
[ "$(df -Pm "$home" | awk 'NR == 2 { print $4 }')" -ge "$ROOM_MB_MIN" ] ||
  lacking "less than $ROOM_MB_MIN MB are free in $home"

# ---- Debian's packages ----------------------------------------------------------------------------------

find_wine() {
  local name
  for name in wine64 wine64-stable /usr/lib/wine/wine64 wine; do command -v "$name" && return; done
  return 1
}

apt() { # apt-get with its output kept; the lists of a fresh machine are empty or old, so they are read first, once
  command -v apt-get >/dev/null || lacking "there is no apt-get for: $*"
  [ "$(id -u)" = 0 ] || lacking "not root, so this was not done: apt-get $*"
  if [ -z "${lists_read:-}" ]; then
    lists_read=yes
    apt-get update -qq >"$home/apt.log" 2>&1
  fi
  DEBIAN_FRONTEND=noninteractive apt-get -y -qq --no-install-recommends "$@" >>"$home/apt.log" 2>&1 ||
    { tail -n 5 "$home/apt.log" >&2; lacking "apt-get $* failed"; }
}

missing=()
command -v x86_64-w64-mingw32-gcc >/dev/null || missing+=(gcc-mingw-w64-x86-64-posix)
case $mode in test|compiler) find_wine >/dev/null || missing+=(wine64) ;; esac
[ ${#missing[@]} -eq 0 ] || apt install "${missing[@]}"

# ---- the compiler -----------------------------------------------------------------------------------------

compiler=$home/compiler
if ! [ -e "$compiler/complete" ]; then
  say 'unpacking the compiler'
  apt install --download-only --reinstall -o Dir::Cache::archives="$home/debs" -o APT::Sandbox::User=root \
    rustc-web rust-web-src rust-web-clippy
  rm -rf "$compiler"
  mkdir -p "$compiler/bin"
  for package in "$home"/debs/*.deb; do
    case ${package##*/} in
      # Of the source, the standard library is enough.
      rust-web-src_*) dpkg-deb --fsys-tarfile "$package" |
        tar -xC "$compiler" --wildcards './usr/src/rustc-*/library' './usr/lib/rustlib/src' ;;
      *) dpkg -x "$package" "$compiler" ;;
    esac || lacking "$package cannot be unpacked"
  done
  # Its libraries are found where they were unpacked. The names matter: clippy-driver looks for a `rustc`.
  for tool in rustc rustdoc clippy-driver; do
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec %s "$@"\n' \
      "$compiler/usr/lib/x86_64-linux-gnu" "$compiler/usr/bin/$tool" >"$compiler/bin/$tool"
    chmod +x "$compiler/bin/$tool"
  done
  "$compiler/bin/rustc" --version >/dev/null || lacking 'the unpacked compiler does not start'
  rm -rf "$home/debs"
  touch "$compiler/complete"
fi
# The standard library is built from its source, which only an "unstable" cargo does; and whatever is selected is built
# with the features that the whole workspace asks for, so that no crate is built twice.
export RUSTC="$compiler/bin/rustc" RUSTDOC="$compiler/bin/rustdoc" RUSTC_BOOTSTRAP=1
# In the checkout: cargo takes what another one built for this one's, where its sources are older.
export CARGO_TARGET_DIR="$PWD/target/check-windows"
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
export CARGO_RESOLVER_FEATURE_UNIFICATION=workspace
build_std=(-Zbuild-std=std,panic_unwind -Zfeature-unification --target "$target")
say "$("$RUSTC" --version), $(cargo --version), for $target"

# ---- Wine ---------------------------------------------------------------------------------------------------

start_wine() {
  wine=$(find_wine) || lacking 'wine is missing'
  wineserver=$(command -v wineserver || ls /usr/lib/wine/wineserver64 /usr/lib/wine/wineserver 2>/dev/null | head -n 1)
  export WINEPREFIX="$home/wine" WINEDEBUG=-all WINEDLLOVERRIDES='mscoree,mshtml='
  trap 'timeout 20 "$wineserver" -k >/dev/null 2>&1' EXIT
  mkdir -p "$home/dll"
  if ! [ -e "$home/dll/bcryptprimitives.dll" ]; then
    cat >"$home/dll/random.c" <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T count) {
  return SystemFunction036(bytes, (ULONG)count);
}
C
    x86_64-w64-mingw32-gcc -O2 -shared -s -o "$home/dll/bcryptprimitives.dll" "$home/dll/random.c" -ladvapi32 ||
      lacking 'no random numbers for Wine'
  fi
  export WINEPATH="Z:${home//\//\\}\\dll"
  # Its first process leaves a server behind, which would hold the pipes of whoever waits for our output.
  "$wineserver" -p >/dev/null 2>&1 </dev/null
  timeout -k 5 180 "$wine" wineboot >"$home/wine.log" 2>&1 </dev/null
  timeout -k 5 60 "$wine" cmd /c 'echo started' 2>/dev/null </dev/null | grep -q started ||
    lacking "Wine does not start (see $home/wine.log)"
  export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER="$wine"
}

# ---- a compiler for Windows -------------------------------------------------------------------------------

# The version that was tried; its clang is 22, which looks for its own headers under that number.
ZIGLANG=ziglang==0.17.1

fetch_clang() {
  clang=$home/clang
  [ -e "$clang/complete" ] && return
  say 'fetching a compiler for Windows'
  command -v pip >/dev/null || lacking 'pip is missing'
  rm -rf "$clang" && mkdir -p "$clang/wheel" "$clang/bin" "$clang/lib/clang" "$clang/x86_64-w64-mingw32"
  pip download --quiet --no-deps --only-binary=:all: --platform win_amd64 -d "$clang/wheel" "$ZIGLANG" ||
    lacking "$ZIGLANG cannot be had"
  python3 -m zipfile -e "$clang"/wheel/ziglang-*.whl "$clang/wheel" || lacking 'the package cannot be unpacked'
  local zig=$clang/wheel/ziglang
  mv "$zig/zig.exe" "$clang/bin/clang-22.exe"
  mkdir "$clang/lib/clang/22" && mv "$zig/lib/include" "$clang/lib/clang/22/include"
  mv "$zig/lib/libc/include/any-windows-any" "$clang/x86_64-w64-mingw32/include"
  cat >"$clang/launcher.c" <<'C'
#include <windows.h>
#include <stdio.h>
int main(void) {
  static wchar_t own[MAX_PATH], line[32768];
  const wchar_t *typed = GetCommandLineW();
  int quoted = 0;
  GetModuleFileNameW(NULL, own, MAX_PATH);
  *wcsrchr(own, L'\\') = 0;
  for (; *typed && (quoted || (*typed != L' ' && *typed != L'\t')); typed++)
    if (*typed == L'"') quoted = !quoted;
  _snwprintf(line, 32767, L"\"%ls\\clang-22.exe\" clang %ls", own, typed);
  STARTUPINFOW start = { sizeof start };
  PROCESS_INFORMATION process;
  DWORD status = 1;
  if (!CreateProcessW(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &start, &process)) return 126;
  WaitForSingleObject(process.hProcess, INFINITE);
  GetExitCodeProcess(process.hProcess, &status);
  return status;
}
C
  x86_64-w64-mingw32-gcc -O2 -s -o "$clang/bin/clang.exe" "$clang/launcher.c" || lacking 'no launcher'
  rm -rf "$clang/wheel"
  touch "$clang/complete"
}

# ---- the workspace ------------------------------------------------------------------------------------------

# clippy, as `cargo clippy` would run it, had this compiler a cargo of its own.
lint() {
  CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__ RUSTC_WORKSPACE_WRAPPER="$compiler/bin/clippy-driver" \
    cargo check --locked "${build_std[@]}" "$@"
}

began=$SECONDS
case $mode in
  clippy) lint "$@" ;;
  build)  cargo build --locked "${build_std[@]}" "$@" ;;
  test)
    start_wine
    # As in the profile `ci` of .config/nextest.toml: a busy machine may fail a test once, what is wrong fails twice.
    timeout -k 10 1800 cargo test --locked "${build_std[@]}" "$@" || {
      say 'FLAKY or wrong: a test failed; all of these once more'
      timeout -k 10 1800 cargo test --locked "${build_std[@]}" "$@"
    } ;;
  compiler)
    fetch_clang
    start_wine
    export ZCCACHE_TEST_CLANG="Z:${clang//\//\\}"
    timeout -k 10 1800 cargo test --locked "${build_std[@]}" "$@" -- --test-threads=1 ;;
  macos)
    # Nothing is linked, so C code need not be compiled either: there is no compiler for it here.
    export CC_aarch64_apple_darwin=true AR_aarch64_apple_darwin=true SDKROOT=/
    lint "$@" ;;
esac
status=$?
[ $status = 0 ] && word=passed || word=FAILED
say "$mode $word in $((SECONDS - began)) s"
exit $status
