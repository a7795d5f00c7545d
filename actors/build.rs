//! Builds the interposer (`interposer/lib.rs`): a library that is no part of the service's program, but carried in it.
//!
//! Only where observed programs load such libraries: on Linux, with the GNU C library. Elsewhere an empty file stands for it.

use std::path::Path;
use std::process::Command;

const SOURCES: &str = "interposer";

/// Nothing is linked with it but the C library, which each of the programs has, and which must have every name that is wanted:
/// one that was not found would end the program.
const FLAGS: &[&str] = &[
    "--edition=2024",
    "--crate-name=interposer",
    "--crate-type=cdylib",
    "-Cpanic=abort",
    "-Copt-level=3",
    "-Cstrip=symbols",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-lc",
    "-Clink-arg=-Wl,-z,defs,-z,now",
];

fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok()
}

fn main() {
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-changed=src/settling.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let has =
        |name: &str, values: &[&str]| variable(name).is_some_and(|value| values.contains(&value.as_str()));
    let made = Path::new(&variable("OUT_DIR").expect("cargo tells a build script its directory"))
        .join("interposer.so");
    let is_loaded = has("CARGO_CFG_TARGET_OS", &["linux"])
        && has("CARGO_CFG_TARGET_ENV", &["gnu"])
        && has("CARGO_CFG_TARGET_ARCH", &["x86_64", "aarch64"]);
    if !is_loaded {
        return std::fs::write(&made, []).expect("the build's directory can be written to");
    }
    let mut rustc = Command::new(variable("RUSTC").expect("cargo tells a build script its compiler"));
    rustc.args(FLAGS).arg(format!("{SOURCES}/lib.rs")).arg("-o").arg(&made);
    rustc.arg("--target").arg(variable("TARGET").expect("cargo tells a build script its target"));
    if let Some(linker) = variable("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status().expect("the compiler that builds all else can be run");
    assert!(status.success(), "the interposer cannot be built: {status}");
}
