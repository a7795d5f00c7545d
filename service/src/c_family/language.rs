//! `Language`: what a compiler takes an input file for, by `-x` or by extension.
//!
//! Only distinctions that decide between caching and passing through are made. The extensions are those of the
//! GCC manual ("Options Controlling the Kind of Output") and of clang's driver.

use zccache_actors::spelling;

use super::names::Compiler;

/// What an input file is to the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// C, C++, Objective-C or Objective-C++ yet to be preprocessed.
    Source,
    /// The same, preprocessed already.
    Preprocessed,
    /// Assembler.
    Assembler,
    /// Assembler yet to be preprocessed.
    AssemblerSource,
    /// LLVM's own code, as text or bitcode.
    Ir,
    /// A header: compiling it makes a precompiled header.
    Header,
    /// A C++ module's interface.
    Module,
    /// Something else the driver can compile: Fortran, Ada, CUDA, …
    Other,
    /// Something for the linker: objects, libraries, unknown extensions.
    LinkerInput,
}

impl Language {
    /// The language that `-x name` asks for. `None` is `-x none`: by extension again.
    pub fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"none" => return None,
            b"c" | b"c++" | b"objective-c" | b"objective-c++" => Self::Source,
            b"cpp-output"
            | b"c++-cpp-output"
            | b"objective-c-cpp-output"
            | b"objective-c++-cpp-output"
            | b"objc-cpp-output"
            | b"objc++-cpp-output" => Self::Preprocessed,
            b"assembler" => Self::Assembler,
            b"assembler-with-cpp" => Self::AssemblerSource,
            b"ir" => Self::Ir,
            b"c-header"
            | b"c++-header"
            | b"objective-c-header"
            | b"objective-c++-header"
            | b"c++-system-header"
            | b"c++-user-header"
            | b"c-header-cpp-output"
            | b"c++-header-cpp-output"
            | b"c++-header-unit-header" => Self::Header,
            b"c++-module" | b"c++-module-cpp-output" => Self::Module,
            _ => Self::Other,
        })
    }

    /// The language that a file's extension stands for.
    pub fn of_path(path: &[u8], compiler: Compiler) -> Self {
        let Some(extension) = extension(path) else { return Self::LinkerInput };
        match extension {
            b"c" | b"cc" | b"cp" | b"cxx" | b"cpp" | b"CPP" | b"c++" | b"C" | b"m" | b"mm" | b"M" => {
                Self::Source
            }
            b"i" | b"ii" | b"mi" | b"mii" => Self::Preprocessed,
            b"s" => Self::Assembler,
            b"S" | b"sx" => Self::AssemblerSource,
            b"h" | b"H" | b"hh" | b"hp" | b"hxx" | b"hpp" | b"HPP" | b"h++" | b"tcc" => Self::Header,
            b"ll" | b"bc" if compiler == Compiler::Clang => Self::Ir,
            b"cppm" | b"ccm" | b"cxxm" | b"c++m" | b"ixx" | b"iim" | b"pcm" => Self::Module,
            b"f" | b"F" | b"for" | b"FOR" | b"fpp" | b"FPP" | b"ftn" | b"FTN" | b"f90" | b"F90" | b"f95"
            | b"F95" | b"f03" | b"F03" | b"f08" | b"F08" | b"ads" | b"adb" | b"d" | b"di" | b"dd" | b"go"
            | b"mod" | b"cl" | b"clcpp" | b"cu" | b"cui" | b"hip" | b"hipi" | b"rs" | b"ast" | b"asm"
            | b"gch" | b"pch" => Self::Other,
            _ => Self::LinkerInput,
        }
    }
}

/// What follows the last dot of a path's last part. A name that begins with its only dot has none: gcc sees it so
/// (clang does not, and `.c` is not worth a distinction).
fn extension(path: &[u8]) -> Option<&[u8]> {
    let name = base_name(path);
    name.iter().rposition(|&b| b == b'.').filter(|&dot| dot > 0).map(|dot| &name[dot + 1..])
}

/// A path's last part: what follows the last slash.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| spelling::is_separator(b)).map_or(path, |slash| &path[slash + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_tell_languages_and_unknown_ones_are_for_the_linker() {
        for (path, expect) in [
            ("a.c", Language::Source),
            ("d.x/a.cpp", Language::Source),
            ("a.C", Language::Source),
            ("a.mm", Language::Source),
            ("a.tab.c", Language::Source),
            (".c", Language::LinkerInput),
            ("a.i", Language::Preprocessed),
            ("a.s", Language::Assembler),
            ("a.S", Language::AssemblerSource),
            ("a.h", Language::Header),
            ("a.ixx", Language::Module),
            ("a.f90", Language::Other),
            ("a.o", Language::LinkerInput),
            ("a", Language::LinkerInput),
            ("d.c/a", Language::LinkerInput),
            ("a.", Language::LinkerInput),
            ("liba.so.1", Language::LinkerInput),
            ("a.ll", Language::LinkerInput),
        ] {
            assert_eq!(Language::of_path(path.as_bytes(), Compiler::Gcc), expect, "{path}");
        }
        assert_eq!(Language::of_path(b"a.ll", Compiler::Clang), Language::Ir);
    }
}
