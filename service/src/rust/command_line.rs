//! `CommandLine`: what a rustc command line says, as far as the cache has to know.
//!
//! rustc takes its options by `getopts`: `--name value`, `--name=value`, `-C value`, `-Cvalue`, and single letters
//! together (`-vV`). An option that is not known here is never guessed at.

/// Long options with a value.
const WITH_VALUE: &[&[u8]] = &[
    b"allow",
    b"cap-lints",
    b"cfg",
    b"check-cfg",
    b"codegen",
    b"color",
    b"crate-name",
    b"crate-type",
    b"deny",
    b"diagnostic-width",
    b"edition",
    b"emit",
    b"env-set",
    b"error-format",
    b"explain",
    b"extern",
    b"forbid",
    b"force-warn",
    b"json",
    b"out-dir",
    b"print",
    b"remap-path-prefix",
    b"remap-path-scope",
    b"sysroot",
    b"target",
    b"warn",
];

/// Long options that stand alone.
const ALONE: &[&[u8]] = &[b"help", b"test", b"verbose", b"version"];

/// Letters with a value, and the long option that each is short for (or stands as).
const LETTERS_WITH_VALUE: &[(u8, &[u8])] = &[
    (b'A', b"allow"),
    (b'C', b"codegen"),
    (b'D', b"deny"),
    (b'F', b"forbid"),
    (b'L', b"L"),
    (b'W', b"warn"),
    (b'Z', b"Z"),
    (b'l', b"l"),
    (b'o', b"o"),
];

/// Letters that stand alone.
const LETTERS_ALONE: &[u8] = b"OVghv";

/// A directory of `-L`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchDir {
    /// `dependency`, `crate`, `native`, `framework`, `all`, or nothing.
    pub kind: Vec<u8>,
    /// As spelled.
    pub path: Vec<u8>,
}

/// What a command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Arguments that are no options: the sources.
    pub sources: Vec<Vec<u8>>,
    /// `--crate-name`.
    pub crate_name: Option<Vec<u8>>,
    /// `--out-dir`.
    pub out_dir: Option<Vec<u8>>,
    /// `-o`.
    pub output: Option<Vec<u8>>,
    /// `-C extra-filename`.
    pub extra_filename: Vec<u8>,
    /// `-C incremental`.
    pub is_incremental: bool,
    /// `-L`, in order.
    pub search_dirs: Vec<SearchDir>,
    /// Paths that `--extern` names.
    pub extern_paths: Vec<Vec<u8>>,
    /// Dependency information is asked for; its file, if that is named.
    pub dep_info: Option<Option<Vec<u8>>>,
    /// Only a question: a version, help, or something to print.
    pub is_query: bool,
    /// An option that measures.
    pub is_timed: bool,
    /// An option that brings code of the user's into the compiler or the linker.
    pub brings_code: bool,
    /// `--remap-path-prefix`, in order.
    pub prefix_maps: Vec<Vec<u8>>,
    /// `--remap-path-scope`: prefix maps do not count everywhere.
    pub limits_maps: bool,
    /// Any `-Z`.
    pub is_unstable: bool,
    /// `-Z binary-dep-depinfo`: dependency information names crates that are merely there.
    pub tells_candidates: bool,
    /// An option that nobody here knows, or one without its value.
    pub is_unrecognised: bool,
}

impl CommandLine {
    /// Reads the arguments after the tool's name, argument files expanded.
    pub fn parse(arguments: &[Vec<u8>]) -> Self {
        let mut line = Self::default();
        let mut arguments = arguments.iter().map(Vec::as_slice);
        while let Some(argument) = arguments.next() {
            match argument {
                b"--" => line.sources.extend(arguments.by_ref().map(<[u8]>::to_vec)),
                [b'-', b'-', long @ ..] => line.long(long, &mut arguments),
                [b'-', letters @ ..] if !letters.is_empty() => line.letters(letters, &mut arguments),
                source => line.sources.push(source.to_vec()),
            }
        }
        line
    }

    fn long<'a>(&mut self, long: &'a [u8], rest: &mut impl Iterator<Item = &'a [u8]>) {
        let (name, joined) = match long.iter().position(|&b| b == b'=') {
            Some(at) => (&long[..at], Some(&long[at + 1..])),
            None => (long, None),
        };
        if WITH_VALUE.contains(&name) {
            match joined.or_else(|| rest.next()) {
                Some(value) => self.option(name, value),
                None => self.is_unrecognised = true,
            }
        } else if ALONE.contains(&name) && joined.is_none() {
            self.is_query |= matches!(name, b"help" | b"version");
        } else {
            self.is_unrecognised = true;
        }
    }

    fn letters<'a>(&mut self, letters: &'a [u8], rest: &mut impl Iterator<Item = &'a [u8]>) {
        for (at, letter) in letters.iter().enumerate() {
            if let Some((_, name)) = LETTERS_WITH_VALUE.iter().find(|(known, _)| known == letter) {
                let joined = Some(&letters[at + 1..]).filter(|value| !value.is_empty());
                match joined.or_else(|| rest.next()) {
                    Some(value) => self.option(name, value),
                    None => self.is_unrecognised = true,
                }
                return;
            }
            self.is_unrecognised |= !LETTERS_ALONE.contains(letter);
            self.is_query |= matches!(letter, b'V' | b'h');
        }
    }

    fn option(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"L" => self.search_dirs.push(search_dir(value)),
            b"o" => self.output = Some(value.to_vec()),
            b"Z" => self.unstable(value),
            b"codegen" => self.codegen(value),
            b"crate-name" => self.crate_name = Some(value.to_vec()),
            b"emit" => self.emit(value),
            b"explain" => self.is_query = true,
            b"extern" => self.extern_paths.extend(split_at_equals(value).1.map(<[u8]>::to_vec)),
            b"out-dir" => self.out_dir = Some(value.to_vec()),
            b"remap-path-prefix" => self.prefix_maps.push(value.to_vec()),
            b"remap-path-scope" => self.limits_maps = true,
            // These two are printed beside a compile, all others instead of it.
            b"print" => {
                let what = split_at_equals(value).0;
                self.is_query |= !matches!(what, b"native-static-libs" | b"link-args");
            }
            b"warn" | b"allow" | b"deny" | b"forbid" => self.is_query |= value == b"help",
            _ => {}
        }
    }

    fn codegen(&mut self, value: &[u8]) {
        let (name, value) = split_at_equals(value);
        match name {
            b"incremental" => self.is_incremental = true,
            b"extra-filename" => self.extra_filename = value.unwrap_or_default().to_vec(),
            b"help" => self.is_query = true,
            b"link-arg" | b"link-args" | b"linker-plugin-lto" | b"llvm-args" | b"passes" => {
                self.brings_code |= value.is_some_and(|v| v.windows(6).any(|w| w == b"plugin"));
            }
            _ => {}
        }
    }

    fn unstable(&mut self, value: &[u8]) {
        let (name, _) = split_at_equals(value);
        self.is_unstable = true;
        match name {
            b"help" | b"ls" => self.is_query = true,
            b"binary-dep-depinfo" => self.tells_candidates = true,
            b"codegen-backend" | b"llvm-plugins" => self.brings_code = true,
            _ => {
                const TIMED: [&[u8]; 5] =
                    [b"self-profile", b"time-", b"llvm-time-trace", b"print-codegen-stats", b"meta-stats"];
                self.is_timed |= TIMED.iter().any(|prefix| name.starts_with(prefix));
            }
        }
    }

    fn emit(&mut self, value: &[u8]) {
        for kind in value.split(|&b| b == b',') {
            let (name, path) = split_at_equals(kind);
            if name == b"dep-info" {
                self.dep_info = Some(path.map(<[u8]>::to_vec));
            }
        }
    }
}

/// `arguments` without `-C incremental`, and whether there was any.
pub fn without_incremental<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> (Vec<&'a [u8]>, bool) {
    let arguments: Vec<&[u8]> = arguments.collect();
    let is_incremental = |value: &[u8]| split_at_equals(value).0 == b"incremental";
    let (mut kept, mut at) = (Vec::with_capacity(arguments.len()), 0);
    while let Some(&argument) = arguments.get(at) {
        let joined = argument.strip_prefix(b"-C").or_else(|| argument.strip_prefix(b"--codegen="));
        let is_separate = matches!(argument, b"-C" | b"--codegen");
        if is_separate && arguments.get(at + 1).is_some_and(|value| is_incremental(value)) {
            at += 2;
        } else if !is_separate && joined.is_some_and(is_incremental) {
            at += 1;
        } else {
            kept.push(argument);
            at += 1;
        }
    }
    let stripped = kept.len() < arguments.len();
    (kept, stripped)
}

fn search_dir(value: &[u8]) -> SearchDir {
    const KINDS: [&[u8]; 5] = [b"dependency", b"crate", b"native", b"framework", b"all"];
    match split_at_equals(value) {
        (kind, Some(path)) if KINDS.contains(&kind) => SearchDir { kind: kind.to_vec(), path: path.to_vec() },
        _ => SearchDir { kind: Vec::new(), path: value.to_vec() },
    }
}

fn split_at_equals(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&b| b == b'=') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> CommandLine {
        CommandLine::parse(&line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn every_way_to_spell_an_option_is_understood() {
        for line in [
            "a.rs -C incremental=x",
            "a.rs -Cincremental=x",
            "--codegen incremental=x a.rs",
            "--codegen=incremental=x a.rs",
        ] {
            let parsed = parse(line);
            assert!(parsed.is_incremental && !parsed.is_unrecognised, "{line}");
            assert_eq!(parsed.sources, [b"a.rs"], "{line}");
            let (kept, stripped) = without_incremental(line.split(' ').map(str::as_bytes));
            assert!(stripped && kept == [b"a.rs"], "{line}");
        }
        let line = parse(
            "--crate-name x a.rs --emit=dep-info=d.d,link -Ldependency=deps -L . --extern priv:y=/t/liby.rlib --extern z",
        );
        assert_eq!(line.dep_info, Some(Some(b"d.d".to_vec())));
        assert_eq!(line.search_dirs[0], SearchDir { kind: b"dependency".to_vec(), path: b"deps".to_vec() });
        assert_eq!(line.search_dirs[1], SearchDir { kind: Vec::new(), path: b".".to_vec() });
        assert_eq!(line.extern_paths, [b"/t/liby.rlib"]);
        assert_eq!((line.crate_name.as_deref(), line.sources.len()), (Some(&b"x"[..]), 1));
    }

    #[test]
    fn questions_are_told_from_compiles() {
        for line in [
            "-vV",
            "--version",
            "- --crate-name ___ --print=file-names",
            "-C help",
            "--explain E0001",
            "-Whelp",
            "--print cfg",
        ] {
            assert!(parse(line).is_query, "{line}");
        }
        for line in
            ["-v a.rs", "a.rs --print native-static-libs", "a.rs -W unused", "-Og a.rs", "--test a.rs"]
        {
            let parsed = parse(line);
            assert!(!parsed.is_query && !parsed.is_unrecognised, "{line}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for line in ["--frobnicate a.rs", "--test=1 a.rs", "-X a.rs", "a.rs --emit", "a.rs -C"] {
            assert!(parse(line).is_unrecognised, "{line}");
        }
    }
}
