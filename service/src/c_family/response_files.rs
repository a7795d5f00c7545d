//! Response files: `@file` among the arguments, replaced by the arguments the file holds, as the compiler does.
//!
//! Both families replace an argument that starts with `@` wherever it stands, leave it as it is when there is
//! no such file, look nested ones up from the working directory, and split at white space with quotes and
//! backslashes. They differ in corners; what they may read differently is refused, and the compiler is left to it.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::path::Path;
use zccache_actors::signature::Signature;
use zccache_actors::sys::OsStrExt;

/// Nesting depth at which expansion is refused. Build tools nest once; compilers allow far more (gcc: 2000
/// files), but what goes deeper is more likely a file that names itself.
const DEPTH_MAX: usize = 10;

/// All response files of one command together, in bytes. The longest seen in practice (object lists of a whole
/// browser) are below 4 MiB; above this the reading would cost more than it can save.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Arguments after expansion. As many as `BYTES_MAX` could hold would take a hundred times its memory.
const ARGUMENTS_MAX: usize = 1_000_000;

/// A response file that was not expanded: unreadable, too deep, too long, or no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotExpanded;

/// Arguments without response files, and the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The arguments.
    pub arguments: Vec<Vec<u8>>,
    /// The files as spelled, and what they were when they were read; nothing for one that is not there.
    pub files: Vec<(Vec<u8>, Option<Signature>)>,
}

/// The arguments (`argv[0]` not among them) with every response file replaced by what it holds.
///
/// # Errors
/// [`NotExpanded`] if a file exists and cannot be read, is no regular file, or a limit is passed.
pub fn expand<'a>(arguments: impl Iterator<Item = &'a [u8]>, cwd: &Path) -> Result<Expanded, NotExpanded> {
    let mut expansion = Expansion { cwd, bytes_left: BYTES_MAX, expanded: Expanded::default() };
    for argument in arguments {
        expansion.add(argument, 0)?;
    }
    Ok(expansion.expanded)
}

/// An expansion in progress.
struct Expansion<'a> {
    cwd: &'a Path,
    bytes_left: usize,
    expanded: Expanded,
}

impl Expansion<'_> {
    fn add(&mut self, argument: &[u8], depth: usize) -> Result<(), NotExpanded> {
        let content = match argument.strip_prefix(b"@") {
            Some(name) => self.read(name)?,
            None => None,
        };
        let Some(content) = content else {
            if self.expanded.arguments.len() >= ARGUMENTS_MAX {
                return Err(NotExpanded);
            }
            self.expanded.arguments.push(argument.to_vec());
            return Ok(());
        };
        if depth >= DEPTH_MAX {
            return Err(NotExpanded);
        }
        for nested in split(&content)? {
            self.add(&nested, depth + 1)?;
        }
        Ok(())
    }

    /// The content of a response file; `None` if there is no such file and the argument stands for itself.
    fn read(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>, NotExpanded> {
        let path = self.cwd.join(OsStr::from_bytes(name));
        // Looked at before it is opened: opening a FIFO would wait, and reading one would take what is for the compiler.
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(NotExpanded),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                self.expanded.files.push((name.to_vec(), None));
                return Ok(None);
            }
            Err(_) => return Err(NotExpanded),
        }
        // Should it change while it is read, this is not what it is when the tool runs.
        let signature = Signature::of(path.as_path()).map_err(|_| NotExpanded)?;
        self.expanded.files.push((name.to_vec(), Some(signature)));
        let file = std::fs::File::open(&path).map_err(|_| NotExpanded)?;
        let mut content = Vec::new();
        let limit = self.bytes_left as u64 + 1;
        let length = file.take(limit).read_to_end(&mut content).map_err(|_| NotExpanded)?;
        self.bytes_left = self.bytes_left.checked_sub(length).ok_or(NotExpanded)?;
        Ok(Some(content))
    }
}

/// Splits a response file's text into arguments: white space separates, `'…'` and `"…"` keep it, a backslash
/// takes the next byte as it is, within `"…"` a quote or another backslash. On Windows it is the same: the gcc-like drivers
/// read such files there as they do elsewhere, so that build tools write slashes into them, or two backslashes for one.
///
/// # Errors
/// [`NotExpanded`] for what the two families or their versions read differently: NUL, vertical tab, form
/// feed, a byte order mark (clang takes the file for UTF-16 or drops the mark), an empty or unfinished quote,
/// a backslash at the end of a line or of the text, within `'…'`, or within `"…"` before anything else (gcc from version 15
/// on takes it for itself there, as a shell would).
fn split(text: &[u8]) -> Result<Vec<Vec<u8>>, NotExpanded> {
    let marked = [&b"\xff\xfe"[..], b"\xfe\xff", b"\xef\xbb\xbf"].iter().any(|mark| text.starts_with(mark));
    if marked || text.iter().any(|b| matches!(b, 0 | 0x0b | 0x0c)) {
        return Err(NotExpanded);
    }
    let mut arguments = Vec::new();
    let mut argument: Option<Vec<u8>> = None;
    let mut quote: Option<u8> = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (b'\\', _) => match (bytes.next(), quote) {
                (None | Some(b'\n' | b'\r'), _) | (_, Some(b'\'')) => return Err(NotExpanded),
                (Some(escaped), Some(_)) if !matches!(escaped, b'"' | b'\\') => return Err(NotExpanded),
                (Some(escaped), _) => argument.get_or_insert_default().push(escaped),
            },
            (_, Some(open)) if byte == open => quote = None,
            (_, Some(_)) => argument.get_or_insert_default().push(byte),
            (b'\'' | b'"', None) => {
                quote = Some(byte);
                argument.get_or_insert_default();
            }
            (b' ' | b'\t' | b'\n' | b'\r', None) => arguments.extend(argument.take()),
            (_, None) => argument.get_or_insert_default().push(byte),
        }
    }
    arguments.extend(argument);
    if quote.is_some() || arguments.iter().any(Vec::is_empty) {
        return Err(NotExpanded);
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&[&str]>) {
        let expect: Option<Vec<Vec<u8>>> = expect.map(|e| e.iter().map(|a| a.as_bytes().to_vec()).collect());
        assert_eq!(split(text.as_bytes()).ok(), expect, "{text:?}");
    }

    #[test]
    fn text_is_split_as_the_compilers_split_it() {
        check("", Some(&[]));
        check(" \n\t", Some(&[]));
        check("-c a.c\n-o\ta.o\n", Some(&["-c", "a.c", "-o", "a.o"]));
        check(r#"'-DA="x y"' "b c" d\ e"#, Some(&[r#"-DA="x y""#, "b c", "d e"]));
        check(r#""a\"b" \' x''y "c\\d""#, Some(&[r#"a"b"#, "'", "xy", r"c\d"]));
        check(r"dir\\a.c", Some(&[r"dir\a.c"]));
        check(r"'\''", None);
        check(r#""a\b""#, None);
        check(r#"a "" b"#, None);
        check("a\x0bb", None);
        check("'unfinished", None);
        check("end\\", None);
        check("a\\\nb", None);
    }

    #[test]
    fn missing_files_stand_for_themselves_and_nested_ones_are_found_from_the_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/outer"), "-c @sub/inner @inner").unwrap();
        std::fs::write(dir.path().join("sub/inner"), b"a\xff.c").unwrap();
        let got = expand([&b"@sub/outer"[..], b"@none", b"-O"].into_iter(), dir.path()).unwrap();
        assert_eq!(got.arguments, [&b"-c"[..], b"a\xff.c", b"@inner", b"@none", b"-O"]);
        let files: Vec<_> =
            got.files.iter().map(|(name, signature)| (&name[..], signature.is_some())).collect();
        let expected: [(&[u8], bool); 4] =
            [(b"sub/outer", true), (b"sub/inner", true), (b"inner", false), (b"none", false)];
        assert_eq!(files, expected);
    }

    #[test]
    fn files_nest_so_deep_and_hold_so_much_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("f1", "-c");
        (2..=DEPTH_MAX + 1).for_each(|n| write(&format!("f{n}"), &format!("@f{}", n - 1)));
        write("longer", &" ".repeat(BYTES_MAX + 1));
        write("more", &"x ".repeat(ARGUMENTS_MAX + 1));
        let count = |argument: &str| {
            expand([argument.as_bytes()].into_iter(), dir.path()).map(|all| all.arguments.len())
        };
        assert_eq!(count(&format!("@f{DEPTH_MAX}")), Ok(1));
        assert_eq!(count(&format!("@f{}", DEPTH_MAX + 1)), Err(NotExpanded));
        assert_eq!((count("@longer"), count("@more")), (Err(NotExpanded), Err(NotExpanded)));
    }

    #[test]
    fn a_file_that_names_itself_and_a_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("loop"), "@loop").unwrap();
        for argument in [&b"@loop"[..], b"@.", b"@/dev/null"] {
            assert_eq!(expand([argument].into_iter(), dir.path()), Err(NotExpanded));
        }
    }
}
