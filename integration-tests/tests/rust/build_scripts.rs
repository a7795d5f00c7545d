//! Build scripts that compile C with the `cc` crate, the one that this project itself is built with.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use zccache_integration_tests::sandbox::system_tool;
use zccache_integration_tests::{Expect, Sandbox, Scenario};

use super::{Cargo, counts, scenario};

/// The source of a crate that this workspace is built with, where Cargo unpacked it.
fn unpacked(name: &str) -> PathBuf {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    let after = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1);
    let version =
        after.and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("{name} is not locked"));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"));
    let registries = std::fs::read_dir(home.join("registry/src")).unwrap().map(|entry| entry.unwrap().path());
    let found =
        registries.map(|registry| registry.join(format!("{name}-{version}"))).find(|place| place.exists());
    found.unwrap_or_else(|| panic!("{name}-{version} is not unpacked in {}", home.display()))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        match path.is_dir() {
            true => copy(&path, &to),
            false => _ = std::fs::copy(&path, &to).unwrap(),
        }
    }
}

/// A package whose build script compiles two C files with a header of theirs.
fn package() -> Scenario {
    let s = scenario();
    let vendor = s.sandbox.path("vendor");
    for name in ["cc", "shlex", "find-msvc-tools"] {
        copy(&unpacked(name), &vendor.join(name));
        std::fs::write(vendor.join(name).join(".cargo-checksum.json"), "{\"files\":{}}").unwrap();
    }
    let config = format!(
        "[source.crates-io]\nreplace-with = \"v\"\n[source.v]\ndirectory = \"{}\"\n",
        vendor.display()
    );
    s.sandbox.write(&s.sandbox.path("home/.cargo/config.toml").to_string_lossy(), config);
    for (path, text) in [
        (
            "Cargo.toml",
            "[package]\nname = \"uses-c\"\nversion = \"0.1.0\"\nedition = \"2021\"\nbuild = \"build.rs\"\n[build-dependencies]\ncc = \"1\"\n",
        ),
        (
            "build.rs",
            "fn main() {\n    println!(\"cargo::rerun-if-changed=c\");\n    cc::Build::new().files([\"c/one.c\", \"c/two.c\"]).include(\"c\").flag_if_supported(\"-fno-such-flag\")\n\
                 .define(\"BY\", \"40\").warnings(true).compile(\"native\");\n}\n",
        ),
        ("c/number.h", "#define NUMBER 2\n"),
        ("c/one.c", "#include \"number.h\"\nint one(void) { return NUMBER; }\n"),
        ("c/two.c", "int two(void) { int unused; return BY; }\n"),
        (
            "src/main.rs",
            "extern \"C\" { fn one() -> i32; fn two() -> i32; }\nfn main() { println!(\"{}\", unsafe\n{ one() + two() }); }\n",
        ),
    ] {
        s.write(path, text);
    }
    s
}

/// Builds the package, and says what its program says.
#[track_caller]
fn build(s: &mut Scenario, vars: &[(&'static str, OsString)], expect: Expect) -> String {
    Cargo { s, directory: "", vars: vars.to_vec() }.step(expect, "build -q -j1").expect_success();
    let run = |sandbox: &Sandbox| sandbox.command("target/debug/uses-c");
    s.compare(Expect::Anything, run, run).out()
}

/// The same into an empty target directory; and how many hits and misses it was.
#[track_caller]
fn build_anew(s: &mut Scenario, vars: &[(&'static str, OsString)], said: &str) -> (u64, u64) {
    s.edit(|work| drop(std::fs::remove_dir_all(work.join("target"))));
    let before = s.sandbox.stats().counters;
    assert_eq!(build(s, vars, Expect::Anything), said);
    let delta = s.sandbox.stats().counters - before;
    (delta.hits, delta.misses)
}

/// The compiles of a build: the crate, its build script, three crates of that, and two C files.
const COMPILES: u64 = 7;

fn c_goes_through_the_cache(s: &mut Scenario, vars: &[(&'static str, OsString)]) {
    let (hits, misses) = build_anew(s, vars, "42\n");
    assert!(hits == 0 && misses >= COMPILES, "{hits}/{misses}");
    // What the crate tries out is served as well.
    let (hits, misses) = build_anew(s, vars, "42\n");
    assert!(hits >= COMPILES && misses == 0, "{hits}/{misses}");
    build(s, vars, counts(0, 0));
    // The header is of one file alone; the program is linked anew.
    s.write("c/number.h", "#define NUMBER 3\n");
    let (hits, misses) = build_anew(s, vars, "43\n");
    assert!(hits >= COMPILES - 2 && misses == 2, "{hits}/{misses}");
    s.write("c/number.h", "#define NUMBER 2\n");
    assert_eq!(build_anew(s, vars, "42\n").1, 0);
}

#[test]
fn c_that_the_cc_crate_compiles_goes_through_the_cache() {
    let mut s = package();
    let vars = [("CC", "zccache cc".into()), ("CC_KNOWN_WRAPPER_CUSTOM", "zccache".into())];
    c_goes_through_the_cache(&mut s, &vars);
}

#[test]
fn c_that_the_cc_crate_compiles_by_a_link_goes_through_the_cache() {
    let mut s = package();
    let bin = s.sandbox.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let path = s.sandbox.var("PATH").into_string().unwrap();
    let wrapper = std::env::split_paths(&path).map(|dir| dir.join("zccache")).find(|file| file.exists());
    std::os::unix::fs::symlink(wrapper.unwrap(), bin.join("cc")).unwrap();
    let vars = [
        ("PATH", format!("{}:{path}", bin.display()).into()),
        // rustc links by `cc` as well, and would not be stored while it runs us.
        ("RUSTFLAGS", format!("-Clinker={}", system_tool("cc").display()).into()),
    ];
    c_goes_through_the_cache(&mut s, &vars);
}
