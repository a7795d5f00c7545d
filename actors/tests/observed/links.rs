//! Links that are walked by us instead of being watched: what gcc learns of them must be demanded all the same.

#![expect(clippy::unwrap_used, reason = "part of a test: what cannot be is a failure of the test")]

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::observing::{Bench, Run};
use zccache_actors::observation::{Seen, Sighting, Spelled};
use zccache_actors::observer::{Job, Unstorable};
use zccache_actors::plan::{Caution, Policy};
use zccache_actors::signature::FileKind;
use zccache_proto::message::Exit;

/// Knows what gcc runs, and nothing else.
static GCC: Policy = Policy {
    family: "gcc",
    knows_program: |name| {
        [&b"gcc-12"[..], b"g++-12", b"cc1", b"cc1plus", b"as"].iter().any(|known| name.ends_with(known))
    },
    reads_links_on_its_way_only: true,
    searches: |name| name.starts_with(b"cc1"),
    ignored_reads: &[],
    review: None,
    caution: Caution { harmless: |_| true, ..Caution::NONE },
};

fn light(job: &mut Job) {
    job.policy = &GCC;
    job.foreign_code = false;
    let source = job.invocation.argv.iter().find(|argument| argument.ends_with(b".c"));
    job.declared.source = source.map(|path| Spelled(path.to_vec()));
}

/// Files, directories and links of all kinds.
fn furnish(bench: &Bench) {
    bench.write("s/r.h", "#include \"t.h\"\nstatic const char *r = __FILE__;\n");
    bench.write("s/t.h", "int t;\n");
    bench.write("s/deep/down/u.h", "#include \"../v.h\"\n");
    bench.write("s/deep/v.h", "#include \"w.h\"\nint v;\n");
    bench.write("s/deep/real_w.h", "int w;\n");
    bench.write("include/a.h", "#include <sub/b.h>\n#include \"sub/c.h\"\nint a;\n");
    bench.write("include/real_sub/b.h", "int b;\n");
    bench.write("include/real_sub/c.h", "int c;\n");
    for (target, name) in [
        ("../s/r.h", "include/a_long_name_of_a_header.h"),
        ("real_sub", "include/sub"),
        ("real_w.h", "s/deep/w.h"),
        ("include", "linked_include"),
        ("linked_include", "twice_linked_include"),
        ("s/deep", "deep_link"),
        ("s/deep/down/u.h", "include/../linked_u.h"),
        ("nowhere", "include/dangling.h"),
        ("include/real_sub", "out"),
    ] {
        bench.symlink(target, name);
    }
    for (name, text) in [
        ("plain", "int x;\n"),
        ("libc", "#include <stdio.h>\n#include <stdlib.h>\n#include <limits.h>\n"),
        ("long", "#include <a_long_name_of_a_header.h>\n"),
        ("quoted", "#include \"a_long_name_of_a_header.h\"\n"),
        ("sub", "#include <a.h>\n"),
        ("up", "#include <../s/deep/down/u.h>\n"),
        ("through", "#include \"deep_link/down/../w.h\"\n#include \"include/sub/../a.h\"\n"),
        ("linked_u", "#include \"linked_u.h\"\n"),
        (
            "has",
            "#if __has_include(<a_long_name_of_a_header.h>) && !__has_include(\"none.h\")\nint h;\n#endif\n",
        ),
        ("dangling", "#if __has_include(<dangling.h>)\n#error\n#endif\n#include <missing/x.h>\n"),
        ("cpp", "#ifdef __cplusplus\n#include <vector>\n#include <map>\n#endif\n"),
    ] {
        bench.write(&format!("{name}.c"), text);
    }
}

/// What changed in the same tick of the clock as a run began may have changed after.
fn let_time_pass() {
    std::thread::sleep(Duration::from_millis(15));
}

const SOURCES: &[&str] =
    &["plain", "libc", "long", "quoted", "sub", "up", "through", "linked_u", "has", "dangling", "cpp"];

fn canonical(bench: &Bench, s: &Sighting) -> String {
    let path = String::from_utf8(s.path.0.clone()).unwrap();
    if path.starts_with('/') { path } else { format!("{}{path}", bench.path("")) }
}

/// The path without links, as far as it exists.
fn resolved(path: &str) -> String {
    let mut left = PathBuf::new();
    let mut there = PathBuf::from(path);
    loop {
        if let Ok(real) = std::fs::canonicalize(&there) {
            // (Joining nothing would leave a slash.)
            let path: PathBuf = real.components().chain(left.components()).collect();
            return path.into_os_string().into_string().unwrap();
        }
        let Some(name) = there.components().next_back().map(|c| PathBuf::from(c.as_os_str())) else {
            return path.into();
        };
        left = name.join(left);
        there.pop();
    }
}

/// Which of the facts in `full` do not follow from those in `light`.
fn not_implied(bench: &Bench, full: &Run, light: &Run) -> Vec<String> {
    let key = |s: &Sighting| (canonical(bench, s), format!("{:?}", s.seen));
    let facts: HashSet<_> = light.observed.sightings.iter().map(key).collect();
    let resolved_where = |wanted: fn(&Seen) -> bool| -> HashSet<String> {
        let found = light.observed.sightings.iter().filter(|s| wanted(&s.seen));
        found.map(|s| resolved(&canonical(bench, s))).collect()
    };
    let absent = resolved_where(|seen| *seen == Seen::Absent);
    // A file that is read must not become a link itself; so much is checked with its content.
    let own_name = |s: &Sighting| {
        let path = canonical(bench, s);
        let (directory, last) = path.rsplit_once('/').unwrap();
        format!("{}/{last}", resolved(&format!("{directory}/")))
    };
    let reads = light.observed.sightings.iter().filter(|s| matches!(s.seen, Seen::Read { .. }));
    let read: HashSet<String> = reads.map(own_name).collect();
    let has_kind = |path: &str, kind| {
        facts.contains(&(path.to_string(), format!("{:?}", Seen::Kind { follow: false, kind })))
    };
    // Absent, and yet a link is there (to nothing): no check lets that pass.
    let never_holds = light.observed.sightings.iter().any(|s| {
        s.seen == Seen::Absent && std::fs::symlink_metadata(canonical(bench, s)).is_ok_and(|m| m.is_symlink())
    });
    let is_implied = |s: &Sighting| {
        let path = canonical(bench, s);
        match s.seen {
            _ if never_holds || facts.contains(&key(s)) => true,
            // What is missing at its end may be missing on the way as well.
            // (And the run's own output, asked for by its real path, says nothing.)
            Seen::Absent => {
                let path = resolved(&path);
                let is_output = light
                    .observed
                    .effects
                    .iter()
                    .any(|e| resolved(&bench.path(&String::from_utf8_lossy(&e.path.0))) == path);
                is_output || absent.iter().any(|a| *a == path || a.starts_with(&format!("{path}/")))
            }
            // Where a run starts is part of its request, and no link (`getcwd`).
            Seen::Kind { follow: false, kind: FileKind::Directory } => {
                bench.path("").starts_with(&format!("{path}/"))
            }
            Seen::Kind { follow: true, kind: FileKind::Directory } => has_kind(&path, FileKind::Directory),
            // To be no link is all that `readlink` tells of it; it is read by another name.
            Seen::Kind { follow: false, kind: FileKind::File } => read.contains(&path),
            _ => false,
        }
    };
    let text = |s: &Sighting| format!("{} {:?}", String::from_utf8_lossy(&s.path.0), s.seen);
    full.observed.sightings.iter().filter(|s| !is_implied(s)).map(text).collect()
}

#[test]
fn walking_demands_all_that_watching_does() {
    let bench = Bench::new();
    furnish(&bench);
    let_time_pass();
    let absolute = bench.path("twice_linked_include");
    for tool in ["gcc", "g++"] {
        for dirs in [
            &["-isystem", "include"][..],
            &["-isystem", &absolute],
            &["-Iinclude"],
            &["-isystem", "./s/../linked_include/sub/.."],
            &["-isystem", "missing", "-isystem", "linked_include", "-Ideep_link"],
            &["-iquote", "include", "-idirafter", &absolute],
        ] {
            for source in SOURCES {
                if *source == "cpp" && dirs.len() > 2 {
                    continue; // Large, and the directories make no difference to it.
                }
                for path in [format!("{source}.c"), bench.path(&format!("{source}.c"))] {
                    let arguments: Vec<&str> =
                        dirs.iter().copied().chain(["-g", "-c", &path, "-o", "out/x.o"]).collect();
                    let _ = std::fs::remove_file(bench.path("out/x.o"));
                    let full = bench.run_with(tool, &arguments, |job| job.foreign_code = true);
                    let _ = std::fs::remove_file(bench.path("out/x.o"));
                    let walked = bench.run_with(tool, &arguments, light);
                    assert_eq!(walked.observed.unstorable, None, "{tool} {arguments:?}");
                    assert_eq!(walked.observed.exit, full.observed.exit);
                    let mut lost = not_implied(&bench, &full, &walked);
                    // A failing run's temporary files, which have other names each time.
                    lost.retain(|fact| !(fact.starts_with("/tmp/cc") && fact.ends_with(" Absent")));
                    assert!(lost.is_empty(), "{tool} {arguments:?}: {lost:#?}");
                }
            }
        }
    }
}

#[test]
fn a_header_that_is_opened_by_its_shorter_real_path_keeps_its_link() {
    let bench = Bench::new();
    furnish(&bench);
    let_time_pass();
    let include = bench.path("include");
    let run = bench.run_with("gcc", &["-isystem", &include, "-c", "long.c"], light);
    assert_eq!((run.observed.exit, &run.observed.unstorable), (Exit::Code(0), &None));
    let link = bench.path("include/a_long_name_of_a_header.h");
    let is_link = |s: &&Sighting| s.path.0 == link.as_bytes();
    let seen: Vec<_> = run.observed.sightings.iter().filter(is_link).map(|s| &s.seen).collect();
    assert!(matches!(seen[..], [Seen::Symlink { target }] if target.0 == b"../s/r.h"), "{seen:?}");
}

#[test]
fn headers_that_no_text_names_are_watched_from_the_next_run_on() {
    let bench = Bench::new();
    furnish(&bench);
    let_time_pass();
    // In a header: a source that does so is watched in full at once.
    bench.write("computed.h", "#define H <a_long_name_of_a_header.h>\n#include H\n");
    bench.write("computed.c", "#include \"computed.h\"\n");
    let arguments = ["-isystem", &bench.path("include"), "-c", "computed.c"];
    let first = bench.run_with("gcc", &arguments, light);
    assert!(matches!(first.observed.unstorable, Some(Unstorable::NotObservable(_))), "{}", first.stderr());
    let second = bench.run_with("gcc", &arguments, light);
    assert_eq!(second.observed.unstorable, None);
    let full = bench.run_with("gcc", &arguments, |job| job.foreign_code = true);
    assert_eq!(not_implied(&bench, &full, &second), [""; 0]);
}

#[test]
fn unknown_programs_are_watched_from_the_next_run_on() {
    let bench = Bench::new();
    bench.write("a.c", "int x;\n");
    bench.write("target", "");
    bench.symlink("target", "link");
    // An assembler of one's own, found by an option that the plan would call foreign.
    bench.script("bin/as", "#!/bin/sh\nreadlink link >&2\nexec /usr/bin/as \"$@\"\n");
    bench.symlink("/usr/bin/gcc", "gcc-12");
    let_time_pass();
    let real = bench.path("gcc-12");
    let prefix = format!("-B{}", bench.path("bin/"));
    let arguments = [&prefix, "-c", "a.c", "-o", "a.o"];
    let first = bench.run_with(&real, &arguments, light);
    assert!(matches!(first.observed.unstorable, Some(Unstorable::NotObservable(_))), "{}", first.stderr());
    let second = bench.run_with(&real, &arguments, light);
    assert_eq!(second.observed.unstorable, None, "{}", second.stderr());
    assert!(
        second
            .observed
            .sightings
            .iter()
            .any(|s| matches!(s.seen, Seen::Symlink { .. }) && s.path.0 == b"link")
    );
}

#[test]
fn a_script_in_the_tools_place_is_watched_at_once() {
    let bench = Bench::new();
    bench.write("a.c", "int x;\n");
    bench.symlink("a.c", "link");
    bench.script("gcc-12", "#!/bin/sh\nreadlink link >&2\nexec gcc \"$@\"\n");
    let run = bench.run_with("./gcc-12", &["-c", "a.c"], light);
    assert_eq!(run.observed.unstorable, None);
    assert!(
        run.observed.sightings.iter().any(|s| matches!(s.seen, Seen::Symlink { .. }) && s.path.0 == b"link")
    );
}
