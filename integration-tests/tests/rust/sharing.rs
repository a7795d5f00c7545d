//! Results of crates that lie at one place, for builds that have their results elsewhere: two target directories of one
//! workspace, and two projects that depend on one crate of a registry.

use zccache_integration_tests::{Expect, Scenario};

use super::{Cargo, counts, scenario};

const ONE: &str = "one/project";
const TWO: &str = "two/somewhere/else/project";

/// A registry of crates as source files, as `cargo vendor` makes it, and two projects that use it. `plain` has nothing to
/// do with where it is built, `maker` includes what its build script makes, `mac` is a macro that `user` uses.
fn two_projects() -> Scenario {
    let s = scenario();
    let vendor = s.sandbox.path("vendor");
    let krate = |name: &str, more: &str, files: &[(&str, &str)]| {
        let manifest =
            format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2021\"\n{more}");
        s.sandbox.write(&vendor.join(name).join("Cargo.toml").to_string_lossy(), manifest);
        let checksum =
            "{\"files\":{},\"package\":\"0000000000000000000000000000000000000000000000000000000000000000\"}";
        s.sandbox.write(&vendor.join(name).join(".cargo-checksum.json").to_string_lossy(), checksum);
        for (path, text) in files {
            s.sandbox.write(&vendor.join(name).join(path).to_string_lossy(), text);
        }
    };
    krate("plain", "", &[("src/lib.rs", "pub fn place() -> &'static str { file!() }\n")]);
    krate(
        "mac",
        "[lib]\nproc-macro = true\n",
        &[(
            "src/lib.rs",
            "#[proc_macro]\npub fn m(t: proc_macro::TokenStream) -> proc_macro::TokenStream { t }\n",
        )],
    );
    krate(
        "user",
        "[dependencies]\nmac = \"1\"\nplain = \"1\"\n",
        &[("src/lib.rs", "pub fn g() -> usize { mac::m!(plain::place().len()) }\n")],
    );
    krate(
        "maker",
        "build = \"build.rs\"\n",
        &[
            (
                "build.rs",
                "fn main() { let out = std::env::var(\"OUT_DIR\").unwrap(); std::fs::write(out + \"/made.rs\", \"pub fn made() -> &'static str { file!() }\").unwrap(); }\n",
            ),
            ("src/lib.rs", "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n"),
        ],
    );
    let config = format!(
        "[source.crates-io]\nreplace-with = \"v\"\n[source.v]\ndirectory = \"{}\"\n",
        vendor.display()
    );
    s.sandbox.write(&s.sandbox.path("home/.cargo/config.toml").to_string_lossy(), config);
    for project in [ONE, TWO] {
        s.write(
            &format!("{project}/Cargo.toml"),
            "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nplain = \"1\"\nuser = \"1\"\nmaker = \"1\"\n",
        );
        s.write(
            &format!("{project}/src/main.rs"),
            "fn main() { println!(\"{} {} {}\", plain::place(), user::g(), maker::made()); }\n",
        );
    }
    s
}

#[track_caller]
fn build(s: &mut Scenario, directory: &'static str, expect: Expect) {
    Cargo { s, directory, vars: Vec::new() }.step(expect, "build -q -j1").expect_success();
    let program = |sandbox: &zccache_integration_tests::Sandbox| {
        sandbox.command(sandbox.work().join(directory).join("target/debug/project"))
    };
    let said = s.compare(Expect::Anything, program, program).out();
    // What is made in a directory says so.
    let made = s.sandbox.work().join(directory).join("target");
    assert!(said.contains(&*made.to_string_lossy()), "{said}");
}

#[test]
fn crates_of_a_registry_are_shared_between_projects() {
    let mut s = two_projects();
    build(&mut s, ONE, Expect::Counts { hits: 0, misses: 6 });
    // All but the one that includes what was made in the target directory, and the project itself.
    build(&mut s, TWO, counts(4, 2));
    // Nothing is asked of the compiler again.
    build(&mut s, TWO, counts(0, 0));
    s.edit(|work| std::fs::remove_dir_all(work.join(TWO).join("target")).unwrap());
    build(&mut s, TWO, counts(6, 0));
}

#[test]
fn a_workspace_may_have_several_target_directories() {
    let mut s = scenario();
    super::project::write(&s);
    let build = |s: &mut Scenario, target: &str, expect: Expect| {
        let vars = vec![("CARGO_TARGET_DIR", s.sandbox.work().join(target).into_os_string())];
        let mut cargo = Cargo { s, directory: "", vars };
        cargo.step(expect, "build -q -j1 -p middle -p names").expect_success();
        cargo.step(counts(0, 0), "build -q -j1 -p middle -p names").expect_success();
    };
    build(&mut s, "first", counts(0, 3));
    build(&mut s, "second/and/deeper", counts(3, 0));
    s.write("middle/src/inner.rs", "pub const FACTOR: u32 = 4;\n");
    build(&mut s, "second/and/deeper", counts(0, 1));
    build(&mut s, "first", counts(1, 0));
}
