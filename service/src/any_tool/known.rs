//! What is known of tools by name: which of them use the clock and random numbers without its showing in what they
//! make, and which hand on the metadata of their inputs.
//!
//! An entry is a claim about a program. It holds for the programs that the entry names alone: whatever else such a
//! tool starts is watched in full. Options that make the claim false are listed with it.

use zccache_actors::plan::{Caution, Policy, ShownMetadata};

use crate::c_family::names::stem_of;
use crate::c_family::times::{TELLS_TIMES, TELLS_TIMES_AMONG_SCRIPTS};

/// What is known of one kind of tool.
#[derive(Debug)]
pub struct Known {
    /// Base names without target and version, and those of the programs that take part; sorted.
    pub tools: &'static [&'static str],
    /// How its runs are to be watched.
    pub policy: &'static Policy,
    /// Arguments that begin so, or hold this after a comma (`-Wl,--stats`), make the clock or chance show.
    pub telling: &'static [&'static str],
    /// They are scripts, known by the directory that they are in.
    pub are_scripts: bool,
    /// Why the claim holds, for the documentation.
    pub why: &'static str,
}

impl Known {
    /// Whether metadata of files may be members of the result.
    pub fn is_archiver(&self) -> bool {
        self.tools == ARCHIVERS
    }

    /// Whether it writes archives anew, members and all, where it is given one.
    pub fn edits_archives(&self) -> bool {
        self.tools == OBJECT_EDITORS
    }
}

/// Reads that say nothing of a known tool's result: seeds, sizes of heaps and of pools of threads, what libraries ask
/// when they are loaded (libselinux, libsigsegv).
pub const IGNORED_READS: &[&str] = &[
    "/dev/null",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/self/cgroup",
    "/proc/self/exe",
    "/proc/self/maps",
    "/proc/self/mountinfo",
    "/proc/self/stat",
    "/proc/self/status",
    "/proc/stat",
    "/proc/sys/kernel/ngroups_max",
    "/proc/sys/vm/overcommit_memory",
    "/proc/version_signature",
    "/sys/devices/system/cpu",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/possible",
    "/sys/fs/cgroup/",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
];

const fn policy(family: &'static str, programs: fn(&[u8]) -> bool, metadata: ShownMetadata) -> Policy {
    let caution = Caution { chance: true, harmless: programs, metadata, edits: true, ..Caution::NONE };
    Policy {
        family,
        knows_program: |_| false,
        reads_links_on_its_way_only: false,
        searches: |_| false,
        ignored_reads: IGNORED_READS,
        review: None,
        caution,
    }
}

/// Whether this is LLVM's linker, under any of its names.
pub fn is_lld(name: &[u8]) -> bool {
    is_in(&["ld.lld", "lld", "wasm-ld"], name)
}

/// Whether a program of this base name is in the list.
fn is_in(list: &[&str], name: &[u8]) -> bool {
    let stem = stem_of(name);
    // `python3.11`
    let end = stem.iter().rposition(|b| !b.is_ascii_digit() && *b != b'.').map_or(0, |last| last + 1);
    [name, stem, &stem[..end]].iter().any(|n| list.binary_search_by(|known| known.as_bytes().cmp(n)).is_ok())
}

/// Options of linkers with which the time, chance, or the times of inputs (gold's incremental links) show.
const TELLING_LINKS: &[&str] = &[
    "--build-id=uuid",
    "--incremental",
    "-build-id=uuid",
    "-incremental",
    "--perf",
    "--print-gc-stat",
    "--stats",
    "-stats",
    "--time-",
    "-time-",
];

/// Whether a compiler's or linker's argument (`-Wl,--stats`, `--stats`) makes chance show in a link.
pub fn shows_chance_in_link(argument: &[u8]) -> bool {
    let mut words = argument.split(|&b| b == b',');
    words.any(|word| TELLING_LINKS.iter().any(|telling| word.starts_with(telling.as_bytes())))
}

const LINKERS: &[&str] = &[
    "as", "dwp", "gold", "ld", "ld.bfd", "ld.gold", "ld.lld", "ld.mold", "lld", "llvm-dwp", "mold", "wasm-ld",
];
const ARCHIVERS: &[&str] = &["ar", "gcc-ar", "gcc-ranlib", "llvm-ar", "llvm-ranlib", "ranlib"];
const OBJECT_EDITORS: &[&str] = &["llvm-objcopy", "llvm-strip", "objcopy", "strip"];
const CLANG_TOOLS: &[&str] = &["clang-check", "clang-format", "clang-tidy", "include-what-you-use", "iwyu"];
const CPPCHECK: &[&str] = &["cppcheck"];
const RUSTFMT: &[&str] = &["rustfmt", "rustup"];
const GRAMMARS: &[&str] = &["bison", "flex", "flex++", "lex", "m4", "yacc"];
const PROTOC: &[&str] = &["protoc"];
/// Debian starts Qt's programs by another that chooses among versions of them.
const MOC: &[&str] = &["moc", "qtchooser", "uic"];
const EMSCRIPTEN: &[&str] = &[
    "clang",
    "clang++",
    "dash",
    "em++",
    "emar",
    "emcc",
    "emranlib",
    "file_packager",
    "lld",
    "llvm-ar",
    "llvm-nm",
    "llvm-objcopy",
    "llvm-ranlib",
    "node",
    "nodejs",
    "python",
    "python3",
    "sh",
    "wasm-emscripten-finalize",
    "wasm-ld",
    "wasm-metadce",
    "wasm-opt",
];
const NVCC: &[&str] = &[
    "as",
    "bin2c",
    "cc1",
    "cc1plus",
    "cicc",
    "collect2",
    "cudafe++",
    "dash",
    "fatbinary",
    "g++",
    "gcc",
    "ld",
    "nvcc",
    "nvlink",
    "ptxas",
    "sh",
];

static LINKER: Policy = Policy {
    caution: Caution {
        opens_to_remove: is_lld,
        ..policy("", |n| is_in(LINKERS, n), ShownMetadata::None).caution
    },
    ..policy("linker", |n| is_in(LINKERS, n), ShownMetadata::None)
};
/// Whether there is an archive already is what decides between making one and adding to it.
static ARCHIVER: Policy = Policy {
    caution: Caution {
        old_outputs: true,
        ..policy("", |n| is_in(ARCHIVERS, n), ShownMetadata::None).caution
    },
    ..policy("archiver", |n| is_in(ARCHIVERS, n), ShownMetadata::None)
};
static OBJECT_EDITOR: Policy = policy("object editor", |n| is_in(OBJECT_EDITORS, n), ShownMetadata::Mode);
static CLANG_TOOL: Policy = Policy {
    caution: Caution {
        tells_times: TELLS_TIMES,
        ..policy("", |n| is_in(CLANG_TOOLS, n), ShownMetadata::None).caution
    },
    ..policy("clang tool", |n| is_in(CLANG_TOOLS, n), ShownMetadata::None)
};
/// It notes the time for `__DATE__` and `__TIME__`, whether there are any or not.
static CHECKER: Policy = Policy {
    caution: Caution {
        time_words: &["__DATE__", "__TIME__", "__TIMESTAMP__", "##", "%:"],
        ..policy("", |n| is_in(CPPCHECK, n), ShownMetadata::None).caution
    },
    ..policy("cppcheck", |n| is_in(CPPCHECK, n), ShownMetadata::None)
};
static FORMATTER: Policy = policy("rustfmt", |n| is_in(RUSTFMT, n), ShownMetadata::None);
static GRAMMAR: Policy = policy("grammar", |n| is_in(GRAMMARS, n), ShownMetadata::None);
static PROTO: Policy = policy("protoc", |n| is_in(PROTOC, n), ShownMetadata::None);
static META_OBJECT: Policy = policy("moc", |n| is_in(MOC, n), ShownMetadata::None);
/// Python and node ask for the time zone when they start; clang for the time that it tells.
static EMCC: Policy = Policy {
    caution: Caution {
        opens_to_remove: is_lld,
        tells_times: TELLS_TIMES_AMONG_SCRIPTS,
        asks_zone_idly: |n| is_in(&["node", "nodejs", "python", "python3"], n),
        // Emscripten's cache of its own libraries, which it fills when something is missing: that it does now is seen.
        is_own_lock: |path| path.starts_with(b"/") && path.ends_with(b"/cache.lock"),
        ..policy("", |n| is_in(EMSCRIPTEN, n), ShownMetadata::None).caution
    },
    ..policy("emscripten", |n| is_in(EMSCRIPTEN, n), ShownMetadata::None)
};
/// NVIDIA's programs ask for the time zone when they start; gcc, which preprocesses for them, for the time that it tells.
static CUDA: Policy = Policy {
    caution: Caution {
        tells_times: TELLS_TIMES,
        asks_zone_idly: |n| is_in(&["cicc", "cudafe++", "fatbinary", "nvcc", "ptxas"], n),
        // It looks through the directory of temporary files for names that are free.
        lists_idly: |n| is_in(&["nvcc"], n),
        ..policy("", |n| is_in(NVCC, n), ShownMetadata::None).caution
    },
    ..policy("nvcc", |n| is_in(NVCC, n), ShownMetadata::None)
};

/// What is known, each tool once.
pub static KNOWN: &[Known] = &[
    Known {
        tools: LINKERS,
        policy: &LINKER,
        telling: TELLING_LINKS,
        are_scripts: false,
        why: "they time themselves, and take random numbers for the names of temporary files",
    },
    Known {
        tools: ARCHIVERS,
        policy: &ARCHIVER,
        telling: &[],
        are_scripts: false,
        why: "random numbers are for the names of temporary files; times, owners and modes of members are zero",
    },
    Known {
        tools: OBJECT_EDITORS,
        policy: &OBJECT_EDITOR,
        telling: &["-U", "--disable-det"],
        are_scripts: false,
        why: "random numbers are for the names of temporary files; the output has the mode of the input",
    },
    Known {
        tools: CLANG_TOOLS,
        policy: &CLANG_TOOL,
        telling: &[
            "-enable-check-profile",
            "--enable-check-profile",
            "-store-check-profile",
            "--store-check-profile",
            "-ftime",
            "-extra-arg=-ftime",
            "--extra-arg=-ftime",
            "-load",
            "--load",
            "-print-stats",
            "-plugin",
        ],
        are_scripts: false,
        why: "random numbers are for the names of temporary files; clocks for timers that are not printed",
    },
    Known {
        tools: CPPCHECK,
        policy: &CHECKER,
        telling: &["--showtime", "--addon"],
        are_scripts: false,
        why: "it times itself",
    },
    Known {
        tools: RUSTFMT,
        policy: &FORMATTER,
        telling: &[],
        are_scripts: false,
        why: "random numbers seed hash tables",
    },
    Known {
        tools: &["bison", "flex", "flex++", "lex", "yacc"],
        policy: &GRAMMAR,
        telling: &["--trace", "-T"],
        are_scripts: false,
        why: "bison times itself; both run m4 on scripts of their own",
    },
    Known {
        tools: PROTOC,
        policy: &PROTO,
        telling: &[],
        are_scripts: false,
        why: "random numbers seed hash tables",
    },
    Known {
        tools: MOC,
        policy: &META_OBJECT,
        telling: &[],
        are_scripts: false,
        why: "random numbers seed hash tables, the order of which is not told",
    },
    Known {
        tools: &["em++", "emar", "emcc", "emranlib"],
        policy: &EMCC,
        telling: &["--preload-file", "--profile", "-ftime"],
        are_scripts: true,
        why: "Python and node read clocks and take random numbers when they start; temporary files have random names",
    },
    Known {
        tools: &["nvcc"],
        policy: &CUDA,
        telling: &["--time", "-time", "-ftime"],
        are_scripts: false,
        why: "temporary files have random names",
    },
];

/// Formats whose headers hold the time of day.
const TIMED_FORMATS: &[&[u8]] =
    &[b"i386pe", b"pei-", b"pe-x86", b"pe-i386", b"pe-bigobj", b"mingw", b"efi-", b"-coff"];

/// What is known of the tool called `name`, run with `arguments` (response files replaced); nothing if one of them makes it false.
pub fn find(name: &[u8], arguments: &[Vec<u8>]) -> Option<&'static Known> {
    let known = KNOWN.iter().find(|known| is_in(known.tools, name))?;
    let holds = |part: &[u8], argument: &[u8]| argument.windows(part.len()).any(|w| w == part);
    let is_telling = |argument: &Vec<u8>| {
        let words = argument.split(|&b| b == b',');
        words.clone().any(|word| known.telling.iter().any(|t| word.starts_with(t.as_bytes())))
            || TIMED_FORMATS.iter().any(|format| holds(format, argument))
    };
    let is_for_windows = TIMED_FORMATS.iter().any(|format| holds(format, name));
    (!is_for_windows && !arguments.iter().any(is_telling)).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_each_tool_is_in_one() {
        let mut seen = std::collections::HashSet::new();
        for known in KNOWN {
            assert!(known.tools.is_sorted_by(|a, b| a < b), "{:?}", known.tools);
            for tool in known.tools {
                assert!(seen.insert(tool), "{tool} twice");
                let programs = known.policy.caution.harmless;
                assert!(programs(tool.as_bytes()), "{tool} is none of its own programs");
            }
        }
        for list in [MOC, LINKERS, GRAMMARS, EMSCRIPTEN, NVCC] {
            assert!(list.is_sorted_by(|a, b| a < b), "{list:?}");
        }
    }

    #[test]
    fn a_tool_is_known_by_name_until_an_option_makes_chance_show() {
        let family = |words: &[&str]| {
            let (name, arguments) = words.split_first().unwrap();
            find(name.as_bytes(), &arguments.iter().map(|a| a.as_bytes().to_vec()).collect::<Vec<_>>())
                .map(|known| known.policy.family)
        };
        for (words, expect) in [
            (&["ld.lld-14", "a.o"][..], Some("linker")),
            (&["x86_64-linux-gnu-ld.gold", "a.o"], Some("linker")),
            (&["ld", "--stats", "a.o"], None),
            (&["ld", "--build-id=uuid"], None),
            (&["ld", "--build-id"], Some("linker")),
            (&["ld", "-m", "i386pep", "a.o"], None),
            (&["x86_64-w64-mingw32-ld", "a.o"], None),
            (&["objcopy", "-O", "pei-x86-64", "a", "b"], None),
            (&["strip", "-g", "lib.a"], Some("object editor")),
            (&["strip", "-U", "-g", "lib.a"], None),
            (&["clang-tidy", "a.c"], Some("clang tool")),
            (&["clang-tidy", "--enable-check-profile", "a.c"], None),
            (&["python3", "x.py"], None),
            (&["m4", "x.m4"], None),
        ] {
            assert_eq!(family(words), expect, "{words:?}");
        }
    }
}
