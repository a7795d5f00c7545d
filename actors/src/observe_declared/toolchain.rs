//! What the compiler is made of, learnt by asking it: its programs, their libraries, the directories it searches,
//! and every place that it might have found another of these in.
//!
//! Asked once for each compiler, environment and set of options that change the answers; believed for as long as
//! nothing in any of those places has changed.

mod libraries;
mod questions;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::facts::{Facts, Found, bytes_of, join};
use crate::digest::Digest;
use crate::invocation::Invocation;
use crate::plan::Policy;
use crate::signature::Signature;
use questions::Asker;

/// How many toolchains are remembered. A project uses a handful; a client that makes up environments must not
/// fill the memory.
const TOOLCHAINS_MAX: usize = 64;

/// Where the distributions note their names: clang's defaults hang on them.
const RELEASE_FILES: &[&str] = &[
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/lsb-release",
    "/etc/redhat-release",
    "/etc/debian_version",
    "/etc/SuSE-release",
    "/etc/gentoo-release",
];

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
        facts: &mut Facts,
    ) -> Result<Arc<Toolchain>, String> {
        let options = questions::options(&invocation.argv)?;
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
        self.files.iter().chain(&self.programs).chain(&self.places).chain(&self.listed).chain(&self.dirs)
    }

    fn look(&self, cwd: &Path) -> Vec<Option<Signature>> {
        use std::os::unix::ffi::OsStrExt;
        let stamp = |path: &Vec<u8>| {
            let s = Signature::of(cwd.join(std::ffi::OsStr::from_bytes(path))).ok()?;
            let is_directory = s.kind() == crate::signature::FileKind::Directory;
            // What is in a directory counts only where its names do, and those are listed again anyway.
            Some(if is_directory { Signature { size: 0, mtime_ns: 0, ctime_ns: 0, ..s } } else { s })
        };
        let listed = self.listed.iter().map(|path| Signature::of(std::ffi::OsStr::from_bytes(path)).ok());
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
        let mut toolchain = Self { programs: vec![invocation.tool.clone()], ..Self::default() };
        let path = search_path(invocation)?;
        match policy.family {
            "gcc" => toolchain.ask_gcc(&asker, &path)?,
            "clang" => toolchain.ask_clang(&asker)?,
            _ => return Err(format!("nothing is declared by {}", policy.family)),
        }
        // Drivers look for themselves on `PATH` to learn where they are installed.
        let name = invocation.argv.iter().next().unwrap_or_default();
        if !name.contains(&b'/') {
            toolchain.places.extend(path.iter().map(|dir| join(dir, name)));
        }
        toolchain.add_search_dirs(&asker)?;
        for program in toolchain.programs.clone() {
            use std::os::unix::ffi::OsStrExt;
            let real = std::fs::canonicalize(asker.absolute(&program)).map_err(|e| e.to_string())?;
            let name = real.file_name().unwrap_or_default().as_bytes();
            if !(policy.knows_program)(name) {
                return Err(format!("{} is no known compiler", real.display()));
            }
            let libraries = libraries::of(&asker.absolute(&program))?;
            toolchain.files.extend(libraries.files);
            toolchain.places.extend(libraries.missing);
        }
        toolchain.files.push(b"/etc/ld.so.cache".to_vec());
        if Path::new("/etc/ld.so.preload").exists() {
            return Err("/etc/ld.so.preload".into());
        }
        toolchain.places.push(b"/etc/ld.so.preload".to_vec());
        for list in [&mut toolchain.files, &mut toolchain.places, &mut toolchain.listed, &mut toolchain.dirs]
        {
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
        for name in ["cc1", "cc1plus", "as"] {
            let found = asker.program(name)?;
            let everywhere: Vec<Vec<u8>> =
                dirs.iter().chain(path).map(|dir| join(dir, name.as_bytes())).collect();
            let program = if found.contains(&b'/') {
                Some(found)
            } else {
                path.iter().map(|dir| join(dir, name.as_bytes())).find(|file| asker.absolute(file).exists())
            };
            self.places.extend(everywhere);
            match program {
                Some(program) => self.programs.push(program),
                // A gcc without C++ compiles C all the same.
                None if name == "cc1plus" => {}
                None => return Err(format!("{name} was not found")),
            }
        }
        Ok(())
    }

    fn ask_clang(&mut self, asker: &Asker) -> Result<(), String> {
        let real = std::fs::canonicalize(asker.absolute(&self.programs[0])).map_err(|e| e.to_string())?;
        let bins = [asker.absolute(&self.programs[0]), real]
            .map(|p| p.parent().map(PathBuf::from).unwrap_or_default());
        let said = asker.verbose("c")?;
        if said.contains("Configuration file:") {
            return Err("a configuration file".into());
        }
        self.add_configurations(&said, &bins);
        self.files.extend(RELEASE_FILES.iter().map(|file| file.as_bytes().to_vec()));
        // Which installation of gcc lends its headers and libraries is decided by looking around for all of them.
        let mut prefixes = vec![PathBuf::from("/usr")];
        prefixes.extend(bins.iter().map(|bin| bin.join("..")));
        for prefix in &prefixes {
            for lib in ["lib", "lib32", "lib64", "libx32"] {
                for gcc in ["gcc", "gcc-cross"] {
                    self.list_tree(&prefix.join(lib).join(gcc), 2);
                }
            }
            self.list_tree(&prefix.join("include/c++"), 0);
        }
        self.list_tree(Path::new("/etc/env.d/gcc"), 0);
        self.list_tree(Path::new("/opt"), 0);
        self.places.push(b"/opt/rocm".to_vec());
        Ok(())
    }

    /// The names under which clang looks for configuration files unasked.
    fn add_configurations(&mut self, said: &str, bins: &[PathBuf]) {
        let value = |label: &str| said.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
        let target = value("Target:").unwrap_or_default();
        let mut dirs: Vec<Vec<u8>> = bins.iter().cloned().map(bytes_of).collect();
        for label in ["System configuration file directory:", "User configuration file directory:"] {
            dirs.extend(value(label).map(|dir| dir.as_bytes().to_vec()));
        }
        let called = bytes_of(PathBuf::from(
            self.programs[0].rsplit(|&b| b == b'/').next().map(to_os).unwrap_or_default(),
        ));
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
            self.dirs.extend(questions::search_dirs(answer)?);
        }
        Ok(())
    }
}

fn to_os(bytes: &[u8]) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes.to_vec())
}

/// The directories of `PATH`.
fn search_path(invocation: &Invocation) -> Result<Vec<Vec<u8>>, String> {
    let path = invocation.env.value_of(b"PATH").unwrap_or_default();
    let dirs: Vec<Vec<u8>> = path.split(|&b| b == b':').map(<[u8]>::to_vec).collect();
    if dirs.iter().any(|dir| !dir.starts_with(b"/")) {
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
