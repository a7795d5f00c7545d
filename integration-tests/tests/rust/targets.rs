//! Targets that are files of the user's, and switches that are not for everybody: `RUSTC_BOOTSTRAP`, `-Z`, encoded flags.

use std::process::Command;

use zccache_integration_tests::{Expect, Scenario};

use super::{Cargo, counts, hits, misses, scenario, sysroot};

/// What the compiler says of the machine that it runs on, as the description of a target.
fn described() -> String {
    let mut command = Command::new(sysroot().join("bin/rustc"));
    command.args(["-Zunstable-options", "--print", "target-spec-json"]).env("RUSTC_BOOTSTRAP", "1");
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// The same with frame pointers or without, which shows in the code.
fn with_frame_pointers(wish: &str) -> String {
    let text = described();
    let line = |line: &&str| !line.contains("\"frame-pointer\"");
    let others: Vec<&str> = text.lines().filter(line).collect();
    others.join("\n").replacen('{', &format!("{{\n  \"frame-pointer\": \"{wish}\","), 1)
}

/// A crate that needs no other: of a target that is made up there are none.
const ALONE: &str = "#![feature(no_core, lang_items)]\n#![no_core]\n#[lang = \"pointee_sized\"] trait PointeeSized {}\n\
    #[lang = \"meta_sized\"] trait MetaSized: PointeeSized {}\n#[lang = \"sized\"] trait Sized: MetaSized {}\n\
    #[lang = \"copy\"] trait Copy {}\nimpl Copy for u32 {}\n\
    #[no_mangle] pub extern \"C\" fn same(x: u32) -> u32 { x }\n";

#[test]
fn an_edited_description_of_a_target_is_another_target() {
    let mut s = scenario();
    s.sandbox.set("RUSTC_BOOTSTRAP", "1");
    s.write("a.rs", ALONE);
    s.write("specs/mine.json", with_frame_pointers("always"));
    let line = "rustc -Zunstable-options --crate-type lib --emit obj --target specs/mine.json a.rs";
    s.step(Expect::Miss, line).expect_success();
    s.step(Expect::Hit, line);
    let with = s.tree().file("a.o").unwrap().to_vec();
    s.rewrite("specs/mine.json", with_frame_pointers("may-omit"));
    s.step(Expect::Miss, line).expect_success();
    assert_ne!(s.tree().file("a.o").unwrap(), with, "the target shows in the code");
    s.write("specs/mine.json", "{ no target }");
    assert!(!s.step(Expect::Run, line).success());
    s.remove("specs/mine.json");
    assert!(!s.step(Expect::Run, line).success());
    s.write("specs/mine.json", with_frame_pointers("always"));
    s.step(Expect::Hit, line).expect_success();
}

#[test]
fn a_target_is_looked_for_by_its_name_each_time() {
    let mut s = scenario();
    s.sandbox.set("RUSTC_BOOTSTRAP", "1");
    s.write("a.rs", ALONE);
    s.edit(|work| ["near", "far"].iter().for_each(|dir| std::fs::create_dir(work.join(dir)).unwrap()));
    let work = s.sandbox.work();
    s.sandbox.set("RUST_TARGET_PATH", format!("{0}/near:{0}/far", work.display()));
    let line = "rustc -Zunstable-options --crate-type lib --emit obj --target mine a.rs";
    // Nowhere, then at the second place, then at the first.
    assert!(!s.step(Expect::Miss, line).success());
    s.write("far/mine.json", with_frame_pointers("always"));
    s.step(Expect::Miss, line).expect_success();
    s.step(Expect::Hit, line);
    let with = s.tree().file("a.o").unwrap().to_vec();
    s.write("near/mine.json", with_frame_pointers("may-omit"));
    s.step(Expect::Miss, line).expect_success();
    assert_ne!(s.tree().file("a.o").unwrap(), with);
    s.remove("near/mine.json");
    s.step(Expect::Hit, line).expect_success();
    assert_eq!(s.tree().file("a.o").unwrap(), with);
    // Another path to look for it.
    s.write("near/mine.json", with_frame_pointers("may-omit"));
    s.sandbox.set("RUST_TARGET_PATH", work.join("far"));
    s.step(Expect::Miss, line).expect_success();
    assert_eq!(s.tree().file("a.o").unwrap(), with);
}

#[test]
fn switches_for_unstable_features_are_inputs() {
    let mut s = scenario();
    s.write("a.rs", "#![feature(never_type)]\npub fn f() -> ! { loop {} }\n");
    let line = "rustc --crate-type lib --emit=metadata a.rs";
    let is_stable = !s.step(Expect::Miss, line).success();
    s.sandbox.set("RUSTC_BOOTSTRAP", "1");
    s.step(Expect::Miss, line).expect_success();
    s.step(Expect::Hit, line);
    // For a crate of another name.
    s.sandbox.set("RUSTC_BOOTSTRAP", "b");
    assert_eq!(s.step(Expect::Miss, line).success(), !is_stable);
    s.sandbox.unset("RUSTC_BOOTSTRAP");
    assert_eq!(s.step(Expect::Anything, line).success(), !is_stable);
    s.sandbox.set("RUSTC_BOOTSTRAP", "1");
    s.step(Expect::Hit, line).expect_success();
    for option in ["-Zmir-opt-level=0", "-Zmir-opt-level=3", "-Z share-generics=y"] {
        let line = format!("{line} {option}");
        s.step(Expect::Miss, &line).expect_success();
        s.step(Expect::Hit, &line);
    }
}

#[test]
fn flags_by_variable_are_flags_however_they_are_given() {
    let mut s = scenario();
    s.write("Cargo.toml", "[package]\nname = \"flags\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    s.write("src/main.rs", "fn main() { println!(\"{}\", cfg!(wish = \"two words\")); }\n");
    let forget = |s: &Scenario| s.edit(|work| std::fs::remove_dir_all(work.join("target")).unwrap());
    let build =
        |s: &mut Scenario, vars: Vec<(&'static str, std::ffi::OsString)>, expect: Expect, said: &str| {
            Cargo { s, directory: "", vars }.step(expect, "build -q").expect_success();
            let run = |sandbox: &zccache_integration_tests::Sandbox| sandbox.command("target/debug/flags");
            assert_eq!(s.compare(Expect::Anything, run, run).out().trim(), said);
        };
    let encoded =
        || vec![("CARGO_ENCODED_RUSTFLAGS", "--cfg\u{1f}wish=\"two words\"\u{1f}-Awarnings".into())];
    build(&mut s, encoded(), misses(1), "true");
    build(&mut s, vec![], misses(1), "false");
    forget(&s);
    build(&mut s, encoded(), hits(1), "true");
    build(&mut s, vec![("RUSTFLAGS", "-Copt-level=1".into())], misses(1), "false");
    forget(&s);
    build(&mut s, vec![("CARGO_ENCODED_RUSTFLAGS", "-Copt-level=1".into())], hits(1), "false");
    s.write(".cargo/config.toml", "[build]\nrustflags = [\"-Copt-level=1\"]\n");
    forget(&s);
    build(&mut s, vec![], hits(1), "false");
    build(&mut s, vec![], counts(0, 0), "false");
}
