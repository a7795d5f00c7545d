//! A project of some three hundred files in C, built by ninja: cold, warm, and after an edit of one source, or of a header
//! that a hundred files include.
//!
//! CMake configures it, and the bare compiler builds it once, with the sources that are made on the way. Its compiles alone
//! then make up a build for each contestant, in a directory of its own, so that everyone's build is the same
//! but for the launcher.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::attic::Attic;
use super::contestant::Contestant;
use super::table::{Budget, Table};
use crate::sandbox::SYSTEM_PATH;

/// Warm builds of each, for a median.
const WARM_ROUNDS: usize = 7;

/// Edits of one source.
const SOURCE_EDITS: usize = 7;

/// Edits of one header: each has a hundred files compiled anew by everyone.
const HEADER_EDITS: usize = 3;

/// How many files include the header that is edited, or nearly so.
const INCLUDERS: usize = 100;

/// What ninja calls the file that says what is to be done.
const RULES: &str = "build.ninja";

/// The library alone, without what a machine may lack; not optimised more than one waits for.
const OPTIONS: [&str; 10] = [
    "-DBUILD_TESTING=OFF",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DHDF5_BUILD_EXAMPLES=OFF",
    "-DHDF5_BUILD_TOOLS=OFF",
    "-DHDF5_BUILD_CPP_LIB=OFF",
    "-DHDF5_BUILD_HL_LIB=OFF",
    "-DHDF5_ENABLE_Z_LIB_SUPPORT=OFF",
    "-DHDF5_ENABLE_SZIP_SUPPORT=OFF",
    "-DCMAKE_BUILD_TYPE=Debug",
    // Nothing that names the directory, since everyone has another.
    "-DCMAKE_C_FLAGS_DEBUG=-O1",
];

/// One compile of the project.
struct Compile {
    line: String,
    source: PathBuf,
    object: String,
    dependencies: String,
}

/// One contestant's build.
struct Build<'a> {
    contestant: &'a Contestant,
    directory: PathBuf,
    attic: Attic,
}

/// Prints how long everyone takes for the project at `sources`, which is edited.
///
/// # Errors
/// If it cannot be configured, a build fails, or ours makes other objects than the bare compiler.
pub fn run(contestants: &[Contestant], sources: &Path, place: &Path) -> io::Result<()> {
    let compiles = compiles(sources, &place.join("project"))?;
    let title = format!("HDF5, {} C files, by ninja", compiles.len());
    let builds: Vec<Build<'_>> = contestants
        .iter()
        .enumerate()
        .map(|(number, contestant)| Build::new(contestant, place.join(format!("project{number}")), &compiles))
        .collect::<io::Result<_>>()?;
    let in_turn = |takes_part: fn(&Contestant) -> bool| {
        let builds = builds.iter().filter(move |build| takes_part(build.contestant));
        builds.inspect(|build| build.contestant.takes_its_turn(contestants))
    };

    let mut cold = Table::new(format!("{title}: cold build (1 round)"), "bare", Some(Budget::COLD_PROJECT));
    for build in in_turn(Contestant::compiles) {
        cold.add(build.contestant.name, build.run()?);
    }
    cold.print();
    compare(&builds, &compiles)?;

    let name = format!("{title}: warm build ({WARM_ROUNDS} rounds)");
    let mut warm = Table::new(name, "/bin/true", Some(Budget::WARM_PROJECT));
    for round in 0..=WARM_ROUNDS {
        for build in in_turn(|contestant| !contestant.is_bare()) {
            build.empty(&compiles)?;
            let took = build.run()?;
            if round > 0 {
                warm.add(build.contestant.name, took);
            }
        }
    }
    warm.print();
    compare(&builds, &compiles)?;

    let source = &compiles[compiles.len() / 2].source;
    let (header, includers) = header(builds.iter().find(|build| build.contestant.is_bare()), sources)?;
    for (what, file, edits) in [
        ("one source edited".to_string(), source, SOURCE_EDITS),
        (format!("a header edited that {includers} include"), &header, HEADER_EDITS),
    ] {
        let mut table =
            Table::new(format!("{title}: {what} ({edits} edits)"), "bare", Some(Budget::EDITED_PROJECT));
        for edit in 0..edits {
            let text = std::fs::read_to_string(file)?;
            std::fs::write(file, format!("{text}\nextern int edited_{edit};\n"))?;
            for build in in_turn(Contestant::compiles) {
                table.add(build.contestant.name, build.run()?);
            }
        }
        table.print();
        compare(&builds, &compiles)?;
    }
    Ok(())
}

/// Configures the project, builds it bare, and gives what was compiled.
fn compiles(sources: &Path, directory: &Path) -> io::Result<Vec<Compile>> {
    let said = |program: &str, words: &[&str]| -> io::Result<Vec<u8>> {
        let mut command = Command::new(program);
        command.args(words).env_clear().env("PATH", SYSTEM_PATH).stdin(Stdio::null());
        let output = command.output()?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(io::Error::other(format!("run {command:?}: {said}")))
            }
        }
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (sources, directory) = (text(sources), text(directory));
    said("cmake", &[&["-G", "Ninja", "-S", &sources, "-B", &directory], &OPTIONS[..]].concat())?;
    said("ninja", &["-C", &directory])?;
    let steps = said("ninja", &["-C", &directory, "-t", "compdb"])?;
    let steps: serde_json::Value = serde_json::from_slice(&steps)?;
    let lines = steps.as_array().into_iter().flatten().filter_map(|step| step.get("command")?.as_str());
    let compiles: Vec<Compile> = lines.filter_map(Compile::of).collect();
    match compiles.is_empty() {
        false => Ok(compiles),
        true => Err(io::Error::other("find a compile in what ninja does")),
    }
}

impl Compile {
    /// A step that compiles; none of any other.
    fn of(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |option: &str| words.iter().skip_while(|word| **word != option).nth(1).copied();
        let (object, source, dependencies) = (after("-o")?, after("-c")?, after("-MF")?);
        Some(Self {
            line: line.to_string(),
            source: source.into(),
            object: object.into(),
            dependencies: dependencies.into(),
        })
    }
}

impl<'a> Build<'a> {
    fn new(contestant: &'a Contestant, directory: PathBuf, compiles: &[Compile]) -> io::Result<Self> {
        let mut rules =
            "rule compile\n  command = $line\n  depfile = $dependencies\n  deps = gcc\n".to_string();
        for Compile { line, source, object, dependencies } in compiles {
            if let Some(parent) = directory.join(object).parent() {
                std::fs::create_dir_all(parent)?;
            }
            let line = contestant.line(line).replace('$', "$$");
            let source = source.display();
            rules += &format!(
                "build {object}: compile {source}\n  line = {line}\n  dependencies = {dependencies}\n"
            );
        }
        std::fs::write(directory.join(RULES), rules)?;
        let attic = Attic::new(&directory)?;
        Ok(Self { contestant, directory, attic })
    }

    /// Builds what is not up to date; how long that took.
    fn run(&self) -> io::Result<Duration> {
        let jobs = std::thread::available_parallelism()?.to_string();
        let mut command = self.contestant.own_command(Path::new("ninja"), &self.directory);
        command.args(["-j", &jobs]);
        let from = Instant::now();
        let output = command.output()?;
        let took = from.elapsed();
        match output.status.success() {
            true => Ok(took),
            false => {
                let said = String::from_utf8_lossy(&output.stdout);
                Err(io::Error::other(format!("build HDF5 by {}: {said}", self.contestant.name)))
            }
        }
    }

    /// As if nothing had been built.
    fn empty(&self, compiles: &[Compile]) -> io::Result<()> {
        let objects = compiles.iter().map(|compile| compile.object.as_str());
        objects
            .chain([".ninja_log", ".ninja_deps"])
            .try_for_each(|name| self.attic.put(&self.directory.join(name)))
    }
}

/// Compares everyone's objects with the bare compiler's: an error for ours, worth a line for others.
fn compare(builds: &[Build<'_>], compiles: &[Compile]) -> io::Result<()> {
    let Some(bare) = builds.iter().find(|build| build.contestant.is_bare()) else { return Ok(()) };
    for build in builds.iter().filter(|build| build.contestant.compiles()) {
        let mut others = 0;
        for Compile { object, .. } in compiles {
            let [expected, made] = [bare, build].map(|build| std::fs::read(build.directory.join(object)));
            others += usize::from(expected? != made?);
        }
        match others {
            0 => {}
            _ if build.contestant.is_ours() => {
                return Err(io::Error::other(format!("match the bare compiler's objects: {others} differ")));
            }
            _ => println!("{others} of {}'s objects differ from the bare compiler's", build.contestant.name),
        }
    }
    Ok(())
}

/// The project's own header that about [`INCLUDERS`] files include, and how many do, as the build that was made knows.
fn header(made: Option<&Build<'_>>, sources: &Path) -> io::Result<(PathBuf, usize)> {
    let mut includers: BTreeMap<PathBuf, usize> = BTreeMap::new();
    if let Some(build) = made {
        let mut command = build.contestant.own_command(Path::new("ninja"), &build.directory);
        let output = command.args(["-t", "deps"]).output()?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let path = Path::new(line.trim());
            if path.starts_with(sources) && path.extension().is_some_and(|extension| extension == "h") {
                *includers.entry(path.into()).or_default() += 1;
            }
        }
    }
    let nearest = includers.into_iter().min_by_key(|(_, count)| count.abs_diff(INCLUDERS));
    nearest.ok_or_else(|| io::Error::other("find a header that is included"))
}
