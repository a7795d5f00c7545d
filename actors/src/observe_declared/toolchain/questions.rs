//! Questions to a compiler, put on its command line, and what its answers say.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zccache_proto::ByteStrings;

use crate::invocation::Invocation;

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

/// The options among `argv` that the answers hang on.
///
/// # Errors
/// If some of them cannot be seen, or cannot be asked with.
pub fn options(argv: &ByteStrings) -> Result<Vec<Vec<u8>>, String> {
    let mut options = Vec::new();
    let mut arguments = argv.iter().skip(1);
    while let Some(argument) = arguments.next() {
        let is = |list: &[&str]| list.iter().any(|option| option.as_bytes() == argument);
        if argument.starts_with(b"@") {
            return Err("a response file".into());
        }
        let dialect =
            [&b"-std="[..], b"--std=", b"--", b"-"].iter().find_map(|option| argument.strip_prefix(*option));
        let is_dialect =
            WITHOUT_LINE_COMMENTS.iter().any(|old| dialect.is_some_and(|name| name == old.as_bytes()));
        if is(REFUSED) || is_dialect {
            return Err(format!("{}", argument.escape_ascii()));
        }
        if is(ALONE) || JOINED.iter().any(|option| argument.starts_with(option.as_bytes())) {
            options.push(argument.to_vec());
        } else if is(SEPARATE) {
            options.push(argument.to_vec());
            options.extend(arguments.next().map(<[u8]>::to_vec));
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
        let mut command = Command::new(self.absolute(&self.invocation.tool));
        if let Some(name) = self.invocation.argv.iter().next() {
            command.arg0(OsStr::from_bytes(name));
        }
        command.args(self.options.iter().map(|o| OsStr::from_bytes(o))).args(arguments).env_clear();
        for entry in self.invocation.env.iter() {
            if let Some(equals) = entry.iter().position(|&b| b == b'=').filter(|&at| at > 0) {
                command.env(OsStr::from_bytes(&entry[..equals]), OsStr::from_bytes(&entry[equals + 1..]));
            }
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
        Ok(self.ask(&["-E", "-v", "-x", language, "/dev/null", "-o", "/dev/null"])?.1)
    }

    /// Where gcc finds one of its programs; without a slash if `PATH` is to tell.
    pub fn program(&self, name: &str) -> Result<Vec<u8>, String> {
        let found = self.ask(&[&format!("-print-prog-name={name}")])?.0.trim().as_bytes().to_vec();
        if !found.contains(&b'/') || Path::new(OsStr::from_bytes(&found)).is_absolute() {
            Ok(found)
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
                dirs.extend(list.split(':').filter(|dir| !dir.is_empty()).map(|dir| dir.as_bytes().to_vec()));
            }
        }
        dirs.sort();
        dirs.dedup();
        if dirs.is_empty() { Err("the compiler does not say where it looks".into()) } else { Ok(dirs) }
    }
}

/// The directories that `-v` says are searched, or would be if they existed.
///
/// # Errors
/// If that is not what it says.
pub fn search_dirs(said: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut dirs = Vec::new();
    let mut in_list = false;
    let mut ended = false;
    for line in said.lines() {
        if line.starts_with("#include ") {
            in_list = true;
        } else if line == "End of search list." {
            (in_list, ended) = (false, true);
        } else if in_list {
            let dir = line.strip_prefix(' ').ok_or("a search list of another form")?;
            if dir.ends_with(" (framework directory)") || dir.ends_with(" (headermap)") {
                return Err("a framework directory".into());
            }
            dirs.push(dir.as_bytes().to_vec());
        } else if let Some(rest) = line.strip_prefix("ignoring ") {
            let quoted = rest.split_once('"').and_then(|(_, rest)| rest.strip_suffix('"'));
            dirs.push(quoted.ok_or("a search list of another form")?.as_bytes().to_vec());
        }
    }
    if ended { Ok(dirs) } else { Err("no search list".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_lists_are_read_with_what_is_missing() {
        let said = "Using built-in specs.\nignoring nonexistent directory \"/no\"\nignoring duplicate directory \"/d\"\n\
                    #include \"...\" search starts here:\n /q\n#include <...> search starts here:\n /a b\n /usr\nEnd of search list.\nX=\n";
        let dirs = search_dirs(said).unwrap();
        assert_eq!(dirs, [&b"/no"[..], b"/d", b"/q", b"/a b", b"/usr"]);
        assert!(search_dirs("#include <...> search starts here:\n /a\n").is_err());
    }

    #[test]
    fn options_that_change_the_answers_are_kept_in_order() {
        let argv: ByteStrings =
            ["gcc", "-O2", "-m32", "-Ix", "-target", "t", "-nostdinc", "a.c"].iter().collect();
        assert_eq!(options(&argv).unwrap(), [&b"-m32"[..], b"-target", b"t", b"-nostdinc"]);
        assert!(options(&["gcc", "@file"].iter().collect()).is_err());
    }
}
