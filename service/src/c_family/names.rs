//! Names of compilers and of the programs they run: `gcc-12`, `x86_64-linux-gnu-g++`, `cc1plus`, `ld.lld`.
//!
//! A name says which conventions a tool follows, never that it follows them: a script called `gcc` is found out
//! by observation, when a program runs that [`is_gcc_program`] does not know.

/// A compiler's conventions: its options, its response files, its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compiler {
    /// GNU gcc and g++.
    Gcc,
    /// LLVM clang and clang++.
    Clang,
}

/// What a base name says of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// It names one compiler.
    Compiler(Compiler),
    /// `cc` or `c++`: some compiler; what it resolves to tells which.
    Either,
}

/// What the base name of a tool says, if it can be a C or C++ compiler driver.
pub fn compiler_named(name: &[u8]) -> Option<Named> {
    let (_, stem) = split_target(without_version(name));
    match stem {
        b"gcc" | b"g++" => Some(Named::Compiler(Compiler::Gcc)),
        b"clang" | b"clang++" => Some(Named::Compiler(Compiler::Clang)),
        b"cc" | b"c++" => Some(Named::Either),
        _ => None,
    }
}

/// Whether a program, by base name, is part of a GNU toolchain, so that the environment table of gcc covers it.
pub fn is_gcc_program(name: &[u8]) -> bool {
    is_binutil(name) || {
        let (_, stem) = split_target(without_version(name));
        matches!(
            stem,
            b"gcc"
                | b"g++"
                | b"cc"
                | b"c++"
                | b"cpp"
                | b"cc1"
                | b"cc1plus"
                | b"cc1obj"
                | b"cc1objplus"
                | b"collect2"
                | b"lto1"
                | b"lto-wrapper"
        )
    }
}

/// Whether a program, by base name, is part of an LLVM toolchain (or of the GNU binutils that clang may run).
pub fn is_clang_program(name: &[u8]) -> bool {
    is_binutil(name) || {
        let (_, stem) = split_target(without_version(name));
        matches!(stem, b"clang" | b"clang++" | b"cc" | b"c++" | b"llvm-objcopy")
    }
}

/// Whether a program, by base name, is one that looks for headers: the part of gcc that compiles, or clang.
pub fn searches(name: &[u8]) -> bool {
    let (_, stem) = split_target(without_version(name));
    matches!(stem, b"cc1" | b"cc1plus" | b"cc1obj" | b"cc1objplus" | b"clang" | b"clang++")
}

/// What a program, by base name, does in a compile or a link: drive it, or be one of its stages. A compiler has one
/// program for each.
pub fn task(name: &[u8]) -> Option<&[u8]> {
    let (_, stem) = split_target(without_version(name));
    match stem {
        b"gcc" | b"g++" | b"clang" | b"clang++" | b"cc" | b"c++" => Some(b"driver"),
        b"ld" | b"ld.bfd" | b"ld.gold" | b"ld.lld" | b"ld.mold" | b"lld" | b"gold" | b"mold" => {
            Some(b"linker")
        }
        b"as" | b"cc1" | b"cc1plus" | b"cc1obj" | b"cc1objplus" | b"collect2" | b"lto1" | b"lto-wrapper" => {
            Some(stem)
        }
        _ => None,
    }
}

/// The assemblers, linkers and `objcopy` (`-gsplit-dwarf` runs it) that both families run.
fn is_binutil(name: &[u8]) -> bool {
    let (_, stem) = split_target(without_version(name));
    matches!(
        stem,
        b"as"
            | b"ld"
            | b"ld.bfd"
            | b"ld.gold"
            | b"ld.lld"
            | b"ld.mold"
            | b"lld"
            | b"gold"
            | b"mold"
            | b"objcopy"
    )
}

/// The base name of a tool without target and version: `ld.gold` of `x86_64-linux-gnu-ld.gold`, `clang-tidy` of
/// `clang-tidy-14`. Only targets with three dashes or more are told from a name that holds dashes itself.
pub fn stem_of(name: &[u8]) -> &[u8] {
    const ARCHITECTURES: &[&[u8]] =
        &[b"x86_64-", b"aarch64-", b"arm-", b"i686-", b"i586-", b"riscv64-", b"powerpc64le-"];
    let name = without_version(name);
    if !ARCHITECTURES.iter().any(|a| name.starts_with(a)) {
        return name;
    }
    let dashes = name.iter().enumerate().filter(|(_, b)| **b == b'-').map(|(i, _)| i);
    dashes.clone().nth(2).map_or(name, |third| &name[third + 1..])
}

/// The name without a version (`-12`, `-4.8.5`, `14`) and without mingw's thread model (`-posix`, `-win32`).
fn without_version(name: &[u8]) -> &[u8] {
    let name = name.strip_suffix(b"-posix").or_else(|| name.strip_suffix(b"-win32")).unwrap_or(name);
    let stem = name.trim_ascii_end_matching(|b| b.is_ascii_digit() || b == b'.');
    // `cc1` and `lto1` end in a digit that is no version, and nothing is called "gcc.".
    let digits = &name[stem.len()..];
    match stem.strip_suffix(b"-") {
        Some(stem) if !digits.is_empty() => stem,
        _ if stem.ends_with(b"gcc") || stem.ends_with(b"g++") || stem.ends_with(b"clang") => stem,
        _ if stem.ends_with(b"clang++") => stem,
        _ => name,
    }
}

/// A target triple before the last part of a name, and that part. Parts that hold a dash are tried first.
fn split_target(name: &[u8]) -> (&[u8], &[u8]) {
    for stem in [&b"lto-wrapper"[..], b"llvm-objcopy"] {
        if let Some(target) = name.strip_suffix(stem) {
            return (target, stem);
        }
    }
    match name.iter().rposition(|&b| b == b'-') {
        // A name that begins with a dash is not a target and a tool.
        Some(0) | None => (&[], name),
        Some(dash) => name.split_at(dash + 1),
    }
}

/// Trimming by a predicate, which slices of bytes lack.
trait TrimEnd {
    /// The slice without its longest tail of bytes that all satisfy `is_tail`.
    fn trim_ascii_end_matching(&self, is_tail: impl Fn(u8) -> bool) -> &[u8];
}

impl TrimEnd for [u8] {
    fn trim_ascii_end_matching(&self, is_tail: impl Fn(u8) -> bool) -> &[u8] {
        let end = self.iter().rposition(|&b| !is_tail(b)).map_or(0, |last| last + 1);
        &self[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_known_by_name_version_and_target() {
        let gcc = Some(Named::Compiler(Compiler::Gcc));
        let clang = Some(Named::Compiler(Compiler::Clang));
        let either = Some(Named::Either);
        for (name, expect) in [
            ("gcc", gcc),
            ("g++", gcc),
            ("gcc-12", gcc),
            ("gcc-4.8.5", gcc),
            ("g++-12", gcc),
            ("gcc12", gcc),
            ("x86_64-linux-gnu-gcc-12", gcc),
            ("arm-none-eabi-g++", gcc),
            ("x86_64-w64-mingw32-gcc-posix", gcc),
            ("x86_64-w64-mingw32-g++-12-win32", gcc),
            ("musl-gcc", gcc),
            ("c99-gcc", gcc),
            ("clang", clang),
            ("clang++", clang),
            ("clang-14", clang),
            ("clang++-14", clang),
            ("clang14", clang),
            ("aarch64-linux-gnu-clang++-17", clang),
            ("cc", either),
            ("c++", either),
            ("x86_64-linux-gnu-cc", either),
            ("", None),
            ("-", None),
            ("-gcc", None),
            ("gcc.exe", None),
            ("gcc-ar", None),
            ("gcc-ar-12", None),
            ("gcc-nm", None),
            ("clang-format", None),
            ("clang-cl", None),
            ("clang-cpp-14", None),
            ("clang-tidy-14", None),
            ("cpp", None),
            ("gcc-", None),
            ("cc1", None),
            ("ccache", None),
            ("tcc", None),
            ("rustc", None),
            ("emcc", None),
            ("c", None),
            ("12", None),
        ] {
            assert_eq!(compiler_named(name.as_bytes()), expect, "{name}");
        }
    }

    #[test]
    fn programs_of_a_toolchain_are_known_and_others_are_not() {
        for name in [
            "gcc",
            "g++",
            "x86_64-linux-gnu-gcc-12",
            "cc1",
            "cc1plus",
            "cc1obj",
            "cc1objplus",
            "as",
            "x86_64-linux-gnu-as",
            "ld",
            "ld.bfd",
            "x86_64-linux-gnu-ld.gold",
            "collect2",
            "lto1",
            "lto-wrapper",
            "x86_64-linux-gnu-objcopy",
        ] {
            assert!(is_gcc_program(name.as_bytes()), "{name}");
        }
        for name in [
            "clang",
            "clang-14",
            "clang++",
            "lld",
            "ld.lld-14",
            "ld.lld",
            "llvm-objcopy-14",
            "x86_64-linux-gnu-as",
            "objcopy",
        ] {
            assert!(is_clang_program(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "sh",
            "dash",
            "bash",
            "ccache",
            "distcc",
            "python3.11",
            "cc2",
            "ass",
            "valgrind",
            "gcc-wrapper.sh",
            "strace",
            "1",
        ] {
            assert!(!is_gcc_program(name.as_bytes()), "{name}");
            assert!(!is_clang_program(name.as_bytes()), "{name}");
        }
        assert!(!is_gcc_program(b"clang"), "clang's environment is not in gcc's table");
        assert!(!is_clang_program(b"cc1"), "gcc's environment is not in clang's table");
    }
}
