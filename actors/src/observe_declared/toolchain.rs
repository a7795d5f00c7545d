//! What the compiler is made of, learnt by asking it: its programs, their libraries, the directories it searches,
//! and every place that it might have found another of these in.
//!
//! Asked once for each compiler, environment and set of options that change the answers; believed for as long as
//! nothing in any of those places has changed.

#[cfg(any(test, not(target_os = "linux")))]
mod following;
#[cfg_attr(target_os = "linux", path = "toolchain/libraries_linux.rs")]
#[cfg_attr(target_os = "macos", path = "toolchain/libraries_macos.rs")]
#[cfg_attr(windows, path = "toolchain/libraries_windows.rs")]
mod libraries;
mod questions;
#[cfg_attr(target_os = "linux", path = "toolchain/surroundings_linux.rs")]
#[cfg_attr(target_os = "macos", path = "toolchain/surroundings_macos.rs")]
#[cfg_attr(windows, path = "toolchain/surroundings_windows.rs")]
mod surroundings;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::facts::{Facts, Found, bytes_of, join};
use crate::digest::Digest;
use crate::invocation::Invocation;
use crate::plan::{DeclaredInputs, Policy};
use crate::signature::{FileKind, Signature};
use crate::spelling;
use crate::sys::OsStrExt;
use questions::Asker;

/// How many toolchains are remembered. A project uses a handful; a client that makes up environments must not
/// fill the memory.
const TOOLCHAINS_MAX: usize = 64;

/// Everything a compiler of this kind is made of.
#[derive(Debug, Default)]
pub struct Toolchain {
    /// Files that are read if they are there.
    files: Vec<Vec<u8>>,
    /// Programs that are run, as spelled; the tool first.
    pub programs: Vec<Vec<u8>>,
    /// Paths of which only counts whether something is there.
    places: Vec<Vec<u8>>,
    /// Directories whose names count.
    listed: Vec<Vec<u8>>,
    /// Directories searched for headers, those that do not exist among them.
    pub dirs: Vec<Vec<u8>>,
    /// Directories searched for frameworks, if any is.
    pub frameworks: Vec<Vec<u8>>,
    /// What was at all these paths when the compiler was asked.
    stamps: Vec<Option<Signature>>,
}

/// See the module.
#[derive(Default)]
pub struct Toolchains {
    known: Mutex<HashMap<Digest, Arc<Toolchain>>>,
}

impl Toolchains {
    /// The toolchain of this invocation, all of it added to `facts`.
    ///
    /// # Errors
    /// Why it is not one whose parts can be known.
    pub fn find(
        &self,
        invocation: &Invocation,
        policy: &Policy,
        declared: &DeclaredInputs,
        facts: &mut Facts,
    ) -> Result<Arc<Toolchain>, String> {
        let options = questions::options(&declared.arguments)?;
        let key = key(invocation, &options);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let toolchain =
            match known.filter(|toolchain| toolchain.stamps == toolchain.look(invocation.cwd_path())) {
                Some(toolchain) => toolchain,
                None => {
                    let mut toolchain = Toolchain::ask(invocation, policy, &options)?;
                    toolchain.stamps = toolchain.look(invocation.cwd_path());
                    let toolchain = Arc::new(toolchain);
                    self.remember(key, Arc::clone(&toolchain));
                    toolchain
                }
            };
        toolchain.add_to(facts)?;
        Ok(toolchain)
    }

    fn remember(&self, key: Digest, toolchain: Arc<Toolchain>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TOOLCHAINS_MAX {
            known.clear();
        }
        known.insert(key, toolchain);
    }
}

fn key(invocation: &Invocation, options: &[Vec<u8>]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(&invocation.tool);
    field(invocation.argv.iter().next().unwrap_or_default());
    field(&invocation.cwd);
    options.iter().for_each(|option| field(option));
    field(b"environment");
    invocation.env.iter().for_each(field);
    Digest(*hasher.finalize().as_bytes())
}

impl Toolchain {
    fn paths(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.files
            .iter()
            .chain(&self.programs)
            .chain(&self.places)
            .chain(&self.listed)
            .chain(&self.dirs)
            .chain(&self.frameworks)
    }

    fn look(&self, cwd: &Path) -> Vec<Option<Signature>> {
        let stamp = |path: &Vec<u8>| {
            let s = Signature::of(cwd.join(OsStr::from_bytes(path))).ok()?;
            let is_directory = s.kind() == FileKind::Directory;
            // What is in a directory counts only where its names do, and those are listed again anyway.
            Some(if is_directory { Signature { size: 0, mtime_ns: 0, ctime_ns: 0, ..s } } else { s })
        };
        let listed = self.listed.iter().map(|path| Signature::of(cwd.join(OsStr::from_bytes(path))).ok());
        self.paths().map(stamp).chain(listed).collect()
    }

    fn add_to(&self, facts: &mut Facts) -> Result<(), String> {
        for program in &self.programs {
            if !matches!(facts.read(program, true), Found::File(_)) {
                return Err(format!("{} is gone", String::from_utf8_lossy(program)));
            }
        }
        for path in &self.files {
            facts.read(path, false);
        }
        for path in &self.places {
            facts.look(path);
        }
        for path in &self.listed {
            facts.list(path);
        }
        Ok(())
    }

    fn ask(invocation: &Invocation, policy: &Policy, options: &[Vec<u8>]) -> Result<Self, String> {
        let asker = Asker::new(invocation, options);
        let tool = spelling::plain(&invocation.tool).into_owned();
        let mut toolchain = Self { programs: vec![tool], ..Self::default() };
        surroundings::refuse(&asker.absolute(&toolchain.programs[0]))?;
        let path = search_path(invocation)?;
        match policy.family {
            "gcc" => toolchain.ask_gcc(&asker, &path)?,
            "clang" => toolchain.ask_clang(&asker, &path)?,
            _ => return Err(format!("nothing is declared by {}", policy.family)),
        }
        // Drivers look for themselves on `PATH` to learn where they are installed.
        let name = invocation.argv.iter().next().unwrap_or_default();
        if !spelling::plain(name).contains(&b'/') {
            toolchain.places.extend(path.iter().map(|dir| join(dir, name)));
        }
        toolchain.add_search_dirs(&asker)?;
        for program in toolchain.programs.clone() {
            let real = std::fs::canonicalize(asker.absolute(&program)).map_err(|e| e.to_string())?;
            let name = spelling::program(real.file_name().unwrap_or_default().as_bytes());
            if !(policy.knows_program)(&name) {
                return Err(format!("{} is no known compiler", real.display()));
            }
            let libraries =
                libraries::of(&asker.absolute(&program), &libraries::Search::new(invocation, &path))?;
            toolchain.files.extend(libraries.files);
            toolchain.places.extend(libraries.missing);
        }
        surroundings::of_loader(&mut toolchain)?;
        let Self { files, places, listed, dirs, frameworks, .. } = &mut toolchain;
        for list in [files, places, listed, dirs, frameworks] {
            let mut once = HashSet::new();
            list.retain(|path| once.insert(path.clone()));
        }
        Ok(toolchain)
    }

    fn ask_gcc(&mut self, asker: &Asker, path: &[Vec<u8>]) -> Result<(), String> {
        let dirs = asker.gcc_dirs()?;
        for dir in &dirs {
            let specs = join(dir, b"specs");
            if asker.absolute(&specs).exists() {
                return Err("a specs file".into());
            }
            self.places.push(specs);
        }
        let said = asker.verbose("c")?;
        if let Some(started) = questions::driver(&said) {
            self.add_started(asker, started)?;
        }
        for specs in questions::specs_read(&said) {
            self.add_device_specs(specs, &dirs)?;
        }
        for name in ["cc1", "cc1plus", "as"] {
            self.add_part(asker, name, &dirs, path)?;
        }
        Ok(())
    }

    /// A program that gcc starts, and everywhere that it might have found another.
    fn add_part(
        &mut self,
        asker: &Asker,
        name: &str,
        dirs: &[Vec<u8>],
        path: &[Vec<u8>],
    ) -> Result<(), String> {
        let found = asker.program(name)?;
        let names = spelling::program_files(name);
        let within = |dir: &Vec<u8>| names.iter().map(|file| join(dir, file)).collect::<Vec<_>>();
        let program = if found.contains(&b'/') {
            Some(found)
        } else {
            path.iter().flat_map(within).find(|file| asker.absolute(file).exists())
        };
        self.places.extend(dirs.iter().chain(path).flat_map(within));
        match program {
            Some(program) => self.programs.push(program),
            // A gcc without C++ compiles C all the same.
            None if name == "cc1plus" => {}
            None => return Err(format!("{name} was not found")),
        }
        Ok(())
    }

    /// Specs that gcc comes with for each of the devices that it compiles for. Others say anything.
    fn add_device_specs(&mut self, specs: Vec<u8>, dirs: &[Vec<u8>]) -> Result<(), String> {
        let own = dirs.iter().find_map(|dir| specs.strip_prefix(&join(dir, b"device-specs/")[..]));
        let Some(name) = own.filter(|name| !name.contains(&b'/')) else {
            return Err(format!("a specs file, {}", String::from_utf8_lossy(&specs)));
        };
        self.places.extend(dirs.iter().map(|dir| join(dir, &[b"device-specs/", name].concat())));
        self.files.push(specs);
        Ok(())
    }

    fn ask_clang(&mut self, asker: &Asker, path: &[Vec<u8>]) -> Result<(), String> {
        let said = asker.verbose("c")?;
        if said.contains("Configuration file:") {
            return Err("a configuration file".into());
        }
        let started = questions::inner_program(&said).ok_or("clang does not say what it runs")?;
        self.add_started(asker, started)?;
        let real = std::fs::canonicalize(asker.absolute(&self.programs[0])).map_err(|e| e.to_string())?;
        let bins = [asker.absolute(&self.programs[0]), real]
            .map(|p| p.parent().map(PathBuf::from).unwrap_or_default());
        self.add_configurations(&said, &bins);
        surroundings::of_clang(self, &said, &bins, path)
    }

    /// The program that in truth runs, if it is not the one that was typed: one that only starts another is believed to
    /// choose the one beside it.
    fn add_started(&mut self, asker: &Asker, started: Vec<u8>) -> Result<(), String> {
        let real = |program: &[u8]| std::fs::canonicalize(asker.absolute(program)).map_err(|e| e.to_string());
        let (own, other) = (real(&self.programs[0])?, real(&questions::with_extension(asker, &started))?);
        if own == other {
            return Ok(());
        }
        if own.parent() != other.parent() {
            return Err(format!("a program that starts {}", other.display()));
        }
        self.programs.push(bytes_of(
            asker.absolute(&self.programs[0]).with_file_name(other.file_name().unwrap_or_default()),
        ));
        Ok(())
    }

    /// The names under which clang looks for configuration files unasked.
    fn add_configurations(&mut self, said: &str, bins: &[PathBuf]) {
        let target = questions::value(said, "Target:").unwrap_or_default();
        let mut dirs: Vec<Vec<u8>> = bins.iter().cloned().map(bytes_of).collect();
        for label in ["System configuration file directory:", "User configuration file directory:"] {
            dirs.extend(
                questions::value(said, label).map(|dir| spelling::plain(dir.as_bytes()).into_owned()),
            );
        }
        let called = spelling::program(self.programs[0].rsplit(|&b| b == b'/').next().unwrap_or_default());
        let mut names = vec![format!("{target}.cfg").into_bytes()];
        for mode in [&b"clang"[..], b"clang++", &called] {
            names.push([mode, b".cfg"].concat());
            names.push([target.as_bytes(), b"-", mode, b".cfg"].concat());
        }
        self.places.extend(dirs.iter().flat_map(|dir| names.iter().map(|name| join(dir, name))));
    }

    fn list_tree(&mut self, dir: &Path, depth: usize) {
        self.listed.push(bytes_of(dir.to_owned()));
        if depth > 0 {
            for entry in std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
                if entry.path().is_dir() {
                    self.list_tree(&entry.path(), depth - 1);
                }
            }
        }
    }

    /// Of both languages: a directory too many is only one more place where nothing may appear.
    fn add_search_dirs(&mut self, asker: &Asker) -> Result<(), String> {
        let answers = ["c", "c++"].map(|language| asker.verbose(language));
        if let [Err(e), Err(_)] = &answers {
            return Err(e.clone());
        }
        for answer in answers.iter().flatten() {
            let searched = questions::search_dirs(answer)?;
            self.dirs.extend(searched.dirs);
            if searched.has_frameworks {
                self.frameworks.extend(searched.frameworks);
            }
        }
        Ok(())
    }
}

/// The directories of `PATH`.
fn search_path(invocation: &Invocation) -> Result<Vec<Vec<u8>>, String> {
    let path = invocation.env.value_of(b"PATH").unwrap_or_default();
    let dirs = surroundings::search_path(path);
    if dirs.iter().any(|dir| !spelling::is_absolute(dir)) {
        return Err("a relative directory in PATH".into());
    }
    Ok(dirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_toolchains_are_remembered_and_then_none() {
        let toolchains = Toolchains::default();
        let known = || toolchains.known.lock().unwrap().len();
        for number in 0..TOOLCHAINS_MAX {
            toolchains.remember(Digest::of(&number.to_le_bytes()), Arc::default());
        }
        assert_eq!(known(), TOOLCHAINS_MAX);
        toolchains.remember(Digest::of(b"one more"), Arc::default());
        assert_eq!(known(), 1);
    }
}
