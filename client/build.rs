//! Links the binaries statically against glibc. (The wrapper as it is shipped is linked against musl, by
//! `integration-tests/scripts/build-wrapper.sh`; this is what it is without, and what `zccache-client` is.)
//!
//! The wrapper is started once per compile: without a dynamic linker it starts in about half the time, and it
//! runs wherever it is copied to. Cargo has no stable way to ask for that for one package
//! (`-C target-feature=+crt-static` would apply to proc-macros too, which then cannot be built), so the linker
//! is told here: `-static`, and scripts in place of the shared libraries that the standard library names.
//! That takes the C library's static half: `libc6-dev` has it on Debian, `glibc-static` on Fedora.
//! Other targets (musl is static anyway, macOS cannot be) are left alone.

use std::path::PathBuf;
use std::{env, fs, io};

/// The libraries that the standard library asks for by name, and what a static link takes instead. libgcc's
/// unwinder is a library of its own when static, and libc and it need each other.
const LIBRARIES: [(&str, &str); 7] = [
    ("gcc_s", "INPUT(-l:libgcc_eh.a -l:libgcc.a)"),
    ("c", "GROUP(-l:libc.a -l:libgcc_eh.a -l:libgcc.a)"),
    ("util", "INPUT(-l:libutil.a)"),
    ("rt", "INPUT(-l:librt.a)"),
    ("pthread", "INPUT(-l:libpthread.a)"),
    ("m", "INPUT(-l:libm.a)"),
    ("dl", "INPUT(-l:libdl.a)"),
];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return Ok(());
    }
    // A sanitizer's run-time takes none of this (`make sanitize`).
    if env::var_os("CARGO_CFG_SANITIZE").is_some() {
        return Ok(());
    }
    let directory = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    for (name, script) in LIBRARIES {
        fs::write(directory.join(format!("lib{name}.so")), script)?;
    }
    // For the binaries alone: tests are linked as usual, and would get half of each otherwise.
    println!("cargo:rustc-link-arg-bins=-L{}", directory.display());
    // `-no-pie`: a static executable at a fixed address has no relocations to apply when it starts.
    println!("cargo:rustc-link-arg-bins=-static");
    println!("cargo:rustc-link-arg-bins=-no-pie");
    Ok(())
}
