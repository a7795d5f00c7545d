#!/usr/bin/env bash
# Installs what a target needs and the machine lacks, by apt. Quiet when there is nothing to do.
#
#   install-tools.sh test|demo|bench
#
# Exit status: 0 if everything is there at the end; 1, after naming what is not, otherwise.
set -uo pipefail

# Each line: what to look for (a command, or a path), and the Debian package that has it.
c_and_cpp='gcc gcc
g++ g++
make make
cmake cmake
ninja ninja-build
/usr/src/googletest/CMakeLists.txt googletest'
case ${1:-} in
  test)  wanted="$c_and_cpp"$'\nclang clang\nclang++ clang\nllvm-profdata llvm\npython3 python3\nscript bsdutils\nensurepip python3-venv\ngcc-plugin gcc-PLUGIN-dev'
         wanted+=$'\nclang-tidy clang-tidy\nclang-format clang-format\ncppcheck cppcheck'
         wanted+=$'\ninclude-what-you-use iwyu\nflex flex\nbison bison\nprotoc protobuf-compiler\nmoc qtbase5-dev-tools'
         wanted+=$'\nld.gold binutils\nld.lld lld\nmold mold\nmkfs.btrfs btrfs-progs\nmkfs.xfs xfsprogs\nllvm-ar llvm\nemcc emscripten\nnode nodejs' ;;
  demo)  wanted=$c_and_cpp ;;
  bench) wanted=$'gcc gcc\ng++ g++\ncmake cmake\nninja ninja-build\npython3 python3\nensurepip python3-venv\nccache ccache\nclang-tidy clang-tidy\nemcc emscripten\nnode nodejs' ;;
  *)     echo "usage: $0 test|demo|bench" >&2; exit 2 ;;
esac

there() {
  case $1 in
    /*)        [ -e "$1" ] ;;
    gcc-plugin) [ -d "$(gcc -print-file-name=plugin 2>/dev/null)/include" ] ;;
    ensurepip) python3 -c 'import ensurepip' 2>/dev/null ;;
    *)         command -v "$1" >/dev/null ;;
  esac
}

# The packages of what is missing.
missing() {
  while read -r what package; do
    # The plugin headers' package is named after gcc's own version, known once gcc is there.
    there "$what" || echo "${package/PLUGIN/$(gcc -dumpversion 2>/dev/null || echo 12)-plugin}"
  done <<<"$wanted" | sort -u
}

# NVIDIA's compiler: 350 MB, beside the other tools' environments below target/. Versions that belong together; a place
# that was not finished is made anew.
install_nvcc() {
  local place log
  place=$(cd "$(dirname "$0")/../.." && pwd)/target/nvcc
  log=$place/log
  [ ! -e "$place/complete" ] || return 0
  rm -rf "$place" && mkdir -p "$place" || return 1
  echo 'tools: installing nvcc'
  if ! { python3 -m venv "$place" && "$place/bin/pip" install --quiet --disable-pip-version-check \
    nvidia-cuda-nvcc==13.5.37 nvidia-cuda-crt==13.5.37 nvidia-nvvm==13.5.37 nvidia-cuda-runtime==13.5.37; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo 'tools: still missing: nvcc' >&2
    return 1
  fi
  touch "$place/complete"
}

packages=$(missing | xargs)
if [ -z "$packages" ]; then
  [ "$1" != test ] || install_nvcc
  exit
fi

if ! command -v apt-get >/dev/null; then
  echo "tools: missing: $packages; there is no apt-get here to install them with" >&2
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  echo "tools: missing: $packages; not root, so not installed. Run: apt-get install $packages" >&2
  exit 1
fi

log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
echo "tools: installing $packages"
export DEBIAN_FRONTEND=noninteractive
# The package lists of a fresh machine may be empty or old: read them first, once.
# shellcheck disable=SC2086  # a list of words
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
fi
packages=$(missing | xargs)
if [ -n "$packages" ]; then
  echo "tools: still missing: $packages" >&2
  exit 1
fi
[ "$1" != test ] || install_nvcc
