//! The house's rules that a machine can check: layout, layering, headers, sizes, licences.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use zccache_integration_tests::binaries::workspace;
use zccache_integration_tests::fault_points;

/// What may lie at the top besides names that begin with a dot.
const TOP_LEVEL: [&str; 12] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "actors",
    "client",
    "docs",
    "integration-tests",
    "proto",
    "service",
];

/// Which crates of ours each may depend on; dev-dependencies are free.
const LAYERS: [(&str, &[&str]); 5] = [
    ("proto", &[]),
    ("actors", &["zccache-proto"]),
    ("service", &["zccache-proto", "zccache-actors"]),
    ("client", &["zccache-proto"]),
    ("integration-tests", &[]),
];

/// Lines a file may have before its tests: where a second look is due.
const LINES_MAX: usize = 400;

/// Files that were looked at twice, each with the reason why it stays as long as it is.
const LONG_FILES: [(&str, &str); 1] = [(
    "service/src/c_family/options/table.rs",
    "a table: one line an option, sorted, looked up and not read through",
)];

/// Lines a `main.rs` may have: it only calls what has a name elsewhere.
const MAIN_LINES_MAX: usize = 39;

/// What the header of an actor's file tells, in this order.
const ACTOR_HEADER: [&str; 7] = ["Owns", "Runs on", "Receives", "Sends", "Mailbox", "On failure", "Never"];

/// The modules that may hold `unsafe` code, each for system calls that have no safe form.
const UNSAFE: [&str; 31] = [
    "actors/interposer/kernel.rs",
    "actors/interposer/ledger.rs",
    "actors/interposer/lib.rs",
    "actors/interposer/notes.rs",
    "actors/interposer/realpath.rs",
    "actors/src/observe_linux/interposer.rs",
    "actors/src/observe_linux/ledger.rs",
    "actors/src/observe_linux/listener.rs",
    "actors/src/sys_windows/changes.rs",
    "actors/src/sys_windows/locale.rs",
    "actors/src/sys_windows/status.rs",
    "actors/src/tool_run/filter.rs",
    "actors/src/tool_run/inherited.rs",
    "actors/src/tool_run/spawn.rs",
    "actors/src/tree_unix.rs",
    "actors/src/tree_windows.rs",
    "client/src/entry_unix.rs",
    "client/src/kernel_linux.rs",
    "client/src/kernel_macos.rs",
    "client/src/process.rs",
    "client/src/windows/process.rs",
    "proto/src/own_directory_windows.rs",
    "proto/src/peer_linux.rs",
    "proto/src/peer_macos.rs",
    "proto/src/peer_windows.rs",
    "proto/src/pipe_instance_windows.rs",
    "proto/src/pipe_windows.rs",
    "proto/src/security_windows.rs",
    "service/src/close_linux.rs",
    "service/src/close_macos.rs",
    "service/src/daemon_unix.rs",
];

/// Licences that go with ours. A crate needs one of them among its alternatives.
const LICENCES: [&str; 11] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Every `.rs` file of the workspace's crates, relative to its top.
fn sources() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for (name, _) in LAYERS {
        collect(&workspace(), Path::new(name), &mut found);
    }
    assert!(found.len() > 20, "only {} source files found", found.len());
    found
}

fn collect(top: &Path, below: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(top.join(below)).unwrap().filter_map(Result::ok) {
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            collect(top, &path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.insert(path, std::fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// A file's lines before its own tests.
fn lines_without_tests(text: &str) -> usize {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

#[track_caller]
fn none(what: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{what}:\n  {}", offenders.join("\n  "));
}

#[test]
fn the_top_level_is_as_agreed() {
    let mut offenders: Vec<String> = std::fs::read_dir(workspace())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target" && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    offenders.extend(
        TOP_LEVEL.iter().filter(|n| !workspace().join(n).exists()).map(|n| format!("{n} is missing")),
    );
    none("names at the top level that do not belong there, or are missing", offenders);
}

#[test]
fn dependencies_between_our_crates_point_one_way() {
    let mut offenders = Vec::new();
    for (name, allowed) in LAYERS {
        for (line, _) in dependencies(name, "[dependencies]") {
            let dependency = line.split([' ', '=', '.']).next().unwrap_or_default().to_string();
            if dependency.starts_with("zccache") && !allowed.contains(&dependency.as_str()) {
                offenders.push(format!("{name} -> {dependency}"));
            }
        }
    }
    none("dependencies against the layering", offenders);
}

#[test]
fn every_dependency_has_its_reason() {
    let mut offenders = Vec::new();
    for (name, _) in LAYERS {
        for section in ["[dependencies]", "[dev-dependencies]"] {
            let lines = dependencies(name, section);
            let unreasoned =
                lines.iter().filter(|(line, _)| !line.contains('#') && !line.starts_with("zccache"));
            // A dev-dependency that the crate has anyway needs no second reason.
            let elsewhere = dependencies(name, "[dependencies]");
            let known =
                |line: &str| elsewhere.iter().any(|(l, _)| l.split(' ').next() == line.split(' ').next());
            offenders.extend(
                unreasoned
                    .filter(|(line, _)| section == "[dependencies]" || !known(line))
                    .map(|(line, number)| format!("{name}/Cargo.toml:{number}: {line}")),
            );
        }
    }
    none("dependencies without a comment that says what for", offenders);
}

/// The lines of one section of a crate's manifest, with their numbers.
fn dependencies(name: &str, section: &str) -> Vec<(String, usize)> {
    let manifest = std::fs::read_to_string(workspace().join(name).join("Cargo.toml")).unwrap();
    let lines = manifest.lines().enumerate().skip_while(|(_, line)| line.trim() != section).skip(1);
    lines
        .take_while(|(_, line)| !line.starts_with('['))
        .filter(|(_, line)| line.contains('=') && !line.trim_start().starts_with('#'))
        .map(|(number, line)| (line.to_string(), number + 1))
        .collect()
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let offenders = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! ") || text.starts_with("//! Placeholder"));
    none(
        "files that do not open with `//!`",
        offenders.map(|(path, _)| path.display().to_string()).collect(),
    );
}

#[test]
fn there_is_no_mod_rs() {
    let offenders = sources().into_keys().filter(|path| path.ends_with("mod.rs"));
    none("foo.rs and foo/ are the style here", offenders.map(|path| path.display().to_string()).collect());
}

#[test]
fn every_actor_says_what_it_owns_and_whom_it_talks_to() {
    let mut actors = 0;
    let mut offenders = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("actors/src")) {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if !code.contains("impl Actor for ") {
            continue;
        }
        actors += 1;
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let header = header.join(" ");
        let mut rest = header.as_str();
        for word in ACTOR_HEADER {
            let Some((_, behind)) = rest.split_once(word) else {
                offenders.push(format!("{}: no `{word}` where it belongs", path.display()));
                break;
            };
            rest = behind;
        }
    }
    assert!(actors > 0, "no actor was found: has `impl Actor for` changed its shape?");
    none("headers of actors", offenders);
}

#[test]
fn files_are_short_or_were_looked_at_twice() {
    let listed = |path: &Path| LONG_FILES.iter().any(|(name, _)| path == Path::new(name));
    let in_tests = |path: &Path| path.components().any(|c| c.as_os_str() == "tests");
    let offenders = sources()
        .into_iter()
        .map(|(path, text)| (lines_without_tests(&text), path))
        .filter(|(lines, path)| *lines > LINES_MAX && !listed(path) && !in_tests(path))
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()));
    none("long files", offenders.collect());
}

#[test]
fn main_only_calls_what_has_a_name_elsewhere() {
    let is_main =
        |path: &Path| path.ends_with("src/main.rs") || path.components().any(|c| c.as_os_str() == "bin");
    let offenders = sources()
        .into_iter()
        .filter(|(path, text)| is_main(path) && text.lines().count() > MAIN_LINES_MAX)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()));
    none("programs whose main has grown", offenders.collect());
}

#[test]
fn unsafe_code_lives_only_where_a_module_says_so() {
    let offenders = sources().into_iter().filter(|(path, text)| {
        let uses = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
        });
        let ours = !path.ends_with("tidy.rs");
        let listed = UNSAFE.iter().any(|name| *path == Path::new(name));
        uses && ours
            && !(listed
                && text.contains("#![expect(")
                && text.contains("unsafe_code,")
                && text.contains("reason = "))
    });
    none(
        "unsafe code without a reason, or in a module that is not listed",
        offenders.map(|(path, _)| path.display().to_string()).collect(),
    );
}

/// Where `actors` and `service` may name what only some systems have: files of one platform, as their names tell.
const OF_ONE_PLATFORM: [&str; 8] = [
    "_linux",
    "_macos",
    "_unix",
    "_windows",
    "actors/src/program_file.rs",
    "actors/src/standard_input.rs",
    "actors/src/tool_run.rs",
    "actors/src/tool_run/",
];

#[test]
fn what_is_for_every_platform_asks_the_system_through_sys() {
    let is_shared = |path: &Path| {
        let name = path.to_string_lossy();
        (name.starts_with("actors/src") || name.starts_with("service/src"))
            && !OF_ONE_PLATFORM.iter().any(|part| name.contains(part))
    };
    let offenders = sources().into_iter().filter(|(path, _)| is_shared(path)).flat_map(|(path, text)| {
        let names = ["rustix::", "libc::", "std::os::unix", "std::os::fd", "std::os::linux"];
        let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").enumerate();
        let offending = lines.filter(|(_, line)| {
            let code = line.split("//").next().unwrap_or_default();
            names.iter().any(|name| code.contains(name))
        });
        offending
            .map(|(number, line)| format!("{}:{}: {}", path.display(), number + 1, line.trim()))
            .collect::<Vec<_>>()
    });
    none(
        "what only Unix has, in files for every platform: take it from `sys` (docs/platforms.md)",
        offenders.collect(),
    );
}

/// The test functions of all sources.
fn test_functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for text in sources().values() {
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            match function.and_then(|rest| rest.split('(').next()) {
                Some(name) if is_test => _ = names.insert(name.to_string()),
                _ => {}
            }
            // Between the attribute and the function there may be others.
            let tests = ["#[test]", "#[tokio::test", "#[actix::test"];
            is_test = tests.iter().any(|attribute| line.starts_with(attribute))
                || is_test && (line.starts_with("#[") || line.starts_with("//"));
        }
    }
    names
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Words in the name of a number that make it a time-out, the length of a queue or a limit. A length of time is one by its
/// type. (`_BYTES` alone is a buffer's or a format's size: what is longer takes another turn, and nothing ends.)
const LIMIT_WORDS: [&str; 15] = [
    "ATTEMPTS", "BACKLOG", "CAPACITY", "CORE", "INTERVAL", "LIMIT", "MAILBOX", "MAX", "MIN", "MS", "NS",
    "OUTBOX", "PATIENCE", "SHARE", "TIMEOUT",
];

/// Constants that look like it and are none, or that no test can come to the end of; by the reason.
const NO_LIMITS: [(&str, &[&str]); 4] = [
    (
        "a pause between two looks: it delays what is seen, and ends nothing",
        &[
            "actors/src/observe_linux/witness/reading.rs SETTLE_STEP",
            "actors/src/standard_input.rs LOOK_EVERY",
            "actors/src/standard_input.rs SETTLE_STEP",
            "actors/src/tool_run_portable.rs LOOK_EVERY",
            "client/src/cli/service.rs PAUSE",
            "client/src/fallback.rs KILL_PAUSE",
            "client/src/starting.rs PAUSE_MAX",
            "client/src/starting.rs PAUSE_MIN",
            "client/src/windows/process.rs KILL_PAUSE",
        ],
    ),
    (
        "from here on another way to the same file is cheaper: nothing but time tells",
        &[
            "actors/src/delivery/beside_linux.rs REFLINK_BYTES_MIN",
            "actors/src/delivery/beside_macos.rs CLONE_BYTES_MIN",
        ],
    ),
    (
        "how far a clock is set back that others than the file system read: nothing ends",
        &["actors/src/sys_windows/time.rs TICK"],
    ),
    (
        "room for the longest that Windows has, which says so where it does not do: no user has a longer one",
        &["proto/src/security_windows.rs TOKEN_WORDS_MAX"],
    ),
];

/// Where bare lengths of time are right: how long what tests ask for takes is said by tests.
const BARE_TIMES: [&str; 1] = ["actors/src/faults.rs"];

/// What is shipped, without tests: each file's code, and its path.
fn shipped() -> impl Iterator<Item = (String, String)> {
    let is_shipped = |path: &Path| {
        LAYERS[..4].iter().any(|(name, _)| path.starts_with(Path::new(name).join("src")))
            || path.starts_with("actors/interposer")
    };
    let is_code = |line: &&str| !["#[cfg(test)]", "#[cfg(all(test, unix))]"].contains(&line.trim());
    sources().into_iter().filter(move |(path, _)| is_shipped(path)).map(move |(path, text)| {
        (path.display().to_string(), text.lines().take_while(is_code).collect::<Vec<_>>().join("\n"))
    })
}

/// The constant that a line defines, and its type.
fn constant(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let line =
        ["pub ", "pub(crate) ", "pub(super) "].iter().find_map(|p| line.strip_prefix(p)).unwrap_or(line);
    let (name, rest) = line.strip_prefix("const ")?.split_once(": ")?;
    Some((name, rest.split(" =").next()?))
}

fn is_limit(name: &str, kind: &str) -> bool {
    let is_number = ["u8", "u16", "u32", "u64", "u128", "usize", "i32", "i64"].contains(&kind);
    let has_word = || name.split('_').any(|word| LIMIT_WORDS.contains(&word));
    ["Duration", "Timespec"].contains(&kind) || is_number && has_word()
}

/// The constants that a cell names: "`file` `NAME`, `NAME`; `file` `NAME`".
fn constants_named(cell: &str) -> Vec<String> {
    let mut file = "";
    let mut named = Vec::new();
    for word in quoted(cell) {
        match word.contains('/') {
            true => file = word,
            false => named.push(format!("{file} {word}")),
        }
    }
    named
}

#[test]
fn every_time_out_and_limit_is_in_the_table_with_a_test_that_hits_it() {
    let text = std::fs::read_to_string(workspace().join("docs/architecture.md")).unwrap();
    let (_, section) = text.split_once("## Time-outs and limits").unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let tests = test_functions();
    let (mut constants, mut limits) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in shipped() {
        for (name, kind) in text.lines().filter_map(constant) {
            constants.insert(format!("{path} {name}"));
            if is_limit(name, kind) {
                limits.insert(format!("{path} {name}"));
            }
        }
    }
    assert!(
        limits.len() > 100,
        "only {} limits were found: have constants changed their shape?",
        limits.len()
    );
    let excepted: BTreeSet<String> =
        NO_LIMITS.iter().flat_map(|(_, names)| *names).map(|n| n.to_string()).collect();
    let mut listed = BTreeSet::new();
    let mut offenders = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [what, _, why, place, hit_by] = &cells[..] else { panic!("no row of five cells: {row}") };
        if why.is_empty() {
            offenders.push(format!("{what}: there is no reason"));
        }
        let places = constants_named(place);
        let missing = places.iter().filter(|name| !constants.contains(*name));
        offenders.extend(missing.map(|name| format!("{what}: there is no constant {name}")));
        let named: Vec<&str> = quoted(hit_by).collect();
        let unknown = named.iter().filter(|name| !tests.contains(**name));
        offenders.extend(unknown.map(|name| format!("{what}: there is no test {name}")));
        if places.is_empty() || named.is_empty() {
            offenders.push(format!("{what}: no constant or no test is named"));
        }
        let twice = places.into_iter().filter_map(|name| listed.replace(name));
        offenders.extend(twice.map(|name| format!("{what}: {name} has another row")));
    }
    let unlisted = limits.iter().filter(|name| !listed.contains(*name) && !excepted.contains(*name));
    offenders.extend(unlisted.map(|name| format!("{name} is in no row")));
    let idle = excepted.iter().filter(|name| !limits.contains(*name) || listed.contains(*name));
    offenders.extend(idle.map(|name| format!("{name} needs no exception")));
    none(
        "the table of time-outs and limits in docs/architecture.md, and the constants in the code",
        offenders,
    );
}

#[test]
fn no_length_of_time_is_without_a_name() {
    let offenders =
        shipped().filter(|(path, _)| !BARE_TIMES.contains(&path.as_str())).flat_map(|(path, text)| {
            let is_bare = |line: &&str| {
                let code = line.split("//").next().unwrap_or_default();
                let mut times =
                    code.split("Duration::from_").skip(1).filter_map(|rest| rest.split('(').nth(1));
                constant(line).is_none()
                    && times.any(|amount| amount.starts_with(|c: char| c.is_ascii_digit()))
            };
            text.lines().filter(is_bare).map(|line| format!("{path}: {}", line.trim())).collect::<Vec<_>>()
        });
    none("lengths of time that are no named constants", offenders.collect());
}

/// The reasons in the table of this heading in docs/contract.md.
fn reasons_documented(heading: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(workspace().join("docs/contract.md")).unwrap();
    let (_, section) = text.split_once(&format!("### {heading}\n")).unwrap();
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).filter_map(|row| Some(quoted(row).next()?.to_string())).collect()
}

#[test]
fn every_reason_that_stats_tells_is_documented() {
    let squeezed = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(");
    let code: String = shipped().map(|(_, text)| squeezed(text)).collect();
    let behind = |start: &str| -> Vec<String> {
        let literals = code.split(start).skip(1).filter_map(|rest| rest.strip_prefix('"')?.split('"').next());
        literals.map(str::to_string).collect()
    };
    let labels =
        code.split("fn label(why: &Unstorable)").nth(1).and_then(|rest| rest.split(" } }").next()).unwrap();
    let labels = labels.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_string);
    let not_stored: BTreeSet<String> = behind("not_stored.count(").into_iter().chain(labels).collect();
    let degraded: BTreeSet<String> =
        ["degraded.count(", "Degraded(", "refuse(peers, "].into_iter().flat_map(behind).collect();
    assert!(
        not_stored.len() > 15 && degraded.len() > 8,
        "have they changed their shape? {not_stored:?} {degraded:?}"
    );
    assert_eq!(not_stored, reasons_documented("Why a result is not stored"));
    assert_eq!(degraded, reasons_documented("Why the cache did not work"));
}

#[test]
fn every_fault_point_is_struck_by_some_test() {
    let all = sources();
    let tests: String =
        all.iter().filter(|(p, _)| p.starts_with("integration-tests/tests")).map(|(_, t)| &**t).collect();
    let offenders = fault_points().into_iter().filter(|point| !tests.contains(&format!("\"{point}\"")));
    none("fault points that no test names", offenders.collect());
}

#[test]
fn every_licence_goes_with_ours() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ]);
    let output = command.current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 20);
    let allowed = |expression: &str| {
        let alternatives = expression.replace('/', " OR ");
        let known = |one: &str| LICENCES.contains(&one.trim_matches(['(', ')', ' ']));
        alternatives.split(" OR ").any(|one| one.split(" AND ").all(known))
            // `(A OR B) AND C`: every licence named in it is one of ours.
            || alternatives.split(" AND ").all(|all| all.split(" OR ").any(known))
    };
    let offenders = packages.iter().filter(|p| !allowed(p["license"].as_str().unwrap_or_default()));
    none("licences", offenders.map(|p| format!("{}: {}", p["name"], p["license"])).collect());
}
