//! A workspace with most of what Cargo can build: a library, a program, a procedural macro that reads a file which it
//! tells nobody of, a build script that makes code and compiles C, and a dynamic library for C.

use zccache_integration_tests::Scenario;

/// Its files. `native` compiles C by the compiler in `CC`, as the usual crate for that does.
const FILES: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[workspace]\nmembers = [\"app\", \"base\", \"middle\", \"names\", \"native\"]\nresolver = \"2\"\n",
    ),
    (
        "base/Cargo.toml",
        "[package]\nname = \"base\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[features]\nbig = []\n",
    ),
    (
        "base/src/lib.rs",
        "pub const SIZE: u32 = if cfg!(feature = \"big\") { 1000 } else { 1 };\npub fn size() -> u32 { SIZE }\n",
    ),
    (
        "middle/Cargo.toml",
        "[package]\nname = \"middle\"\nversion = \"0.2.0\"\nedition = \"2021\"\n[dependencies]\nbase = { path = \"../base\" }\n",
    ),
    (
        "middle/src/lib.rs",
        "mod inner;\npub fn twice() -> u32 { let unused = 0; base::size() * inner::FACTOR }\n\
         #[test]\nfn is_even() { assert_eq!(twice() % 2, 0); }\n",
    ),
    ("middle/src/inner.rs", "pub const FACTOR: u32 = 2;\n"),
    (
        "middle/tests/outer.rs",
        "#[test]\nfn twice_the_size() { assert_eq!(middle::twice(), 2 * base::size()); }\n",
    ),
    ("middle/benches/quick.rs", "#[test]\nfn is_quick() { assert!(middle::twice() > 0); }\n"),
    (
        "names/Cargo.toml",
        "[package]\nname = \"names\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[lib]\nproc-macro = true\n",
    ),
    (
        "names/src/lib.rs",
        "use proc_macro::TokenStream;\n\
         #[proc_macro]\npub fn names(_: TokenStream) -> TokenStream {\n\
             let dir = std::env::var(\"CARGO_MANIFEST_DIR\").unwrap();\n\
             let mut files: Vec<_> = std::fs::read_dir(format!(\"{dir}/names\")).unwrap()\n\
                 .map(|e| e.unwrap().path()).collect();\n\
             files.sort();\n\
             let mut all = String::new();\n\
             for file in files { all += &std::fs::read_to_string(file).unwrap(); }\n\
             let who = std::env::var(\"WHO\").unwrap_or_default();\n\
             format!(\"{:?}\", all.trim().to_owned() + &who).parse().unwrap()\n\
         }\n",
    ),
    (
        "native/Cargo.toml",
        "[package]\nname = \"native\"\nversion = \"0.1.0\"\nedition = \"2021\"\nbuild = \"build.rs\"\nlinks = \"native\"\n\
         [lib]\ncrate-type = [\"lib\", \"cdylib\"]\n",
    ),
    (
        "native/build.rs",
        "use std::process::Command;\nfn main() {\n\
             let out = std::env::var(\"OUT_DIR\").unwrap();\n\
             std::fs::write(format!(\"{out}/made.rs\"), \"pub const MADE: i32 = 40;\\n\").unwrap();\n\
             let run = |c: &mut Command| assert!(c.status().unwrap().success());\n\
             let object = format!(\"{out}/native.o\");\n\
             run(Command::new(\"zccache\").args([\"cc\", \"-O1\", \"-fPIC\", \"-c\", \"native.c\", \"-o\", &object]));\n\
             run(Command::new(\"ar\").args([\"crsD\", &format!(\"{out}/libnative.a\"), &object]));\n\
             println!(\"cargo::rerun-if-changed=native.c\");\n\
             println!(\"cargo::rustc-link-search=native={out}\");\n\
             println!(\"cargo::rustc-link-lib=static=native\");\n\
             println!(\"cargo::rustc-env=BUILT_BY=script\");\n\
         }\n",
    ),
    ("native/native.c", "int native_number(void) { return 2; }\n"),
    (
        "native/src/lib.rs",
        "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n\
         extern \"C\" { fn native_number() -> i32; }\n\
         #[no_mangle]\npub extern \"C\" fn answer() -> i32 { MADE + unsafe\n{ native_number() } }\n\
         pub fn by() -> &'static str { env!(\"BUILT_BY\") }\n",
    ),
    (
        "app/Cargo.toml",
        "[package]\nname = \"app\"\nversion = \"1.2.3\"\nedition = \"2021\"\n[dependencies]\nbase = { path = \"../base\" }\n\
         middle = { path = \"../middle\" }\nnames = { path = \"../names\" }\nnative = { path = \"../native\" }\n",
    ),
    (
        "app/src/main.rs",
        "fn main() {\n    println!(\"{} {} {} {} {} {:?}\", base::size(), middle::twice(), names::names!(), native::answer(),\n\
                 native::by(), option_env!(\"FLAVOUR\"));\n    println!(\"{} {}\", env!(\"CARGO_PKG_VERSION\"), file!());\n}\n",
    ),
    ("app/names/one", "one\n"),
];

/// The crates that a plain build of it compiles: one of them is a build script.
pub const CRATES: u64 = 6;

/// Writes the workspace.
pub fn write(s: &Scenario) {
    for (path, text) in FILES {
        s.write(path, text);
    }
}
