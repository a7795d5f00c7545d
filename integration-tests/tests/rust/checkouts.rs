//! One workspace checked out at two places: what tells of its place is compiled for each, all else is shared.

use std::ffi::OsString;

use zccache_integration_tests::{Expect, Outcome, Sandbox, Scenario};

use super::{Cargo, counts, hits, misses, scenario};

const ONE: &str = "one/checkout";
const TWO: &str = "two/quite/elsewhere/checkout";

/// A workspace of a library, a program that uses it, and one that is alone and has a build script.
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", "[workspace]\nmembers = [\"low\", \"top\", \"alone\"]\nresolver = \"2\"\n"),
    ("low/Cargo.toml", "[package]\nname = \"low\"\nversion = \"0.1.0\"\nedition = \"2021\"\n"),
    (
        "low/src/lib.rs",
        "pub fn place() -> &'static str { file!() }\n\
         pub fn half(n: u32) -> u32 { let unused = 1; if n % 2 == 1 { panic!(\"odd\") } n / 2 }\n\
         #[test]\nfn halves() { assert_eq!(half(4), 2); }\n",
    ),
    (
        "top/Cargo.toml",
        "[package]\nname = \"top\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nlow = { path = \"../low\" }\n",
    ),
    (
        "top/src/main.rs",
        "fn main() { println!(\"{} {} {}\", low::place(), file!(), low::half(2)); low::half(3); }\n",
    ),
    (
        "alone/Cargo.toml",
        "[package]\nname = \"alone\"\nversion = \"0.1.0\"\nedition = \"2021\"\nbuild = \"build.rs\"\n",
    ),
    (
        "alone/build.rs",
        "fn main() { println!(\"cargo::rerun-if-changed=build.rs\\ncargo::rustc-env=MADE=here\"); }\n",
    ),
    (
        "alone/src/main.rs",
        "fn main() { println!(\"{} {}\", env!(\"MADE\"), file!()); None::<u32>.unwrap(); }\n",
    ),
];

/// The crates that a build of it compiles.
const CRATES: u64 = 4;

fn two_checkouts() -> Scenario {
    let s = scenario();
    for checkout in [ONE, TWO] {
        for (path, text) in FILES {
            s.write(&format!("{checkout}/{path}"), text);
        }
    }
    s
}

/// `cargo` in a checkout, with the checkout's path mapped away if `flags` say so (`HERE` stands for it).
#[track_caller]
fn build(s: &mut Scenario, directory: &'static str, flags: &str, expect: Expect, line: &str) -> Outcome {
    let here = s.sandbox.work().join(directory);
    let flags: OsString = flags.replace("HERE", &here.to_string_lossy()).into();
    Cargo { s, directory, vars: vec![("RUSTFLAGS", flags)] }.step(expect, line)
}

/// What a program says, once for each twin, without the number of its thread.
#[track_caller]
fn words(s: &mut Scenario, directory: &str, program: &str) -> String {
    let run = |sandbox: &Sandbox| {
        let mut command = sandbox.command("sh");
        command.args(["-c", "./$0 2>/dev/null; ./$0 2>&1 >/dev/null | sed 's/ ([0-9]*)//'", program]);
        command.current_dir(sandbox.work().join(directory));
        command
    };
    s.compare(Expect::Counts { hits: 0, misses: 0 }, run, run).out()
}

/// The files below a checkout's target directory, of those that the cached twin has, whose content says the path of a checkout.
fn tells(s: &Scenario, directory: &str, file: &str, of: &str) -> bool {
    let content =
        s.tree().file(&format!("{directory}/{file}")).unwrap_or_else(|| panic!("no {file}")).to_vec();
    let path = s.sandbox.work().join(of).into_os_string().into_encoded_bytes();
    content.windows(path.len()).any(|window| window == path)
}

const MAPPED: &str = "--remap-path-prefix=HERE=.";

#[test]
fn checkouts_whose_paths_are_mapped_away_share_all() {
    for line in ["build -q -j1", "build -q -j1 --release", "test -q -j1 --no-run", "check -q -j1"] {
        let mut s = two_checkouts();
        let before = s.sandbox.stats().counters;
        build(&mut s, ONE, MAPPED, Expect::Anything, line).expect_success();
        let first = s.sandbox.stats().counters - before;
        assert!(first.hits == 0 && first.misses >= CRATES, "{line}: {first:?}");
        let second = build(&mut s, TWO, MAPPED, hits(first.misses), line);
        assert!(second.err().contains("unused variable"), "{line}: {}", second.err());
        // Nothing is asked of the compiler again.
        build(&mut s, TWO, MAPPED, counts(0, 0), line);
        if line == "build -q -j1" {
            for checkout in [ONE, TWO] {
                let said = words(&mut s, checkout, "target/debug/top");
                assert!(said.contains("low/src/lib.rs top/src/main.rs 1\n"), "{said}");
                assert!(said.contains("panicked at low/src/lib.rs:2"), "{said}");
                assert!(!tells(&s, TWO, "target/debug/top", checkout));
            }
        }
    }
}

#[test]
fn what_tells_of_its_checkout_is_not_shared() {
    let mut s = two_checkouts();
    build(&mut s, ONE, "", misses(CRATES), "build -q -j1").expect_success();
    // The build script has no debug information; libraries and programs tell where they were compiled.
    build(&mut s, TWO, "", counts(1, CRATES - 1), "build -q -j1").expect_success();
    for program in ["target/debug/top", "target/debug/alone", "target/debug/liblow.rlib"] {
        for checkout in [ONE, TWO] {
            let other = if checkout == ONE { TWO } else { ONE };
            assert!(tells(&s, checkout, program, checkout), "{checkout} {program}");
            assert!(!tells(&s, checkout, program, other), "{checkout} {program}");
        }
    }
    // Without debug information, only the library and what is made of its metadata do.
    build(&mut s, ONE, "", misses(CRATES), "build -q -j1 --release").expect_success();
    build(&mut s, TWO, "", hits(2), "build -q -j1 --release -p alone").expect_success();
    build(&mut s, TWO, "", misses(2), "build -q -j1 --release").expect_success();
    for checkout in [ONE, TWO] {
        let said = words(&mut s, checkout, "target/release/alone");
        assert!(said.contains("here alone/src/main.rs\n"), "{said}");
        assert!(said.contains("panicked at alone/src/main.rs:1"), "{said}");
    }
}

#[test]
fn each_checkout_is_compiled_as_it_is() {
    let mut s = two_checkouts();
    let line = "build -q -j1";
    build(&mut s, ONE, MAPPED, misses(CRATES), line).expect_success();
    // An edit of one is none of the other; made there as well, it is known.
    let text = "pub fn place() -> &'static str { include_str!(\"../../text\") }\npub fn half(n: u32) -> u32 { n / 2 }\n";
    s.write(&format!("{TWO}/low/src/lib.rs"), text);
    s.write(&format!("{TWO}/text"), "two");
    build(&mut s, TWO, MAPPED, counts(CRATES - 2, 2), line).expect_success();
    build(&mut s, ONE, MAPPED, counts(0, 0), line).expect_success();
    s.write(&format!("{ONE}/low/src/lib.rs"), text);
    s.write(&format!("{ONE}/text"), "one");
    build(&mut s, ONE, MAPPED, misses(2), line).expect_success();
    assert!(words(&mut s, ONE, "target/debug/top").starts_with("one top/src/main.rs 1\n"));
    s.write(&format!("{ONE}/text"), "two");
    build(&mut s, ONE, MAPPED, hits(2), line).expect_success();
    assert!(words(&mut s, ONE, "target/debug/top").starts_with("two top/src/main.rs 1\n"));
    // A module that only one of them has, where the other has it in another file.
    s.write(&format!("{ONE}/low/src/lib.rs"), format!("mod more;\n{text}"));
    s.write(&format!("{ONE}/low/src/more.rs"), "");
    build(&mut s, ONE, MAPPED, misses(2), line).expect_success();
    s.write(&format!("{TWO}/low/src/lib.rs"), format!("mod more;\n{text}"));
    assert!(!build(&mut s, TWO, MAPPED, misses(1), line).success());
    s.write(&format!("{TWO}/low/src/more/mod.rs"), "");
    build(&mut s, TWO, MAPPED, misses(2), line).expect_success();
    s.edit(|work| {
        std::fs::rename(work.join(TWO).join("low/src/more/mod.rs"), work.join(TWO).join("low/src/more.rs"))
            .unwrap()
    });
    build(&mut s, TWO, MAPPED, Expect::Anything, line).expect_success();
}

#[test]
fn sources_that_ask_where_they_are_are_told() {
    let mut s = two_checkouts();
    for checkout in [ONE, TWO] {
        // The path itself, and what is made of it, which nobody finds by a search.
        let text = "pub fn place() -> &'static str { env!(\"CARGO_MANIFEST_DIR\") }\n\
                    pub fn half(n: u32) -> u32 { n + env!(\"CARGO_MANIFEST_DIR\").len() as u32 }\n";
        s.write(&format!("{checkout}/low/src/lib.rs"), text);
    }
    build(&mut s, ONE, MAPPED, misses(CRATES), "build -q -j1").expect_success();
    build(&mut s, TWO, MAPPED, counts(CRATES - 2, 2), "build -q -j1").expect_success();
    for checkout in [ONE, TWO] {
        let place = s.sandbox.work().join(checkout).join("low");
        let said = words(&mut s, checkout, "target/debug/top");
        let length = place.as_os_str().len() + 2;
        assert!(said.starts_with(&format!("{} top/src/main.rs {length}\n", place.display())), "{said}");
    }
    // Only the length, in a program without debug information: no path is to be seen anywhere.
    for checkout in [ONE, TWO] {
        let text = "fn main() { println!(\"{}\", const { env!(\"CARGO_MANIFEST_DIR\").len() }); }\n";
        s.write(&format!("{checkout}/alone/src/main.rs"), text);
    }
    let release = "build -q -j1 --release -p alone";
    build(&mut s, ONE, "", misses(2), release).expect_success();
    build(&mut s, TWO, "", counts(1, 1), release).expect_success();
    for checkout in [ONE, TWO] {
        let length = s.sandbox.work().join(checkout).join("alone").as_os_str().len();
        assert!(words(&mut s, checkout, "target/release/alone").starts_with(&format!("{length}\n")));
    }
}

#[test]
fn maps_that_take_away_more_or_less_than_the_checkout_share_nothing_wrong() {
    let mut s = two_checkouts();
    let above = s.sandbox.work().to_string_lossy().into_owned();
    for flags in [
        // What is left of the path tells where it was.
        format!("--remap-path-prefix={above}=x"),
        format!("--remap-path-prefix=HERE=. --remap-path-prefix={above}=x"),
        // Debug information keeps it.
        "--remap-path-prefix=HERE=. --remap-path-scope=macro".to_string(),
        // A name for each.
        "--remap-path-prefix=HERE=/checkouts/HERE".to_string(),
    ] {
        for checkout in [ONE, TWO] {
            let before = s.sandbox.stats().counters;
            build(&mut s, checkout, &flags, Expect::Anything, "build -q -j1").expect_success();
            let delta = s.sandbox.stats().counters - before;
            assert!(delta.misses >= CRATES - 1, "{flags}: {delta:?}");
        }
    }
}

#[test]
fn target_directories_may_be_outside_of_the_checkouts() {
    let mut s = two_checkouts();
    for (checkout, target, expect) in [
        (ONE, "targets/first", misses(CRATES)),
        (TWO, "targets/second", hits(CRATES)),
        (TWO, "targets/first", hits(CRATES)),
    ] {
        let flags = MAPPED.replace("HERE", &s.sandbox.work().join(checkout).to_string_lossy());
        let target = s.sandbox.work().join(target);
        if target.ends_with("first") && checkout == TWO {
            s.edit(|work| std::fs::remove_dir_all(work.join("targets/first")).unwrap());
        }
        let vars = vec![("RUSTFLAGS", flags.into()), ("CARGO_TARGET_DIR", target.into_os_string())];
        Cargo { s: &mut s, directory: checkout, vars }.step(expect, "build -q -j1").expect_success();
    }
}
