//! Tools that pass through by name: caching them is either pointless or a question of what the user means.

use crate::c_family::names::stem_of;

/// Drivers of builds, and other caches: they start the tools that are worth caching. Sorted.
const BUILD_DRIVERS: &[&str] = &[
    "ant",
    "bazel",
    "bazelisk",
    "buck",
    "buck2",
    "cabal",
    "cargo",
    "ccache",
    "cmake",
    "configure",
    "cpack",
    "ctest",
    "distcc",
    "dpkg-buildpackage",
    "emcmake",
    "emconfigure",
    "emmake",
    "gmake",
    "go",
    "gradle",
    "icecc",
    "make",
    "meson",
    "mvn",
    "ninja",
    "npm",
    "npx",
    "pip",
    "pip3",
    "pnpm",
    "rpmbuild",
    "rustup",
    "samu",
    "sccache",
    "scons",
    "stack",
    "waf",
    "xargs",
    "yarn",
    "zccache",
    "zccache-client",
    "zccache-service",
];

/// Tools about the state of files, processes and the world, cheap enough besides; and those that people talk with.
/// Sorted.
const SYSTEM_UTILITIES: &[&str] = &[
    "apt",
    "apt-get",
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "cpio",
    "curl",
    "date",
    "dd",
    "df",
    "docker",
    "dpkg",
    "du",
    "emacs",
    "env",
    "find",
    "free",
    "gdb",
    "git",
    "hg",
    "hostname",
    "id",
    "install",
    "journalctl",
    "kill",
    "less",
    "lldb",
    "ln",
    "ls",
    "lsof",
    "man",
    "mkdir",
    "mkfifo",
    "mktemp",
    "more",
    "mount",
    "mv",
    "nano",
    "nproc",
    "perf",
    "ping",
    "podman",
    "printenv",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "rsync",
    "scp",
    "sleep",
    "ssh",
    "stat",
    "strace",
    "su",
    "sudo",
    "svn",
    "sync",
    "systemctl",
    "tar",
    "tee",
    "time",
    "timeout",
    "top",
    "touch",
    "truncate",
    "tty",
    "umount",
    "uname",
    "unzip",
    "uptime",
    "valgrind",
    "vi",
    "vim",
    "watch",
    "wget",
    "who",
    "whoami",
    "zip",
];

/// Compilers whose conventions are not ours to judge: in their own lane they would be worth it, here never. Sorted.
const COMPILERS: &[&str] = &["cl", "clang-cl", "flang", "gfortran", "rustdoc"];

/// Interpreters that read the clock, or take random numbers, whenever they start: what they run is never stored. Sorted,
/// without versions.
const INTERPRETERS: &[&str] = &["bash", "java", "node", "nodejs", "perl", "php", "python", "ruby", "zsh"];

/// Why a tool of this base name is never cached, if it is not.
pub fn reason(name: &[u8]) -> Option<&'static str> {
    let stem = stem_of(name);
    let listed = |names: &[&str]| {
        [name, stem].iter().any(|n| names.binary_search_by(|known| known.as_bytes().cmp(n)).is_ok())
    };
    if listed(BUILD_DRIVERS) {
        Some("build_driver")
    } else if listed(SYSTEM_UTILITIES) {
        Some("system_utility")
    } else if INTERPRETERS.iter().any(|known| known.as_bytes() == without_number(name)) {
        Some("interpreter")
    } else {
        listed(COMPILERS).then_some("unknown_tool")
    }
}

/// `python` of `python3.11`.
fn without_number(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|b| !b.is_ascii_digit() && *b != b'.').map_or(0, |last| last + 1);
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_names_are_found_with_version_and_target() {
        for list in [BUILD_DRIVERS, SYSTEM_UTILITIES, COMPILERS, INTERPRETERS] {
            assert!(list.is_sorted_by(|a, b| a < b), "{list:?}");
        }
        for (name, expect) in [
            ("make", Some("build_driver")),
            ("clang-cl-14", Some("unknown_tool")),
            ("x86_64-linux-gnu-gfortran-12", Some("unknown_tool")),
            ("ls", Some("system_utility")),
            ("python3.11", Some("interpreter")),
            ("my-generator", None),
            ("remake", None),
        ] {
            assert_eq!(reason(name.as_bytes()), expect, "{name}");
        }
    }
}
