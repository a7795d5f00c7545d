#!/usr/bin/env bash
# Checks the workspace for Linux on aarch64 from a Debian machine on x86_64.
#
#   check-aarch64.sh clippy          type check and lints
#   check-aarch64.sh run [test …]    builds everything, boots a machine of that kind in QEMU, and runs tests there:
#                                    those that are listed below, or these
#
# What it needs: Linux on x86_64, cargo (by rustup, which fetches the standard library), root, and Debian's packages
# `gcc-aarch64-linux-gnu`, and for `run` `qemu-system-arm`, `e2fsprogs` and `cpio`. What is missing is installed; what
# cannot be had is a failure (status 77), never a silent skip. The other machine's kernel, compilers and tools are
# Debian's packages for arm64. They are unpacked into an image, never installed: this machine's dpkg does not hear of them.
#
# The processor is emulated, and tests are about time as well. So the machine's clock counts instructions: it is one
# of a thousand million a second, however slow or busy this machine is, and whoever sleeps there is woken at once.
#
# What cannot be tested there: races between processors (the emulated ones take turns), pages of other sizes than the
# kernel's 4 KiB, tools that are not in the image (NVIDIA's, Emscripten, Rust's, most code generators).
#
# All of it lies in target/aarch64, beside cargo's own target/aarch64-unknown-linux-gnu. docs/platforms.md says how long
# a run takes.
set -euo pipefail
cd "$(dirname "$0")/../.."

mode=${1:-}
[ $# -eq 0 ] || shift
case $mode in clippy | run) ;; *) echo "usage: $0 clippy|run [test …]" >&2; exit 2 ;; esac

say() { printf 'check-aarch64: %s\n' "$*"; }
lacking() { say "cannot check: $*" >&2; exit 77; }

# What the machine's files and ours take.
ROOM_MB_MIN=6000
# Longer than all tests took on two busy cores.
RUN_S_MAX=3600
# What one program of tests may take, in the machine's own seconds.
PROGRAM_S_MAX=300
# Each machine takes up to 2 GiB of memory.
MACHINES_MAX=4

triple=aarch64-unknown-linux-gnu
home=$PWD/target/aarch64
[ "$(uname -sm)" = 'Linux x86_64' ] || lacking "this is $(uname -sm), not Linux x86_64"
command -v cargo >/dev/null || lacking 'cargo is missing'
mkdir -p "$home"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS

# ---- tools --------------------------------------------------------------------------------------------------

quietly() { # log command...: its output is shown if it fails
  local log=$home/$1.log
  shift
  "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; return 1; }
}

install_tools() { # command:package, or file:package...
  local pair missing=()
  for pair; do
    command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || lacking "there is no apt-get for: ${missing[*]}"
  [ "$(id -u)" = 0 ] || lacking "not root, so these were not installed: ${missing[*]}"
  say "installing ${missing[*]}"
  quietly apt-update timeout 300 apt-get update -qq || say 'the package lists could not be read anew'
  DEBIAN_FRONTEND=noninteractive quietly apt timeout 900 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" || lacking 'apt-get failed'
}

# The second is what programs are linked with; the first merely recommends it.
install_tools aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu /usr/aarch64-linux-gnu/lib/libc.a:libc6-dev-arm64-cross
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$triple/lib" ]; then
  command -v rustup >/dev/null || lacking "the standard library for $triple is missing, and rustup as well"
  quietly rustup timeout 300 rustup target add "$triple" || lacking "the standard library for $triple cannot be had"
fi

if [ "$mode" = clippy ]; then
  began=$SECONDS
  timeout 1200 cargo clippy --locked --workspace --all-targets --target "$triple" -- -D warnings
  say "clippy passed in $((SECONDS - began)) s"
  exit
fi

[ "$(id -u)" = 0 ] || lacking 'not root: the files of the image would have the wrong owner'
[ "$(df -Pm "$home" | awk 'NR == 2 { print $4 }')" -ge "$ROOM_MB_MIN" ] ||
  lacking "less than $ROOM_MB_MIN MB are free in $home"
install_tools qemu-system-aarch64:qemu-system-arm mke2fs:e2fsprogs cpio:cpio

# ---- the machine's system -----------------------------------------------------------------------------------

packages='linux-image-cloud-arm64 busybox-static base-files bash bsdutils clang coreutils dash diffutils file findutils
  g++ gawk gcc gcc-12-plugin-dev grep libc-bin libc6-dev lld llvm make mount patch perl procps python3 sed tzdata
  util-linux'

apt_arm() { # apt-get as on such a machine on which nothing is installed
  timeout 900 apt-get -qq -y -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root \
    -o APT::Install-Recommends=false -o Debug::NoLocking=1 -o Dir::Etc::preferences=none \
    -o Dir::State="$home/apt" -o Dir::State::status="$home/apt/status" -o Dir::Cache="$home/apt" "$@"
}

make_system() {
  local root=$home/root package module
  mkdir -p "$home/apt/lists/partial" "$home/apt/archives/partial"
  : >"$home/apt/status"
  # Everything in the archive is unpacked: what was there for an earlier list, and is outdated, must go.
  # shellcheck disable=SC2086  # a list of words
  quietly packages apt_arm update && quietly packages apt_arm autoclean &&
    quietly packages apt_arm install --download-only $packages || lacking "Debian's packages for arm64 cannot be had"
  rm -rf "$root" "$home/start"
  mkdir -p "$root"/usr/{bin,sbin,lib}
  for package in bin sbin lib; do ln -s "usr/$package" "$root/$package"; done
  for package in "$home"/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -xC "$root" --keep-directory-symlink \
      --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*'
  done
  # What the packages' own scripts would have done, were they run.
  ln -s gcc "$root/usr/bin/cc"
  ln -s g++ "$root/usr/bin/c++"
  ln -s gawk "$root/usr/bin/awk"
  printf '%s\n' 'root:x:0:0:root:/root:/bin/bash' 'daemon:x:1:1:daemon:/:/bin/sh' \
    'nobody:x:65534:65534:nobody:/:/bin/sh' >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'nogroup:x:65534:' >"$root/etc/group"
  echo '127.0.0.1 localhost' >"$root/etc/hosts"
  chmod 1777 "$root/tmp"
  # What is needed to mount the disks.
  mkdir -p "$home/start"/{bin,proc,dev,root}
  cp "$root/bin/busybox" "$home/start/bin"
  for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
    find "$root/lib/modules/" -name "$module.ko" -exec cp {} "$home/start" \;
  done
  cp "$root"/boot/vmlinuz-*-arm64 "$home/kernel"
  rm -rf "$root"/boot/* "$root/lib/modules"
  quietly image mke2fs -q -F -t ext4 -d "$root" "$home/system.img.new" 3G
  rm -rf "$root"
  mv "$home/system.img.new" "$home/system.img"
  echo "$packages" >"$home/packages"
}

if ! [ -e "$home/system.img" ] || [ "$(cat "$home/packages" 2>/dev/null)" != "$packages" ]; then
  say 'making the system'
  make_system
fi

# ---- our programs and tests -----------------------------------------------------------------------------------

say 'building'
export CARGO_INCREMENTAL=0
quietly build timeout 1800 cargo build --locked --workspace --bins --target "$triple"
quietly wrapper timeout 1200 cargo rustc --locked --release -p zccache-client --no-default-features --bin zccache \
  --target "$triple" -- -C target-feature=+crt-static -C relocation-model=static
quietly tests timeout 1800 cargo test --locked --workspace --no-run --target "$triple"

# They lie there where they lie here, since tests know their own place.
place=$home/place
rm -rf "$place"
mkdir -p "$place/target/$triple"/{debug/deps,release} "$place/target/tmp" "$place/target/$triple/tmp"
git ls-files -z | xargs -0 cp --parents -t "$place"
programs=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$home/tests.log")
for program in $programs "target/$triple/debug/"{zccache,zccache-client,zccache-service} "target/$triple/release/zccache"; do
  aarch64-linux-gnu-strip --strip-debug -o "$place/$program" "$program"
done

# What is run there: the name of a program of tests, and its arguments. All unit tests, but for those that
# fill something to its limit; of what runs compilers, what goes through the observer's every part, and not the tests
# that compile a hundred times (`walking_…`, `whoever_prints_…`): the processor is a slow one. `the_tools_threads_…`
# wants a Rust compiler.
wanted() {
  cat <<'LIST'
observed --skip chance:: --skip edits:: --skip links:: --skip the_tools_threads_are_seen --skip whoever_prints_the_time
hits second_identical_compile_is_a_hit a_header_that_appears_earlier_on_the_search_path_is_seen
observed edits:: links:: --skip walking_demands_all_that_watching_does
observed chance:: --skip whoever_reads_the_clock_or_measures_is_told
single_flight eight_equal_compiles_at_once_run_the_compiler_once
inputs an_incbin_that_appears_earlier_on_the_assemblers_path_is_seen a_directory_renamed_over_is_another_directory
zccache_actors --skip so_many --skip a_directory_of_more_names_than_are_compared --skip a_full_table_starts_anew
wrapper
outputs side_outputs_of_gcc_come_back each_output_that_is_gone_comes_back_alone
links a_header_behind_a_link_is_compiled_again_when_the_link_leads_elsewhere
zccache_proto
zccache_service
search a_search_directory_by_way_of_links_and_parents
hits warnings_and_standard_error_are_replayed dependency_files_are_the_compilers_own an_edit_that_keeps_size_and_mtime_is_seen
transport
args
docs
variables
zccache_client
commands
let_go
declared
made_up
observed whoever_reads_the_clock_or_measures_is_told
LIST
}
if [ $# -gt 0 ]; then list=$(printf '%s\n' "$@"); else list=$(wanted); fi
: >"$place/list"
while read -r name arguments; do
  found=
  for program in $programs; do
    base=${program##*/}
    [ "${base%-*}" != "$name" ] || { echo "$program $arguments" >>"$place/list"; found=yes; }
  done
  [ -n "$found" ] || lacking "there are no tests of the name $name"
done <<<"$list"

# The first of the machine's processes mounts the disks, and becomes the second.
cat >"$home/start/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  /bin/busybox insmod /\$module.ko
done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mkdir -p /root$PWD
/bin/busybox mount -t ext4 /dev/vdb /root$PWD
/bin/busybox umount /proc
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root $PWD/run-tests
INIT
cat >"$place/run-tests" <<RUN
#!/bin/bash
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
busybox ip link set lo up
# With a fraction: this clock moves in equal ticks, and a file that is stamped in whole seconds is waited for as on a
# file system that has no finer stamps.
date -s @\$(sed 's/.*now=\([0-9]*\).*/\1/' /proc/cmdline).001234567 >/dev/null
ldconfig
# As an init process sets them: the kernel's own limit of 4096 leaves no room for kept files.
ulimit -Hn 524288
ulimit -Sn 1024
export HOME=/root PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin TMPDIR=/tmp LC_ALL=C RUST_BACKTRACE=0
cd $PWD
# All that is run is read now: while a disk is waited for, nobody counts instructions, and the clock runs ahead.
find /usr/bin /usr/lib target -type f -exec cat {} + >/dev/null 2>&1
part=\$(sed 's/.*part=\([0-9]*\)of\([0-9]*\).*/NR % \2 == \1/' /proc/cmdline)
echo "machine: \$(uname -srm), \$(nproc) processors, pages of \$(getconf PAGESIZE)"
while read -r program arguments; do
  name=\${program##*/}
  from=\$SECONDS
  timeout -k 10 $PROGRAM_S_MAX "\$program" --test-threads=1 \$arguments </dev/null
  status=\$?
  echo "ended: \${name%-*} \$arguments: status \$status after \$((SECONDS - from)) s of its own"
done < <(awk "\$part" list)
echo 'machine: done'
sync
echo o >/proc/sysrq-trigger
sleep 60
RUN
chmod +x "$home/start/init" "$place/run-tests"
(cd "$home/start" && find . | cpio -o -H newc --quiet) >"$home/start.cpio"
quietly image mke2fs -q -F -t ext4 -d "$place" "$home/place.img" 3G

# ---- the run --------------------------------------------------------------------------------------------------

# An emulated machine that counts its instructions uses one processor of this one. So there are as many as those, and
# each runs its part of the list.
machines=$(nproc)
[ "$machines" -le "$MACHINES_MAX" ] || machines=$MACHINES_MAX
[ "$machines" -le "$(wc -l <"$place/list")" ] || machines=$(wc -l <"$place/list")
say "starting machines: $machines"
began=$SECONDS
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT
trap 'exit 1' INT TERM
rm -f "$home"/run.*.log
for ((part = 0; part < machines; part++)); do
  : >"$home/run.$part.log"
  # There is no network, no display and the like; what is written to the disks is thrown away.
  timeout -k 10 "$RUN_S_MAX" qemu-system-aarch64 -machine virt -cpu max,pauth-impdef=on -smp 2 -m 2G -nodefaults \
    -display none -no-reboot -icount shift=0,sleep=off -serial "file:$home/run.$part.log" \
    -kernel "$home/kernel" -initrd "$home/start.cpio" \
    -append "console=ttyAMA0 loglevel=3 panic=-1 rdinit=/init now=$(date +%s) part=${part}of$machines" \
    -drive "if=none,id=system,file=$home/system.img,format=raw,snapshot=on" -device virtio-blk-pci,drive=system \
    -drive "if=none,id=place,file=$home/place.img,format=raw,snapshot=on" -device virtio-blk-pci,drive=place </dev/null &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || say 'a machine did not end by itself'; done

logs() { cat "$home"/run.*.log | tr -d '\r'; }
logs | grep -aE '^(machine|ended): |^test .* FAILED' || true
passed=$(logs | awk '/^test result/ { n += $4 } END { print n + 0 }')
failed=$(logs | awk '/^test result/ { n += $6 } END { print n + 0 }')
good=$(logs | grep -ac '^ended: .*: status 0 ' || true)
listed=$(wc -l <"$place/list")
say "$passed tests passed and $failed failed; $good of $listed programs were good; $((SECONDS - began)) s"
[ "$good" = "$listed" ] || { say "FAILED; all that was said is in $home/run.*.log" >&2; exit 1; }
