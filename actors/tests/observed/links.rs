//! Links that are walked by us instead of being watched: what gcc learns of them must be demanded all the same.

use std::collections::HashSet;

use crate::observing::{Bench, Run};
use zccache_actors::observation::{Seen, Sighting};
use zccache_actors::observer::{Job, Unstorable};
use zccache_actors::plan::Policy;
use zccache_actors::signature::FileKind;
use zccache_proto::message::Exit;

/// Knows what gcc runs, and nothing else.
static GCC: Policy = Policy {
    family: "gcc",
    knows_program: |name| {
        [&b"gcc-12"[..], b"g++-12", b"cc1", b"cc1plus", b"as"].iter().any(|known| name.ends_with(known))
    },
    reads_links_on_its_way_only: true,
    ignored_reads: &[],
};

fn light(job: &mut Job) {
    job.policy = &GCC;
    job.foreign_code = false;
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

const SOURCES: &[&str] =
    &["plain", "libc", "long", "quoted", "sub", "up", "through", "linked_u", "has", "dangling", "cpp"];

fn canonical(bench: &Bench, s: &Sighting) -> String {
    let path = String::from_utf8(s.path.0.clone()).unwrap();
    if path.starts_with('/') { path } else { format!("{}{path}", bench.path("")) }
}

/// Which of the facts in `full` do not follow from those in `light`.
fn not_implied(bench: &Bench, full: &Run, light: &Run) -> Vec<String> {
    let key = |s: &Sighting| (canonical(bench, s), format!("{:?}", s.seen));
    let facts: HashSet<_> = light.observed.sightings.iter().map(key).collect();
    let absent: Vec<String> = light
        .observed
        .sightings
        .iter()
        .filter(|s| s.seen == Seen::Absent)
        .map(|s| canonical(bench, s))
        .collect();
    let is_implied = |s: &Sighting| {
        let path = canonical(bench, s);
        let is_way_to_absent = || absent.iter().any(|a| a.starts_with(&format!("{path}/")));
        match s.seen {
            _ if facts.contains(&key(s)) => true,
            // The way to what is missing may be shorter or longer: it is missing at its end.
            Seen::Absent => is_way_to_absent(),
            // Where a run starts is part of its request, and no link (`getcwd`).
            Seen::Kind { follow: false, kind: FileKind::Directory } => {
                bench.path("").starts_with(&format!("{path}/"))
            }
            _ => false,
        }
    };
    full.observed.sightings.iter().filter(|s| !is_implied(s)).map(|s| format!("{s:?}")).collect()
}

#[test]
fn walking_demands_all_that_watching_does() {
    let bench = Bench::new();
    furnish(&bench);
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
                for path in [format!("{source}.c"), bench.path(&format!("{source}.c"))] {
                    let arguments: Vec<&str> =
                        dirs.iter().copied().chain(["-g", "-c", &path, "-o", "x.o"]).collect();
                    let full = bench.run_with(tool, &arguments, |job| job.foreign_code = true);
                    let walked = bench.run_with(tool, &arguments, light);
                    assert_eq!(walked.observed.unstorable, None, "{tool} {arguments:?}");
                    assert_eq!(walked.observed.exit, full.observed.exit);
                    let lost = not_implied(&bench, &full, &walked);
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
    bench.write("computed.c", "#define H <a_long_name_of_a_header.h>\n#include H\n");
    let arguments = ["-isystem", &bench.path("include"), "-c", "computed.c"];
    let first = bench.run_with("gcc", &arguments, light);
    assert!(matches!(first.observed.unstorable, Some(Unstorable::NotObservable(_))), "{:?}", first.observed);
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
    let real = bench.path("the_gcc-12");
    std::fs::copy(std::fs::canonicalize("/usr/bin/gcc").unwrap(), &real).unwrap();
    let prefix = format!("-B{}", bench.path("bin/"));
    let arguments = [&prefix, "-c", "a.c", "-o", "a.o"];
    let first = bench.run_with(&real, &arguments, light);
    assert!(matches!(first.observed.unstorable, Some(Unstorable::NotObservable(_))), "{:?}", first.observed);
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
