//! Questions to a compiler, put on its command line, and what its answers say.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::super::host;
use crate::invocation::Invocation;
use crate::spelling::{self, NO_INPUT};
use crate::sys::OsStrExt;

/// Options that change which directories are searched, or which programs run.
const ALONE: &[&str] =
    &["-nostdinc", "-nostdinc++", "-nobuiltininc", "-nostdlibinc", "-ibuiltininc", "-pthread", "-pthreads"];
/// The same, beginning so.
const JOINED: &[&str] = &["-m", "--target=", "-stdlib=", "--stdlib="];
/// The same, with the value as the next argument.
const SEPARATE: &[&str] = &["-target", "-arch"];
/// Begin like one of the above, but take a value: not understood here.
const REFUSED: &[&str] = &["-meabi", "-mthread-model", "-mllvm", "-mmlir", "-module-dependency-dir"];

/// Dialects of C in which `//` begins no comment: the scan of texts takes it for one.
const WITHOUT_LINE_COMMENTS: &[&str] = &["ansi", "c89", "c90", "iso9899:1990", "iso9899:199409"];

/// The options among `arguments` that the answers hang on. Response files are replaced in them by what they hold.
///
/// # Errors
/// If some of them cannot be seen, or cannot be asked with.
pub fn options(arguments: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    let mut options = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let is = |list: &[&str]| list.iter().any(|option| option.as_bytes() == argument);
        if argument.starts_with(b"@") {
            return Err("an argument that looks like a response file".into());
        }
        let dialect =
            [&b"-std="[..], b"--std=", b"--", b"-"].iter().find_map(|option| argument.strip_prefix(*option));
        let is_dialect =
            WITHOUT_LINE_COMMENTS.iter().any(|old| dialect.is_some_and(|name| name == old.as_bytes()));
        if is(REFUSED) || is_dialect {
            return Err(format!("{}", argument.escape_ascii()));
        }
        if is(ALONE) || JOINED.iter().any(|option| argument.starts_with(option.as_bytes())) {
            options.push(argument.clone());
        } else if is(SEPARATE) {
            options.push(argument.clone());
            options.extend(arguments.next().cloned());
        }
    }
    Ok(options)
}

/// Asks one compiler, as its user would have it run.
pub struct Asker<'a> {
    invocation: &'a Invocation,
    options: &'a [Vec<u8>],
}

impl<'a> Asker<'a> {
    /// For the compiler of this invocation.
    pub fn new(invocation: &'a Invocation, options: &'a [Vec<u8>]) -> Self {
        Self { invocation, options }
    }

    /// A path as the compiler means it.
    pub fn absolute(&self, path: &[u8]) -> PathBuf {
        self.invocation.cwd_path().join(OsStr::from_bytes(path))
    }

    fn ask(&self, arguments: &[&str]) -> Result<(String, String), String> {
        let name = self.invocation.argv.iter().next().unwrap_or_default();
        let mut command = Command::new(spelling::called(self.absolute(&self.invocation.tool), name));
        host::prepare_question(&mut command, OsStr::from_bytes(name));
        command.args(self.options.iter().map(|o| OsStr::from_bytes(o))).args(arguments).env_clear();
        for entry in self.invocation.env.iter() {
            // Windows keeps directories of drives in variables whose names begin with `=`.
            let Some(equals) = entry.iter().skip(1).position(|&b| b == b'=') else { continue };
            command.env(OsStr::from_bytes(&entry[..=equals]), OsStr::from_bytes(&entry[equals + 2..]));
        }
        // The answers are to be read by us.
        command.env_remove("LANGUAGE").env("LC_ALL", "C").current_dir(self.invocation.cwd_path());
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("the compiler cannot be asked: {e}"))?;
        let text =
            |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| "an answer that is no text".to_owned());
        if !output.status.success() {
            return Err(format!("the compiler does not answer {}", arguments.join(" ")));
        }
        Ok((text(output.stdout)?, text(output.stderr)?))
    }

    /// What it says of a compile of nothing in this language.
    pub fn verbose(&self, language: &str) -> Result<String, String> {
        Ok(self.ask(&["-E", "-v", "-x", language, NO_INPUT])?.1)
    }

    /// Where gcc finds one of its programs; without a slash if `PATH` is to tell.
    pub fn program(&self, name: &str) -> Result<Vec<u8>, String> {
        let said = self.ask(&[&format!("-print-prog-name={name}")])?.0;
        let found = spelling::plain(said.trim().as_bytes()).into_owned();
        if !found.contains(&b'/') {
            Ok(found)
        } else if spelling::is_absolute(&found) {
            Ok(with_extension(self, &found))
        } else {
            Err(format!("{name} at a relative path"))
        }
    }

    /// Where gcc looks for its programs, libraries and specs.
    pub fn gcc_dirs(&self) -> Result<Vec<Vec<u8>>, String> {
        let said = self.ask(&["-print-search-dirs"])?.0;
        let mut dirs: Vec<Vec<u8>> = Vec::new();
        for line in said.lines() {
            let Some((label, list)) = line.split_once(": ") else { continue };
            if matches!(label, "install" | "programs" | "libraries") {
                let list = list.strip_prefix('=').unwrap_or(list);
                dirs.extend(spelling::list(list.as_bytes()).into_iter().filter(|dir| !dir.is_empty()));
            }
        }
        dirs.sort();
        dirs.dedup();
        if dirs.is_empty() { Err("the compiler does not say where it looks".into()) } else { Ok(dirs) }
    }
}

/// What is searched for headers.
#[derive(Debug, Default)]
pub struct Searched {
    /// Directories of headers.
    pub dirs: Vec<Vec<u8>>,
    /// Directories of frameworks, and what would be one.
    pub frameworks: Vec<Vec<u8>>,
    /// Whether there is one of these.
    pub has_frameworks: bool,
}

/// The directories that `-v` says are searched, or would be if they existed.
///
/// # Errors
/// If that is not what it says.
pub fn search_dirs(said: &str) -> Result<Searched, String> {
    let mut searched = Searched::default();
    let mut in_list = false;
    let mut ended = false;
    for line in said.lines() {
        if line.starts_with("#include ") {
            in_list = true;
        } else if line == "End of search list." {
            (in_list, ended) = (false, true);
        } else if in_list {
            let dir = line.strip_prefix(' ').ok_or("a search list of another form")?;
            if dir.ends_with(" (headermap)") {
                return Err("a header map".into());
            }
            match dir.strip_suffix(" (framework directory)") {
                Some(dir) => {
                    searched.has_frameworks = true;
                    searched.frameworks.push(dir.as_bytes().to_vec());
                }
                None => searched.dirs.push(spelling::plain(dir.as_bytes()).into_owned()),
            }
        } else if let Some(rest) = line.strip_prefix("ignoring ") {
            let quoted = rest.split_once('"').and_then(|(_, rest)| rest.strip_suffix('"'));
            let dir = quoted.ok_or("a search list of another form")?;
            // Of whichever kind it would be.
            searched.frameworks.push(dir.as_bytes().to_vec());
            searched.dirs.push(spelling::plain(dir.as_bytes()).into_owned());
        }
    }
    if ended { Ok(searched) } else { Err("no search list".into()) }
}

/// What `-v` says behind a label at the beginning of a line.
pub fn value<'a>(said: &'a str, label: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.strip_prefix(label)).map(str::trim)
}

/// The driver that gcc's answer comes from, if it says by which path it was called.
pub fn driver(said: &str) -> Option<Vec<u8>> {
    let called = spelling::plain(value(said, "COLLECT_GCC=")?.as_bytes()).into_owned();
    called.contains(&b'/').then_some(called)
}

/// The specs that gcc read from files.
pub fn specs_read(said: &str) -> Vec<Vec<u8>> {
    let paths = said.lines().filter_map(|line| line.strip_prefix("Reading specs from "));
    paths.map(|path| spelling::plain(path.trim().as_bytes()).into_owned()).collect()
}

/// The program that clang's driver runs as the compiler proper: ` "/usr/bin/clang" -cc1 …`, a backslash before what
/// would have a meaning within the quotes.
pub fn inner_program(said: &str) -> Option<Vec<u8>> {
    let line = said.lines().find(|line| line.contains(" \"-cc1\" ") || line.contains("\" -cc1 "))?;
    let mut program = Vec::new();
    let mut bytes = line.trim_start().strip_prefix('"')?.bytes();
    loop {
        match bytes.next()? {
            b'"' => return Some(spelling::plain(&program).into_owned()),
            b'\\' => program.push(bytes.next()?),
            byte => program.push(byte),
        }
    }
}

/// A program's file, which need not be named in full.
pub fn with_extension(asker: &Asker<'_>, program: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(program);
    let mut files = spelling::program_files(&text).into_iter();
    let is_there = |file: &Vec<u8>| asker.absolute(file).is_file();
    if is_there(&program.to_vec()) {
        return program.to_vec();
    }
    files.find(is_there).unwrap_or_else(|| program.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_lists_are_read_with_what_is_missing() {
        let said = "Using built-in specs.\nignoring nonexistent directory \"/no\"\nignoring duplicate directory \"/d\"\n\
                    #include \"...\" search starts here:\n /q\n#include <...> search starts here:\n /a b\n /usr\nEnd of search list.\nX=\n";
        let searched = search_dirs(said).unwrap();
        assert_eq!(searched.dirs, [&b"/no"[..], b"/d", b"/q", b"/a b", b"/usr"]);
        assert!(search_dirs("#include <...> search starts here:\n /a\n").is_err());
        let said =
            "#include <...> search starts here:\n /a\n /F (framework directory)\nEnd of search list.\n";
        let searched = search_dirs(said).unwrap();
        assert_eq!(
            (&searched.dirs[..], &searched.frameworks[..]),
            (&[b"/a".to_vec()][..], &[b"/F".to_vec()][..])
        );
    }

    #[test]
    fn options_that_change_the_answers_are_kept_in_order() {
        let arguments =
            |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let typed = arguments(&["-O2", "-m32", "-Ix", "-target", "t", "-nostdinc", "a.c"]);
        assert_eq!(options(&typed).unwrap(), [&b"-m32"[..], b"-target", b"t", b"-nostdinc"]);
        assert!(options(&arguments(&["@file"])).is_err());
    }

    #[test]
    fn answers_tell_which_programs_and_specs_take_part() {
        let said = "COLLECT_GCC=/opt/bin/gcc\nReading specs from /opt/lib/device-specs/specs-x\nclang version 1\n \
                    \"/usr/lib/a \\\"b\\\"/clang\" -cc1 -triple x \"-E\"\n";
        assert_eq!(driver(said).unwrap(), b"/opt/bin/gcc");
        assert_eq!(driver("COLLECT_GCC=gcc\n"), None);
        assert_eq!(specs_read(said), [b"/opt/lib/device-specs/specs-x"]);
        assert_eq!(inner_program(said).unwrap(), b"/usr/lib/a \"b\"/clang");
        assert_eq!(inner_program("clang version 1\n"), None);
    }
}
