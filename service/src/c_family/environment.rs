//! Which environment variables are inputs of a compile, and why.
//!
//! The kernel shows every file a compiler looks at, but not which variables it reads. This table is what is
//! known of them; `docs/environment.md` is its prose. A variable that is missing here is a stale object waiting
//! to happen, one too many only a miss: in doubt it is listed. What a variable does to *paths* is observed as
//! well, but a record made under one `PATH` must not be served under another that would have probed elsewhere.
//!
//! Sources: the GCC manual ("Environment Variables Affecting GCC", "Environment Variables Affecting the
//! preprocessor"), clang's manual pages, gettext's manual (locale), the manual page of the dynamic linker.

use std::borrow::Cow;
use std::path::Path;

use zccache_actors::signature::Signature;
use zccache_actors::spelling;
use zccache_proto::ByteStrings;

use super::names::Compiler;

/// Whose table a variable is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Both families.
    Both,
    /// gcc, and the GNU binutils.
    Gcc,
    /// clang.
    Clang,
}

/// One variable, or all whose names begin so.
#[derive(Debug)]
pub struct Variable {
    /// The name; a trailing `*` stands for any tail.
    pub name: &'static str,
    /// Who reads it.
    pub reader: Reader,
    /// What it does.
    pub why: &'static str,
}

impl Variable {
    /// The name without the star.
    fn head(&self) -> &'static [u8] {
        self.name.strip_suffix('*').unwrap_or(self.name).as_bytes()
    }

    fn covers(&self, name: &[u8], compiler: Compiler) -> bool {
        let is_read = match self.reader {
            Reader::Both => true,
            Reader::Gcc => compiler == Compiler::Gcc,
            Reader::Clang => compiler == Compiler::Clang,
        };
        let is_whole = !self.name.ends_with('*');
        is_read && name.starts_with(self.head()) && (!is_whole || name.len() == self.name.len())
    }
}

const fn both(name: &'static str, why: &'static str) -> Variable {
    Variable { name, reader: Reader::Both, why }
}

const fn gcc(name: &'static str, why: &'static str) -> Variable {
    Variable { name, reader: Reader::Gcc, why }
}

const fn clang(name: &'static str, why: &'static str) -> Variable {
    Variable { name, reader: Reader::Clang, why }
}

/// Every variable that enters the request key, sorted by name.
#[rustfmt::skip] // one line an entry
pub static VARIABLES: &[Variable] = &[
    both("ASAN_*", "options of a compiler built with a sanitizer"),
    gcc("BINUTILS_ROOT", "where subprograms are looked for"),
    clang("CCC_*", "edits clang's arguments (CCC_OVERRIDE_OPTIONS)"),
    clang("CLANG_*", "clang's own switches (CLANG_CONFIG_FILE_*, CLANG_CRASH_*, CLANG_NO_DEFAULT_CONFIG)"),
    both("CLICOLOR", "colours of diagnostics"),
    both("CLICOLOR_FORCE", "colours of diagnostics"),
    gcc("COLLECT_*", "how gcc's driver talks to the linker's helper"),
    both("COLORTERM", "colours of diagnostics"),
    both("COLUMNS", "width of diagnostics"),
    both("COMPILER_PATH", "where subprograms are looked for"),
    both("CPATH", "header search"),
    both("CPLUS_INCLUDE_PATH", "header search, C++"),
    both("C_INCLUDE_PATH", "header search, C"),
    gcc("DEB_BUILD_OPTIONS", "whether Debian's gcc reports its own crashes"),
    both("FORCE_*", "FORCE_COLOR: colours; FORCE_CLANG_*: clang's own switches"),
    gcc("G++_ROOT", "where subprograms are looked for"),
    gcc("GCC_*", "GCC_EXEC_PREFIX, GCC_COMPARE_DEBUG, GCC_COLORS, GCC_URLS, GCC_EXTRA_DIAGNOSTIC_OUTPUT, GCC_ROOT"),
    both("GLIBC_TUNABLES", "processor features that libc reports, locale details"),
    both("GNUTARGET", "the format objcopy takes objects for (-gsplit-dwarf)"),
    both("HOME", "configuration files of clang; what specs may ask for"),
    clang("IPHONEOS_DEPLOYMENT_TARGET", "target version"),
    both("LANG", "language and character set of diagnostics and of input"),
    both("LANGUAGE", "language of diagnostics"),
    both("LC_*", "language and character set of diagnostics and of input"),
    both("LDEMULATION", "the linker's emulation"),
    both("LD_*", "what is loaded into the compiler, and options of the linker"),
    both("LIBRARY_PATH", "library search, shown by -v"),
    both("LLD_*", "lld's own switches"),
    clang("LLVM_*", "LLVM's own switches"),
    both("LOCALE_ARCHIVE*", "where locales come from"),
    both("LOCPATH", "where locales come from"),
    gcc("LPATH", "library search, shown by -v"),
    clang("MACOSX_DEPLOYMENT_TARGET", "target version"),
    both("MALLOC_*", "memory debugging of libc: MALLOC_PERTURB_ fills what is uninitialised"),
    both("MOLD_*", "mold's own switches"),
    both("NLSPATH", "where messages come from"),
    both("NO_COLOR", "colours of diagnostics"),
    both("OBJCPLUS_INCLUDE_PATH", "header search, Objective-C++"),
    both("OBJC_INCLUDE_PATH", "header search, Objective-C"),
    both("OUTPUT_CHARSET", "character set of diagnostics"),
    both("PATH", "where the driver looks for itself and for its assembler"),
    both("POSIXLY_CORRECT", "how the assembler reads its arguments"),
    clang("ROCM_PATH", "where the HIP installation is looked for"),
    clang("SDKROOT", "system root"),
    both("SOURCE_DATE_EPOCH", "the time that __DATE__ and __TIME__ tell"),
    both("TERM", "colours of diagnostics"),
    gcc("TERM_URLS", "links in diagnostics"),
    both("TEXTDOMAINDIR", "where messages come from"),
    clang("TVOS_DEPLOYMENT_TARGET", "target version"),
    both("TZ", "the time zone that __DATE__, __TIME__ and __TIMESTAMP__ are told in"),
    both("TZDIR", "where time zones come from"),
    both("UBSAN_*", "options of a compiler built with a sanitizer"),
    clang("WATCHOS_DEPLOYMENT_TARGET", "target version"),
    clang("XROS_DEPLOYMENT_TARGET", "target version"),
];

/// Variables that are left out even where any variable may be read: they differ between any two runs, or are
/// rewritten by every shell, and no tool's result hangs on them. Sorted.
///
/// `PWD` is treated on its own (it enters where it is another name of the working directory). Where temporary files go shows in what is observed.
pub static IGNORABLE: &[&str] = &[
    "MAKEFLAGS",
    "MAKELEVEL",
    "MAKE_TERMERR",
    "MAKE_TERMOUT",
    "MFLAGS",
    "NINJA_STATUS",
    "OLDPWD",
    "PWD",
    "SHLVL",
    "TEMP",
    "TEMPDIR",
    "TMP",
    "TMPDIR",
    "_",
];

/// The entries of `env` that enter the request key, sorted, each once.
pub fn key_entries(env: &ByteStrings, cwd: &Path, compiler: Compiler, any_variable: bool) -> Vec<Vec<u8>> {
    let is_input = |name: &[u8]| {
        if any_variable { !is_ignorable(name) } else { enters_key(name, compiler) }
    };
    let mut entries: Vec<Vec<u8>> =
        env.iter().filter(|e| is_input(&name_of(e))).map(<[u8]>::to_vec).collect();
    entries.extend(pwd_entry(env, cwd));
    // A stable sort by name: of several entries of one name the first is what `getenv` finds.
    entries.sort_by(|a, b| name_of(a).cmp(&name_of(b)));
    entries.dedup();
    entries
}

/// Whether a variable is known not to matter to any tool.
pub fn is_ignorable(name: &[u8]) -> bool {
    IGNORABLE.binary_search_by(|known| known.as_bytes().cmp(name)).is_ok() || name.starts_with(b"ZCCACHE_")
}

/// Whether a variable enters the key of this family's compiles.
pub fn enters_key(name: &[u8], compiler: Compiler) -> bool {
    // Sorted, so what equals or begins `name` stands before its place, among those with the same first byte.
    let end = VARIABLES.partition_point(|variable| variable.head() <= name);
    let before = VARIABLES[..end].iter().rev();
    before
        .take_while(|variable| variable.head().first() == name.first())
        .any(|variable| variable.covers(name, compiler))
}

/// `PWD`, if the compiler would believe it: it names the working directory by another path, which then shows in
/// debug information. Where it is the path that the cwd field of the key has already, or wrong, it is left out.
fn pwd_entry(env: &ByteStrings, cwd: &Path) -> Option<Vec<u8>> {
    use zccache_actors::sys::OsStrExt;
    let pwd = env.value_of(b"PWD")?;
    if pwd == cwd.as_os_str().as_bytes() || !pwd.starts_with(b"/") {
        return None;
    }
    let (claimed, real) = (Signature::of(pwd).ok()?, Signature::of(cwd).ok()?);
    ((claimed.dev, claimed.ino) == (real.dev, real.ino)).then(|| [b"PWD=", pwd].concat())
}

/// Why the environment alone forbids caching, if it does: files are appended to, timings told, or somebody else is asked.
pub fn refusal(env: &ByteStrings, compiler: Compiler) -> Option<&'static str> {
    env.iter().find_map(|entry| match &name_of(entry)[..] {
        b"DEPENDENCIES_OUTPUT" | b"SUNPRO_DEPENDENCIES" => Some("dependencies_output"),
        // It may name a socket, a program or a descriptor that somebody listens at.
        b"CXX_MODULE_MAPPER" if compiler == Compiler::Gcc => Some("modules"),
        b"AS_SECURE_LOG_FILE" if compiler == Compiler::Clang => Some("driver_log"),
        name if compiler == Compiler::Clang
            && (name.starts_with(b"CC_PRINT_") || name.starts_with(b"CC_LOG_")) =>
        {
            Some("driver_log")
        }
        _ => None,
    })
}

/// Whether a variable brings code or options of somebody's own into the compiler, which may read any other.
pub fn brings_code(env: &ByteStrings, compiler: Compiler) -> bool {
    let names: &[&[u8]] = match compiler {
        Compiler::Gcc => &[b"LD_AUDIT", b"LD_PRELOAD"],
        Compiler::Clang => &[b"CCC_OVERRIDE_OPTIONS", b"LD_AUDIT", b"LD_PRELOAD"],
    };
    names.iter().any(|name| env.value_of(name).is_some_and(|value| !value.is_empty()))
}

/// The first variable that makes a compile do what its command line does not say, so that a dependency file
/// would not be the whole truth.
pub fn undeclared(env: &ByteStrings) -> Option<&'static str> {
    const NAMES: &[&str] = &[
        "CCC_OVERRIDE_OPTIONS",
        "COMPILER_PATH",
        "DYLD_FALLBACK_FRAMEWORK_PATH",
        "DYLD_FALLBACK_LIBRARY_PATH",
        "DYLD_FRAMEWORK_PATH",
        "DYLD_INSERT_LIBRARIES",
        "DYLD_LIBRARY_PATH",
        "GCC_COMPARE_DEBUG",
        "GCC_EXEC_PREFIX",
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
    ];
    let named = |name: &[u8]| NAMES.binary_search_by(|known| known.as_bytes().cmp(name)).ok();
    env.iter().find_map(|entry| named(&name_of(entry))).map(|index| NAMES[index])
}

/// A variable's name as the tables have it.
fn name_of(entry: &[u8]) -> Cow<'_, [u8]> {
    spelling::variable(&entry[..entry.iter().position(|&b| b == b'=').unwrap_or(entry.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(env: &[&str], cwd: &Path, compiler: Compiler, any: bool) -> Vec<String> {
        let env: ByteStrings = env.iter().collect();
        key_entries(&env, cwd, compiler, any).into_iter().map(|e| String::from_utf8(e).unwrap()).collect()
    }

    #[test]
    fn tables_are_sorted() {
        assert!(IGNORABLE.is_sorted());
        let names: Vec<_> = VARIABLES.iter().map(|v| v.name.trim_end_matches('*')).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }

    #[test]
    fn variables_enter_by_family_and_by_prefix_in_one_order() {
        let env = [
            "TZ=UTC",
            "FOO=1",
            "LC_TIME=C",
            "GCC_COLORS=x",
            "LC_ALL=C",
            "CCC_OVERRIDE_OPTIONS=#",
            "TMPDIR=/t",
            "LCX=1",
            "GCC_=",
        ];
        let cwd = Path::new("/");
        assert_eq!(
            keys(&env, cwd, Compiler::Gcc, false),
            ["GCC_=", "GCC_COLORS=x", "LC_ALL=C", "LC_TIME=C", "TZ=UTC"]
        );
        assert_eq!(
            keys(&env, cwd, Compiler::Clang, false),
            ["CCC_OVERRIDE_OPTIONS=#", "LC_ALL=C", "LC_TIME=C", "TZ=UTC"]
        );
        assert_eq!(keys(&env, cwd, Compiler::Gcc, true).len(), 8, "all but TMPDIR");
    }

    #[test]
    fn of_several_entries_of_one_name_all_enter_in_their_order() {
        let (a, b) = (["CPATH=b", "CPATH=a"], ["CPATH=a", "CPATH=b"]);
        assert_ne!(
            keys(&a, Path::new("/"), Compiler::Gcc, false),
            keys(&b, Path::new("/"), Compiler::Gcc, false)
        );
    }

    #[test]
    fn pwd_enters_only_where_it_is_another_name_of_the_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let pwd = |path: &Path| format!("PWD={}", path.display());
        let link_entry = pwd(&link);
        for any in [false, true] {
            assert_eq!(keys(&[&link_entry], &real, Compiler::Gcc, any), [link_entry.as_str()]);
            assert!(keys(&[&pwd(&real)], &real, Compiler::Gcc, any).is_empty());
            assert!(keys(&["PWD=/nowhere"], &real, Compiler::Gcc, any).is_empty());
            assert!(keys(&["PWD=."], &real, Compiler::Gcc, any).is_empty());
        }
    }
}
