//! Whole builds by Cargo of published projects: cold, and warm into an empty target directory, by everyone who caches Rust.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::contestant::{Contestant, in_turn};
use super::table::{Budget, Table};
use crate::sandbox::SYSTEM_PATH;

/// The programs that a build leaves, by path.
type Programs = BTreeMap<PathBuf, Vec<u8>>;

/// Rounds of each: a build takes half a minute, and there are two for each contestant in a round.
const ROUNDS: usize = 3;

/// Where Rust is: its programs, and what Cargo has fetched.
struct Toolchain {
    bin: PathBuf,
    cargo_home: OsString,
}

impl Toolchain {
    /// The one that is found by this process.
    fn find() -> io::Result<Self> {
        let told = Command::new("rustc").args(["--print", "sysroot"]).stderr(Stdio::inherit()).output()?;
        let bin = Path::new(String::from_utf8_lossy(&told.stdout).trim()).join("bin");
        let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cargo").into();
        Ok(Self { bin, cargo_home: std::env::var_os("CARGO_HOME").unwrap_or_else(home) })
    }
}

/// Measures every project, given by the directories of their sources.
///
/// # Errors
/// If a file cannot be written, a build fails, or ours makes other programs than the bare one.
pub fn run(contestants: &[Contestant], projects: &[PathBuf], place: &Path) -> io::Result<()> {
    let toolchain = Toolchain::find()?;
    for project in projects {
        measure(&toolchain, contestants, project, place)?;
    }
    Ok(())
}

fn measure(
    toolchain: &Toolchain,
    contestants: &[Contestant],
    project: &Path,
    place: &Path,
) -> io::Result<()> {
    let name = project.file_name().unwrap_or_default().to_string_lossy();
    let table =
        |what: &str, budget| Table::new(format!("{name}: {what} ({ROUNDS} rounds)"), "bare", Some(budget));
    let mut cold = table("cold build by Cargo", Budget::COLD_RUST);
    let mut warm = table("the same, warm, into an empty target directory", Budget::WARM_RUST);
    // Not measured: sources and toolchain come into memory.
    if let Some(bare) = contestants.iter().find(|c| c.is_bare()) {
        build(toolchain, bare, project, place, 0)?;
    }
    for round in 1..=ROUNDS {
        let mut expected: Option<Programs> = None;
        for contestant in in_turn(contestants, Contestant::caches_rust) {
            let (took, programs) = build(toolchain, contestant, project, place, round)?;
            cold.add(contestant.name, took);
            let expected = expected.get_or_insert_with(|| programs.clone());
            compare(contestant, expected, &programs)?;
            // There is nothing to be warm for the bare compiler.
            let (took, programs) = match contestant.is_bare() {
                true => (took, programs),
                false => build(toolchain, contestant, project, place, round)?,
            };
            warm.add(contestant.name, took);
            compare(contestant, expected, &programs)?;
        }
    }
    cold.print();
    warm.print();
    Ok(())
}

/// Whether a contestant made what the bare compiler makes: an error for ours, worth a line for others.
fn compare(contestant: &Contestant, expected: &Programs, programs: &Programs) -> io::Result<()> {
    match expected == programs {
        true => Ok(()),
        false if contestant.is_ours() => Err(io::Error::other("match the bare build's programs")),
        false => {
            println!("{}'s programs differ from the bare build's", contestant.name);
            Ok(())
        }
    }
}

/// Builds into an empty target directory, with flags that no round before has had; how long that took, and the programs.
fn build(
    toolchain: &Toolchain,
    contestant: &Contestant,
    project: &Path,
    place: &Path,
    round: usize,
) -> io::Result<(Duration, Programs)> {
    let target = place.join("target");
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    let mut command = contestant.cargo(&toolchain.bin.join("cargo"), project);
    command.args(["build", "-q", "--offline", "--locked", "--target-dir"]).arg(&target);
    command.env("PATH", format!("{}:{SYSTEM_PATH}", toolchain.bin.display()));
    command.env("CARGO_HOME", &toolchain.cargo_home).env("CARGO_INCREMENTAL", "0");
    command.env("RUSTFLAGS", format!("-Awarnings --check-cfg=cfg(round_{round})"));
    let from = Instant::now();
    let output = command.stderr(Stdio::piped()).output()?;
    let took = from.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("build {} by {}: {said}", project.display(), contestant.name)));
    }
    let mut programs = BTreeMap::new();
    for entry in std::fs::read_dir(target.join("debug"))? {
        let path = entry?.path();
        let metadata = path.metadata()?;
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            programs.insert(path.clone(), std::fs::read(&path)?);
        }
    }
    Ok((took, programs))
}
